/* `vktool logs` and `vktool follow`: one attempt's log, as the container wrote it and as records. */
#define _GNU_SOURCE
#include "vktool.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <unistd.h>

enum { BLOCK = 262144, WAIT_MS = 1000, LOOK_MS = 100 };

enum form {
    PLAIN,
    STAMPS,
    APART, // each stream to the one of its name
    FRAMES, // whole records
};

/* `position` is in the whole log: just after the last record that was taken. */
struct reader {
    const char *directory;
    long attempt;
    enum form form;
    int file;
    long long start; // of the file
    int to; // where what is in `out` goes
    bool inside; // a line: its last piece was a P
    bool begins_inside; // what is in `out`
    char since[STAMP];
    long long position, until;
    long long left; // bytes that may still go out
    size_t have, used;
    char in[BLOCK], out[BLOCK];
};

static void write_out(const struct reader *reader, const void *data, size_t size)
{
    if (write_all(reader->to, data, size) < 0)
        exit(0); // nobody reads it any more
}

static void send_frame(struct reader *reader)
{
    char head[80];
    int size = snprintf(head, sizeof head, "%lld %d %zu\n", reader->position, reader->begins_inside, reader->used);

    write_out(reader, head, size);
    write_out(reader, reader->out, reader->used);
    reader->begins_inside = reader->inside;
}

