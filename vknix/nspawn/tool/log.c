/* The files of a log, and who writes them: `vktool run`. */
#define _GNU_SOURCE
#include "vktool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* The attempt of a file's name, and where in its log it begins (-1: it is the newest): whether it is a log at all. */
static bool parse_name(const char *name, long *attempt, long long *start)
{
    int dot = 0, end = 0;

    *start = -1;
    if (sscanf(name, "%ld.log%n.%lld%n", attempt, &dot, start, &end) < 1 || dot == 0)
        return false;
    return name[dot] == '\0' || (end > 0 && name[end] == '\0');
}

static int by_start(const void *a, const void *b)
{
    const struct segment *left = a, *right = b;

    return left->start < right->start ? -1 : left->start > right->start;
}

/* Opens those that were cut off. Each must be read where it is: a later rotation may remove it. */
static int open_cut(const char *directory, long attempt, struct segment *out)
{
    DIR *dir = opendir(directory);
    struct dirent *entry;
    struct stat st;
    long of;
    long long start;
    int count = 0;

    while (dir && count < SEGMENTS - 1 && (entry = readdir(dir))) {
        if (!parse_name(entry->d_name, &of, &start) || of != attempt || start < 0)
            continue;
        int fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        if (fd >= 0 && fstat(fd, &st) == 0)
            out[count++] = (struct segment){fd, start, st.st_size};
    }
    if (dir)
        closedir(dir);
    qsort(out, count, sizeof *out, by_start);
    return count;
}

static bool is_file(int fd, const struct stat *of)
{
    struct stat ours;

    return fstat(fd, &ours) == 0 && ours.st_ino == of->st_ino && ours.st_dev == of->st_dev;
}

int open_segments(const char *directory, long attempt, struct segment *out)
{
    char newest[PATH_MAX];
    struct stat st;

    path(newest, "%s/%ld.log", directory, attempt);
    for (;;) {
        int fd = open(newest, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
            return 0;
        int count = open_cut(directory, attempt, out);
        if (stat(newest, &st) == 0 && is_file(fd, &st)) {
            const struct segment *last = count ? &out[count - 1] : NULL;
            if (last && is_file(last->fd, &st)) { // in the middle of a rotation it has both names
                close(fd);
                return count;
            }
            out[count] = (struct segment){fd, last ? last->start + last->size : 0, st.st_size};
            return count + 1;
        }
        close(fd); // it was cut off meanwhile
        while (count > 0)
            close(out[--count].fd);
    }
}

/* Makes the newest file. It has another name until it is locked: else a reader could find it without its writer. */
static void make_newest(struct log *log)
{
    char newest[PATH_MAX], fresh[PATH_MAX];

    path(newest, "%s/%ld.log", log->directory, log->attempt);
    path(fresh, "%s/.%ld.log", log->directory, log->attempt);
    int fd = open(fresh, O_RDWR | O_APPEND | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0640);
    if (fd < 0 || flock(fd, LOCK_EX) < 0 || rename(fresh, newest) < 0) {
        close(fd);
        return;
    }
    if (log->fd >= 0) {
        flock(log->fd, LOCK_UN); // before the close, whose event wakes readers
        close(log->fd);
    }
    log->fd = fd;
    log->start += log->size;
    log->size = 0;
}

static void remove_oldest(const struct log *log)
{
    static struct segment segments[SEGMENTS];
    char file[PATH_MAX];
    int count = open_cut(log->directory, log->attempt, segments);

    for (int i = 0; i < count; i++) {
        if (i < count - (log->files - 1)) {
            path(file, "%s/%ld.log.%lld", log->directory, log->attempt, segments[i].start);
            unlink(file);
        }
        close(segments[i].fd);
    }
}

/* The newest file gets a second name first, so that there is a newest one at any time. Where it can't be had, it grows on. */
static void rotate(struct log *log)
{
    char newest[PATH_MAX], cut[PATH_MAX];

    path(newest, "%s/%ld.log", log->directory, log->attempt);
    path(cut, "%s/%ld.log.%lld", log->directory, log->attempt, log->start);
    if (link(newest, cut) < 0 && errno != EEXIST)
        return;
    make_newest(log);
    remove_oldest(log);
}

/* Of the attempts before this one only the last one's log can be asked for. */
static void remove_older(const char *directory, long attempt)
{
    DIR *dir = opendir(directory);
    struct dirent *entry;
    long of;
    long long start;

    while (dir && (entry = readdir(dir)))
        if (parse_name(entry->d_name, &of, &start) && of < attempt - 1)
            unlinkat(dirfd(dir), entry->d_name, 0);
    if (dir)
        closedir(dir);
}

/* What the host's death left of this attempt is written on. */
static void open_again(struct log *log, const char *newest)
{
    static struct segment segments[SEGMENTS];
    int count = open_segments(log->directory, log->attempt, segments);
    char last = '\n';

    log->fd = open(newest, O_RDWR | O_APPEND | O_NOFOLLOW | O_CLOEXEC);
    if (log->fd < 0 || flock(log->fd, LOCK_EX) < 0)
        die(1, "%s: %m", newest);
    log->start = segments[count - 1].start;
    log->size = segments[count - 1].size;
    while (count > 0)
        close(segments[--count].fd);
    if (log->size > 0 && pread(log->fd, &last, 1, log->size - 1) == 1 && last != '\n' && write_all(log->fd, "\n", 1) == 0)
        log->size++; // it died while it wrote
}

void open_log(struct log *log, const char *directory, long attempt)
{
    char newest[PATH_MAX];

    log->directory = directory;
    log->attempt = attempt;
    log->fd = -1;
    path(newest, "%s/%ld.log", directory, attempt);
    remove_older(directory, attempt);
    if (access(newest, F_OK) == 0)
        open_again(log, newest);
    else
        make_newest(log);
    if (log->fd < 0)
        die(1, "%s: %m", newest);
}

/* A line is not cut in two, unless it is longer than a file may be. */
static bool is_full(const struct log *log)
{
    return log->limit > 0 && log->size >= log->limit && (!log->inside || log->size >= 2 * log->limit);
}

void flush_log(struct log *log)
{
    if (write_all(log->fd, log->text, log->used) == 0) {
        log->size += log->used;
    } else {
        log->lost += log->used;
        if (ftruncate(log->fd, log->size) < 0) // a torn record would swallow the next one
            log->size = lseek(log->fd, 0, SEEK_END);
    }
    log->used = 0;
    if (is_full(log))
        rotate(log);
}

void log_record(struct log *log, const char *prefix, const char *text, size_t size, char flag)
{
    if (log->used + PREFIX + size + 1 > sizeof log->text)
        flush_log(log);
    char *p = log->text + log->used;
    memcpy(p, prefix, PREFIX);
    p[FLAG] = flag;
    memcpy(p + PREFIX, text, size);
    p[PREFIX + size] = '\n';
    log->used += PREFIX + size + 1;
    log->inside = flag == 'P';
}

long long log_end(const struct log *log)
{
    return log->start + log->size;
}

void close_log(struct log *log)
{
    flock(log->fd, LOCK_UN); // before the close, whose event wakes readers
    close(log->fd);
}
