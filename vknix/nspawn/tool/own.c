/* `vktool own`: gives a volume to the Pod's fsGroup, as a kubelet does. Somebody may be at work in it: each file is taken by its
   descriptor, so that no link that appears meanwhile leads to another. */
#define _GNU_SOURCE
#include "vktool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_BITS = 0660, DIRECTORY_BITS = S_ISGID | 0770 };

/* Takes one open file over; a link keeps its mode. */
static int take(int fd, const struct stat *st, gid_t group)
{
    mode_t bits = S_ISDIR(st->st_mode) ? DIRECTORY_BITS : FILE_BITS;
    char self[64];

    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    if (fchownat(fd, "", -1, group, AT_EMPTY_PATH) < 0)
        return -1;
    return S_ISLNK(st->st_mode) ? 0 : chmod(self, (st->st_mode & 07777) | bits); // fchmod takes no O_PATH
}

static void own_below(int directory, gid_t group);

static void own_entry(int directory, const char *name, gid_t group)
{
    struct stat st;
    int fd = openat(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0 && errno == ENOENT)
        return; // it went meanwhile
    if (fd < 0 || fstat(fd, &st) < 0 || take(fd, &st, group) < 0)
        die(1, "can't give %s to group %u: %m", name, group);
    int inner = S_ISDIR(st.st_mode) ? openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    close(fd);
    if (inner >= 0)
        own_below(inner, group);
}

/* All that is in a directory; takes `directory` over. */
static void own_below(int directory, gid_t group)
{
    DIR *dir = fdopendir(directory);
    struct dirent *entry;

    if (!dir)
        die(1, "can't list a directory of the volume: %m");
    while ((entry = readdir(dir)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            own_entry(dirfd(dir), entry->d_name, group);
    closedir(dir);
}

int own(int argc, char **argv)
{
    struct stat st;

    if (argc != 3)
        die(64, "own DIRECTORY GROUP always|mismatch");
    gid_t group = strtoul(argv[1], NULL, 10);
    int fd = open(argv[0], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        die(1, "%s: %m", argv[0]);
    bool fits = st.st_gid == group && (st.st_mode & DIRECTORY_BITS) == DIRECTORY_BITS;
    if (fits && strcmp(argv[2], "mismatch") == 0)
        return 0;
    own_below(openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), group);
    if (take(fd, &st, group) < 0) // last: the next `mismatch` must not find an unfinished volume in order
        die(1, "can't give %s to group %u: %m", argv[0], group);
    return 0;
}