static void flush(struct reader *reader)
{
    if (reader->form == FRAMES && reader->used > 0)
        send_frame(reader);
    else
        write_out(reader, reader->out, reader->used);
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

/* One record, with the newline behind its `size`. Shorter than a prefix is what a crash of the host left. */
static void take(struct reader *reader, const char *record, size_t size)
{
    if (size < PREFIX || memcmp(record, reader->since, STAMP) < 0)
        return;
    bool ends = record[FLAG] != 'P';
    if (reader->form == APART)
        switch_stream(reader, record);
    if (reader->form == FRAMES) {
        put(reader, record, size + 1);
    } else {
        if (reader->form == STAMPS && !reader->inside)
            put(reader, record, STAMP + 1);
        put(reader, record + PREFIX, size - PREFIX);
        if (ends)
            put(reader, "\n", 1);
    }
    reader->inside = !ends;
}

/* How much may be read now: up to `until`, as `have` bytes behind the position have been read already. */
static size_t room(const struct reader *reader)
{
    size_t free = sizeof reader->in - reader->have;
    long long more = reader->until - reader->position - (long long)reader->have;

    return more < (long long)free ? (size_t)(more > 0 ? more : 0) : free;
}

/* Sends all that the file has now: false once the limit is reached. */
static bool drain(struct reader *reader)
{
    ssize_t n;

    while (reader->left > 0 && (n = read(reader->file, reader->in + reader->have, room(reader))) > 0) {
        char *p = reader->in, *newline;
        reader->have += n;
        while (reader->left > 0 && (newline = memchr(p, '\n', reader->in + reader->have - p))) {
            take(reader, p, newline - p);
            reader->position += newline + 1 - p;
            p = newline + 1;
        }
        reader->have -= p - reader->in;
        memmove(reader->in, p, reader->have);
        if (reader->have == sizeof reader->in) { // no record is that long
            reader->position += reader->have;
            reader->have = 0;
        }
    }
    flush(reader);
    return reader->left > 0;
}

/* Whether no `vktool run` holds the file any more. */
static bool writer_gone(int fd)
{
    if (flock(fd, LOCK_SH | LOCK_NB) < 0)
        return false;
    flock(fd, LOCK_UN);
    return true;
}

static void open_file(struct reader *reader, const struct segment *segment)
{
    if (reader->file >= 0)
        close(reader->file);
    reader->file = segment->fd;
    reader->start = reader->position = segment->start;
    reader->have = 0; // what a crash of the host left unfinished at the end of a file is no record
}

/* Goes on with the file behind this one, which is read out: false where there is none. */
static bool next_file(struct reader *reader)
{
    static struct segment segments[SEGMENTS];
    int count = open_segments(reader->directory, reader->attempt, segments), next = 0;

    while (next < count && segments[next].start <= reader->start)
        next++;
    for (int i = 0; i < count; i++)
        if (i != next)
            close(segments[i].fd);
    if (next == count)
        return false;
    drain(reader); // now it is complete
    open_file(reader, &segments[next]);
    return true;
}

static void drain_files(struct reader *reader)
{
    while (drain(reader) && next_file(reader))
        ;
}

/* Tells of changes to the file at hand; -1 where the host has no inotify instance left (by default it has 128 for each user). */
static int watch_file(const struct reader *reader)
{
    char file[32];
    int changes = inotify_init1(IN_CLOEXEC);

    snprintf(file, sizeof file, "/proc/self/fd/%d", reader->file);
    if (changes < 0 || inotify_add_watch(changes, file, IN_MODIFY | IN_CLOSE_WRITE) >= 0)
        return changes;
    close(changes);
    return -1;
}

/* Sends what comes until the writer is gone and the log is read out, or the client is gone. The writer is gone when its socket
   `writer` is closed; with -1, when nobody locks the newest file. */
static void follow_on(struct reader *reader, int writer)
{
    char events[4096];
    int changes = watch_file(reader);

    while (drain(reader)) {
        if (writer_gone(reader->file)) {
            if (next_file(reader)) {
                close(changes);
                changes = watch_file(reader);
                continue;
            }
            if (writer < 0)
                break;
        }
        struct pollfd fds[] = {{changes, POLLIN, 0}, {STDOUT_FILENO, 0, 0}, {writer, POLLIN, 0}};
        // With a limit in time: a writer that is killed gives up its lock just after the event of its close.
        if (poll(fds, 3, changes < 0 ? LOOK_MS : WAIT_MS) > 0 && fds[1].revents & (POLLERR | POLLHUP))
            return;
        if (fds[0].revents && read(changes, events, sizeof events) < 0 && errno != EINTR)
            die(1, "inotify: %m");
        if (fds[2].revents)
            break;
    }
    drain_files(reader);
}

/* Opens a log at its last `tail` lines (-1: all), but not before `from`. */
static void open_reader(struct reader *reader, const char *directory, long attempt, long long from, long tail)
{
    static struct segment segments[SEGMENTS];
    int count = open_segments(directory, attempt, segments), first = 0;
    long long at;

    if (count == 0)
        die(2, "%s/%ld.log: %m", directory, attempt);
    reader->directory = directory;
    reader->attempt = attempt;
    reader->to = STDOUT_FILENO;
    reader->file = -1;
    while (first < count - 1 && segments[first + 1].start <= from)
        first++;
    at = from > segments[first].start ? from : segments[first].start;
    if (tail >= 0) {
        long long tail_at;
        int found = find_tail(segments, count, tail, &tail_at);
        if (tail_at > at) {
            first = found;
            at = tail_at;
        }
    }
    open_file(reader, &segments[first]);
    reader->position = at;
    lseek(reader->file, at - reader->start, SEEK_SET);
    bool at_start = at == reader->start && first > 0;
    const struct segment *before = &segments[at_start ? first - 1 : first];
    reader->inside = reader->begins_inside = is_inside(before->fd, at - before->start);
    for (int i = 0; i < count; i++)
        if (i != first)
            close(segments[i].fd);
}

void follow_from(const char *directory, long attempt, long long start, int writer)
{
    static struct reader reader = {.form = APART, .left = LLONG_MAX, .until = LLONG_MAX};

    open_reader(&reader, directory, attempt, start, -1);
    follow_on(&reader, writer);
}

int logs(int argc, char **argv)
{
    static struct reader reader;

    if (argc != 8)
        die(64, "logs LOGDIR ATTEMPT FROM TAIL SINCE_NS LIMIT UNTIL stamps|plain");
    long long limit = atoll(argv[5]), until = atoll(argv[6]);
    reader.form = strcmp(argv[7], "stamps") == 0 ? STAMPS : PLAIN;
    reader.left = limit < 0 ? LLONG_MAX : limit;
    reader.until = until < 0 ? LLONG_MAX : until;
    stamp(reader.since, atoll(argv[4]));
    open_reader(&reader, argv[0], atol(argv[1]), atoll(argv[2]), atol(argv[3]));
    drain_files(&reader);
    return 0;
}

int follow(int argc, char **argv)
{
    static struct reader reader = {.form = FRAMES, .left = LLONG_MAX, .until = LLONG_MAX};

    if (argc != 2)
        die(64, "follow LOGDIR ATTEMPT");
    open_reader(&reader, argv[0], atol(argv[1]), 0, 0);
    send_frame(&reader);
    follow_on(&reader, -1);
    return 0;
}
