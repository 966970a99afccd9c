/* Where the last lines of a log begin, and what they say. */
#define _GNU_SOURCE
#include "vktool.h"

#include <string.h>
#include <unistd.h>

/* Just after the last complete record before `size`. */
static off_t complete_end(int fd, off_t size)
{
    char text[4 * PIECE];
    off_t from = size > (off_t)sizeof text ? size - (off_t)sizeof text : 0;
    ssize_t n = pread(fd, text, size - from, from);
    char *newline = n > 0 ? memrchr(text, '\n', n) : NULL;

    return newline ? from + (newline - text) + 1 : from;
}

bool is_inside(int fd, off_t end)
{
    char flag = 'F';

    if (end > 0)
        (void)!pread(fd, &flag, 1, complete_end(fd, end - 1) + FLAG);
    return flag == 'P';
}

/* Where the last `*lines` lines of a file begin; less by those that it has. `open`: an unfinished line at its end is one. */
static off_t tail_start(int fd, long *lines, bool open)
{
    char text[4 * PIECE + PREFIX];
    off_t end = complete_end(fd, lseek(fd, 0, SEEK_END));
    off_t next = end; // where the record behind the one at hand begins

    // A record begins after each newline but the last one, and at 0; a line begins after an F.
    for (off_t at = end - 1; at >= 0;) {
        size_t n = at < 4 * PIECE ? at : 4 * PIECE;
        ssize_t got = pread(fd, text, n + PREFIX, at - n);
        if (got < 0)
            return 0;
        memset(text + got, 0, sizeof text - got);
        for (char *p = text + n; (p = memrchr(text, '\n', p - text)) || at == (off_t)n;) {
            char *record = p ? p + 1 : text;
            if (record[FLAG] == 'F' || (open && next == end)) {
                if (*lines == 0)
                    return next;
                --*lines;
            }
            next = at - (off_t)n + (record - text);
            if (!p)
                return 0;
        }
        at -= n;
    }
    return next;
}

int find_tail(const struct segment *segments, int count, long lines, long long *position)
{
    for (int i = count - 1;; i--) {
        off_t at = tail_start(segments[i].fd, &lines, i == count - 1);
        *position = segments[i].start + at;
        if (i == 0 || at > 0 || lines == 0)
            return i;
    }
}

/* The end of one file of a log: `used` bytes of `out` in place, in front of what is there already. */
static ssize_t file_tail(int fd, long *lines, bool open, char *out, size_t size)
{
    static char text[4 * PIECE];
    off_t from = tail_start(fd, lines, open), near = lseek(fd, 0, SEEK_END) - (off_t)sizeof text;
    ssize_t n = pread(fd, text, sizeof text, from > near ? from : near);
    size_t used = 0;

    for (char *p = text, *newline; n > 0 && (newline = memchr(p, '\n', text + n - p)); p = newline + 1) {
        size_t length = newline - p;
        char flag = p[FLAG];
        if (length < PREFIX || (p == text && from < near))
            continue;
        // In place: the text of all records, moved together at the front.
        memmove(text + used, p + PREFIX, length - PREFIX);
        used += length - PREFIX;
        if (flag == 'F')
            text[used++] = '\n';
    }
    size = used < size ? used : size;
    memcpy(out, text + used - size, size);
    return size;
}

ssize_t tail_text(const char *directory, long attempt, long lines, char *out, size_t size)
{
    static struct segment segments[SEGMENTS];
    int count = open_segments(directory, attempt, segments);
    size_t have = 0;

    for (int i = count - 1; i >= 0 && lines > 0 && have < size; i--) {
        char part[size - have];
        size_t n = file_tail(segments[i].fd, &lines, i == count - 1, part, size - have);
        memmove(out + n, out, have);
        memcpy(out, part, n);
        have += n;
    }
    while (count > 0)
        close(segments[--count].fd);
    return have;
}
