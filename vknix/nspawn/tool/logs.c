/* `vktool logs`: one attempt's log, from its tail, as the container wrote it. */
#define _GNU_SOURCE
#include "vktool.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 262144, WAIT_MS = 1000, LOOK_MS = 100 };

struct reader {
    int file;
    int to; // where what is in `out` goes
    bool apart; // each stream to the one of its name; else all to stdout
    bool stamps;
    bool inside; // a line: its last piece was a P
    char since[STAMP];
    long long left; // bytes that may still go out
    size_t have, used;
    char in[BLOCK], out[BLOCK];
};

/* Just after the last complete record. */
static off_t complete_end(int fd)
{
    char text[4 * PIECE];
    off_t size = lseek(fd, 0, SEEK_END);
    off_t from = size > (off_t)sizeof text ? size - (off_t)sizeof text : 0;
    ssize_t n = pread(fd, text, sizeof text, from);
    char *newline = n > 0 ? memrchr(text, '\n', n) : NULL;

    return newline ? from + (newline - text) + 1 : from;
}

off_t tail_start(int fd, long lines)
{
    char text[4 * PIECE + PREFIX];
    off_t end = complete_end(fd);
    off_t next = end; // where the record behind the one at hand begins
    long seen = 0;

    // A record begins after each newline but the last one, and at 0; a line begins after an F.
    for (off_t at = end - 1; at >= 0;) {
        size_t n = at < 4 * PIECE ? at : 4 * PIECE;
        ssize_t got = pread(fd, text, n + PREFIX, at - n);
        if (got < 0)
            return 0;
        memset(text + got, 0, sizeof text - got);
        for (char *p = text + n; (p = memrchr(text, '\n', p - text)) || at == (off_t)n;) {
            char *record = p ? p + 1 : text;
            if (record[FLAG] == 'F' || next == end) {
                if (seen == lines)
                    return next;
                seen++;
            }
            next = at - (off_t)n + (record - text);
            if (!p)
                return 0;
        }
        at -= n;
    }
    return next;
}

ssize_t tail_text(const char *file, long lines, char *out, size_t size)
{
    static char text[4 * PIECE];
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    size_t used = 0;

    if (fd < 0)
        return -1;
    off_t from = tail_start(fd, lines), near = lseek(fd, 0, SEEK_END) - (off_t)sizeof text;
    ssize_t n = pread(fd, text, sizeof text, from > near ? from : near);
    close(fd);
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

static void flush(struct reader *reader)
{
    if (write_all(reader->to, reader->out, reader->used) < 0)
        exit(0); // nobody reads it any more
    reader->used = 0;
}

/* What comes now is of the stream that a record names, "stdout" or "stderr". */
static void switch_stream(struct reader *reader, const char *record)
{
    int to = record[STAMP + 4] == 'e' ? STDERR_FILENO : STDOUT_FILENO;

    if (to != reader->to)
        flush(reader);
    reader->to = to;
}

static void put(struct reader *reader, const char *text, size_t size)
{
    size = (long long)size < reader->left ? size : (size_t)reader->left;
    if (reader->used + size > sizeof reader->out)
        flush(reader);
    memcpy(reader->out + reader->used, text, size);
    reader->used += size;
    reader->left -= size;
}

/* One record, without its newline. Shorter than a prefix is what a crash of the host left. */
static void take(struct reader *reader, const char *record, size_t size)
{
    if (size < PREFIX || memcmp(record, reader->since, STAMP) < 0)
        return;
    if (reader->apart)
        switch_stream(reader, record);
    if (reader->stamps && !reader->inside)
        put(reader, record, STAMP + 1);
    put(reader, record + PREFIX, size - PREFIX);
    reader->inside = record[FLAG] == 'P';
    if (!reader->inside)
        put(reader, "\n", 1);
}

/* Sends all that the file has now: false once the limit is reached. */
static bool drain(struct reader *reader)
{
    ssize_t n;

    while (reader->left > 0 && (n = read(reader->file, reader->in + reader->have, sizeof reader->in - reader->have)) > 0) {
        char *p = reader->in, *newline;
        reader->have += n;
        while (reader->left > 0 && (newline = memchr(p, '\n', reader->in + reader->have - p))) {
            take(reader, p, newline - p);
            p = newline + 1;
        }
        reader->have -= p - reader->in;
        memmove(reader->in, p, reader->have);
        if (reader->have == sizeof reader->in) // no record is that long
            reader->have = 0;
    }
    flush(reader);
    return reader->left > 0;
}

/* Whether no `vktool run` holds the log any more. */
static bool writer_gone(int fd)
{
    if (flock(fd, LOCK_SH | LOCK_NB) < 0)
        return false;
    flock(fd, LOCK_UN);
    return true;
}

/* Tells of changes to the file; -1 where the host has no inotify instance left (by default it has 128 for each user). */
static int watch_file(const char *file)
{
    int changes = inotify_init1(IN_CLOEXEC);

    return changes >= 0 && inotify_add_watch(changes, file, IN_MODIFY | IN_CLOSE_WRITE) >= 0 ? changes : -1;
}

/* Sends what comes until the writer is gone and the file is read out, or the client is gone. The writer is gone when its socket
   `writer` is closed; with -1, when nobody locks the file. */
static void follow(struct reader *reader, const char *file, int writer)
{
    char events[4096];
    int changes = watch_file(file);

    while (drain(reader)) {
        if (writer < 0 && writer_gone(reader->file))
            break;
        struct pollfd fds[] = {{changes, POLLIN, 0}, {STDOUT_FILENO, 0, 0}, {writer, POLLIN, 0}};
        // With a limit in time: a writer that is killed gives up its lock just after the event of its close.
        if (poll(fds, 3, changes < 0 ? LOOK_MS : WAIT_MS) > 0 && fds[1].revents & (POLLERR | POLLHUP))
            return;
        if (fds[0].revents && read(changes, events, sizeof events) < 0 && errno != EINTR)
            die(1, "inotify: %m");
        if (fds[2].revents)
            break;
    }
    drain(reader);
}

static void open_reader(struct reader *reader, const char *file)
{
    reader->to = STDOUT_FILENO;
    reader->file = open(file, O_RDONLY | O_CLOEXEC);
    if (reader->file < 0)
        die(2, "%s: %m", file);
}

void follow_from(const char *file, off_t start, int writer)
{
    static struct reader reader = {.apart = true, .left = LLONG_MAX};

    open_reader(&reader, file);
    lseek(reader.file, start, SEEK_SET);
    follow(&reader, file, writer);
}

int logs(int argc, char **argv)
{
    static struct reader reader;
    char file[PATH_MAX];

    if (argc != 7)
        die(64, "logs LOGDIR ATTEMPT TAIL SINCE_NS LIMIT follow|all stamps|plain");
    long tail = atol(argv[2]);
    long long limit = atoll(argv[4]);
    path(file, "%s/%ld.log", argv[0], atol(argv[1]));
    open_reader(&reader, file);
    reader.stamps = strcmp(argv[6], "stamps") == 0;
    reader.left = limit < 0 ? LLONG_MAX : limit;
    stamp(reader.since, atoll(argv[3]));
    lseek(reader.file, tail < 0 ? 0 : tail_start(reader.file, tail), SEEK_SET);
    if (strcmp(argv[5], "follow") == 0)
        follow(&reader, file, -1);
    else
        drain(&reader);
    return 0;
}
