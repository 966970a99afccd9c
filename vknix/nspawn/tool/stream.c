/* From an output of a container to records of its log. */
#define _GNU_SOURCE
#include "vktool.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void log_lines(struct stream *stream, struct log *log, bool last)
{
    char prefix[PREFIX + 1];
    char *p = stream->text;
    char *end = p + stream->have;

    stamp(prefix, now_ns());
    snprintf(prefix + STAMP, sizeof prefix - STAMP, " %s F ", stream->name);
    while (p < end) {
        size_t left = end - p;
        char *newline = memchr(p, '\n', left > PIECE ? PIECE + 1 : left);
        if (!newline && left <= PIECE && !last)
            break;
        size_t size = newline ? (size_t)(newline - p) : left > PIECE ? PIECE : left;
        log_record(log, prefix, p, size, newline ? 'F' : 'P');
        p += size + (newline ? 1 : 0);
    }
    stream->have = end - p;
    memmove(stream->text, p, stream->have);
    flush_log(log);
}

void log_output(struct stream *stream, struct log *log, bool at_once)
{
    ssize_t n = read(stream->fd, stream->text + stream->have, CHUNK);

    if (n > 0) {
        stream->have += n;
        log_lines(stream, log, at_once);
    } else if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
        close(stream->fd);
        stream->fd = -1;
    }
}
