/* `vktool read`: files out of volumes, whose users may put any link in their way: it is resolved as if the volume were all there is. */
#define _GNU_SOURCE
#include "vktool.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MOST = 1 << 20, TRIES = 64 };

/* A regular file of the volume that is small enough; -1 where there is none. */
static int open_file(const char *volume, const char *name)
{
    struct open_how how = {.flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC,
                           .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV};
    int at = open(volume, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), fd = -1;
    struct stat st;

    for (int i = 0; at >= 0 && i < TRIES; i++) {
        fd = syscall(SYS_openat2, at, name, &how, sizeof how);
        if (fd >= 0 || errno != EAGAIN)
            break;
    }
    close(at);
    if (fd >= 0 && (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > MOST)) {
        close(fd);
        return -1;
    }
    return fd;
}

static ssize_t read_all(int fd, char *out)
{
    size_t have = 0;
    ssize_t n;

    while (have <= MOST && (n = read(fd, out + have, MOST + 1 - have)) != 0) {
        if (n < 0)
            return -1;
        have += n;
    }
    return have <= MOST ? (ssize_t)have : -1; // it has grown
}

int read_files(int argc, char **argv)
{
    char *text = malloc(MOST + 1);

    if (argc % 2 || !text)
        die(64, "read [VOLUME PATH]...");
    for (int i = 0; i < argc; i += 2) {
        int fd = open_file(argv[i], argv[i + 1]);
        ssize_t size = fd < 0 ? -1 : read_all(fd, text);
        printf("%zd\n", size);
        if (size > 0)
            fwrite(text, 1, size, stdout);
        if (fd >= 0)
            close(fd);
    }
    return ferror(stdout) || fflush(stdout) ? 1 : 0;
}
