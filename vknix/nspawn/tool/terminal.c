/* The terminal of a container: nspawn makes it (--console=passive) in the container's own /dev/pts, and keeps its other end without
   reading it. The supervisor takes a copy of that end. */
#define _GNU_SOURCE
#include "vktool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The number of a descriptor of a process that is a terminal's master; -1 without. */
static int master_of(pid_t pid)
{
    char name[64], target[PATH_MAX];
    struct dirent *entry;
    int found = -1;

    snprintf(name, sizeof name, "/proc/%d/fd", pid);
    DIR *dir = opendir(name);
    while (dir && found < 0 && (entry = readdir(dir))) {
        ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof target - 1);
        target[n < 0 ? 0 : n] = '\0';
        const char *last = strrchr(target, '/');
        if (last && strcmp(last, "/ptmx") == 0)
            found = atoi(entry->d_name);
    }
    if (dir)
        closedir(dir);
    return found;
}

int copy_terminal(pid_t nspawn)
{
    int number = master_of(nspawn);
    int process = number < 0 ? -1 : syscall(SYS_pidfd_open, nspawn, 0);
    int master = process < 0 ? -1 : syscall(SYS_pidfd_getfd, process, number, 0);

    if (process >= 0 && master < 0 && errno != EBADF && errno != ESRCH) {
        int error = errno;
        kill(nspawn, SIGKILL);
        errno = error;
        die(1, "this host does not give the container's terminal (pidfd_getfd): %m");
    }
    if (process >= 0)
        close(process);
    if (master >= 0)
        fcntl(master, F_SETFL, O_RDWR | O_NONBLOCK);
    return master;
}

int own_terminal(int *slave)
{
    int unlocked = 0;
    int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);

    if (master < 0 || ioctl(master, TIOCSPTLCK, &unlocked) < 0 ||
        (*slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC)) < 0)
        die(1, "/dev/ptmx: %m");
    return master;
}
