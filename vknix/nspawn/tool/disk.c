/* `vktool disk`: what Pods have on disk, as du counts it. Their programs are at work meanwhile and may build any tree: no link is
   followed, no mount entered, and no depth needs more than HELD descriptors. */
#define _GNU_SOURCE
#include "vktool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HELD = 256, BLOCK = 512, POLITE = 10 };

/* A directory on the way down: the directories in it, each name ended by a NUL, and how many bytes of them are done. `fd` is -1 where
   it is so deep that it is entered from below again. */
struct level {
    int fd;
    dev_t dev;
    ino_t ino;
    char *names;
    size_t used, size, next;
};

/* What is counted: what has changed after `since`, on the file system `dev`. */
struct tally {
    struct timespec since;
    dev_t dev;
    unsigned long long bytes;
};

static bool is_later(struct timespec one, struct timespec other)
{
    return one.tv_sec != other.tv_sec ? one.tv_sec > other.tv_sec : one.tv_nsec > other.tv_nsec;
}

/* A file of several names counts a part under each of them. */
static void count(struct tally *tally, const struct stat *st)
{
    unsigned long long shares = S_ISDIR(st->st_mode) || st->st_nlink < 1 ? 1 : st->st_nlink;

    if (is_later(st->st_ctim, tally->since))
        tally->bytes += (unsigned long long)st->st_blocks * BLOCK / shares;
}

static void remember(struct level *level, const char *name)
{
    size_t length = strlen(name) + 1;

    if (level->used + length > level->size) {
        level->size = (level->used + length) * 2;
        level->names = realloc(level->names, level->size);
        if (!level->names)
            die(1, "no memory left");
    }
    memcpy(level->names + level->used, name, length);
    level->used += length;
}

/* Counts what is in a directory, if it is still there, and remembers the directories in it. */
static void look(struct level *level, struct tally *tally)
{
    struct dirent *entry;
    struct stat st;
    int fd = openat(level->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);

    while (dir && (entry = readdir(dir))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (fstatat(level->fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || st.st_dev != tally->dev)
            continue; // it went meanwhile, or is a mount
        count(tally, &st);
        if (S_ISDIR(st.st_mode))
            remember(level, entry->d_name);
    }
    if (dir)
        closedir(dir);
}

/* Goes into the next directory of `level` that is still there, as `below`; false without one. */
static bool descend(struct level *level, struct level *below, const struct tally *tally)
{
    struct stat st;

    while (level->next < level->used) {
        const char *name = level->names + level->next;
        level->next += strlen(name) + 1;
        int fd = openat(level->fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd >= 0 && fstat(fd, &st) == 0 && st.st_dev == tally->dev) {
            *below = (struct level){.fd = fd, .dev = st.st_dev, .ino = st.st_ino};
            return true;
        }
        if (fd >= 0)
            close(fd);
    }
    return false;
}

/* Opens `above` again from below, where it was given up; false where that is another directory by now. */
static bool ascend(struct level *above, int below)
{
    struct stat st;

    if (above->fd >= 0)
        return true;
    above->fd = openat(below, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return above->fd >= 0 && fstat(above->fd, &st) == 0 && st.st_dev == above->dev && st.st_ino == above->ino;
}

static void leave(struct level *level)
{
    free(level->names);
    if (level->fd >= 0)
        close(level->fd);
}

/* All below `where` and the directory itself, but for what has not changed after `since`; false where there is no such directory. */
static bool measure(const char *where, struct timespec since, unsigned long long *bytes)
{
    struct level *levels = NULL;
    struct tally tally = {.since = since};
    size_t depth = 0, room = 0;
    struct stat st;
    int top = open(where, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (top < 0 || fstat(top, &st) < 0)
        return false;
    struct level next = {.fd = top, .dev = st.st_dev, .ino = st.st_ino};
    tally.dev = st.st_dev;
    count(&tally, &st);
    for (;;) {
        if (depth == room) {
            room = room ? room * 2 : 64;
            levels = realloc(levels, room * sizeof *levels);
            if (!levels)
                die(1, "no memory left");
        }
        levels[depth++] = next;
        look(&levels[depth - 1], &tally);
        while (depth && !descend(&levels[depth - 1], &next, &tally)) {
            bool back = depth < 2 || ascend(&levels[depth - 2], levels[depth - 1].fd);
            leave(&levels[--depth]);
            while (!back && depth) // somebody has moved it: what was counted is all for now
                leave(&levels[--depth]);
        }
        if (!depth)
            break;
        if (depth > HELD) {
            close(levels[depth - 1].fd);
            levels[depth - 1].fd = -1;
        }
    }
    free(levels);
    *bytes = tally.bytes;
    return true;
}

/* A container that runs: its logs, and what it has changed in its root since that was filled, which is when its run file was written. */
static void tell_written(const char *uid32, const char *container)
{
    char file[PATH_MAX];
    unsigned long long bytes, files;
    struct stat st;

    path(file, "/run/vknix/%s/c/%s/run", uid32, container);
    if (stat(file, &st) < 0)
        return;
    count_logs(uid32, container, &bytes, &files);
    printf("logs %s %llu\n", container, bytes);
    path(file, "/var/lib/vknix/%s/c/%s/root", uid32, container);
    if (measure(file, st.st_mtim, &bytes))
        printf("root %s %llu\n", container, bytes);
}

static void tell_volume(const char *uid32, const char *volume)
{
    char file[PATH_MAX];
    unsigned long long bytes;

    path(file, "/var/lib/vknix/%s/empty/%s", uid32, volume);
    if (measure(file, (struct timespec){0}, &bytes))
        printf("empty %s %llu\n", volume, bytes);
}

static void tell_each(const char *uid32, const char *folder, void (*tell)(const char *, const char *))
{
    char file[PATH_MAX];
    struct dirent *entry;

    path(file, "/var/lib/vknix/%s/%s", uid32, folder);
    DIR *dir = opendir(file);
    while (dir && (entry = readdir(dir)))
        if (entry->d_name[0] != '.')
            tell(uid32, entry->d_name);
    if (dir)
        closedir(dir);
}

int disk(int argc, char **argv)
{
    setpriority(PRIO_PROCESS, 0, POLITE);
    for (int i = 0; i < argc; i++) {
        printf("of %s\n", argv[i]);
        tell_each(argv[i], "c", tell_written);
        tell_each(argv[i], "empty", tell_volume);
    }
    printf("that was all\n");
    return ferror(stdout) || fflush(stdout) ? 1 : 0;
}
