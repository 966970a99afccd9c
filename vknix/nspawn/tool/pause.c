/* Namespaces of a whole Pod, pinned by files: `vktool pause` holds its processes together, `vktool spaces` its users. */
#define _GNU_SOURCE
#include "vktool.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* Binds a namespace to a file, in place of what was there. */
static void pin(const char *namespace, const char *file)
{
    int fd = open(file, O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0)
        die(1, "%s: %m", file);
    close(fd);
    while (umount2(file, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
        ;
    if (mount(namespace, file, NULL, MS_BIND, NULL) < 0)
        die(1, "%s: %m", file);
}

/* The first process of the Pod: it takes in those whose parents are gone. */
static noreturn void reap(void)
{
    default_signals();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGCHLD, SIG_IGN); // the kernel takes them away
    for (;;)
        pause();
}

int pause_pod(int argc, char **argv)
{
    int status;

    if (argc != 1)
        die(64, "pause FILE");
    if (unshare(CLONE_NEWPID) < 0)
        die(1, "unshare: %m");
    pid_t pid = fork();
    if (pid < 0)
        die(1, "fork: %m");
    if (pid == 0)
        reap();
    pin("/proc/self/ns/pid_for_children", argv[0]);
    tell_systemd("READY=1");
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return 1;
}

static void map_ids(pid_t pid, const char *kind, unsigned long base)
{
    char file[64], text[64];

    snprintf(file, sizeof file, "/proc/%d/%s", pid, kind);
    snprintf(text, sizeof text, "0 %lu 65536", base);
    if (poke(file, text) < 0)
        die(1, "%s: %m", file);
}

int spaces(int argc, char **argv)
{
    static const char *const kinds[] = {"user", "net", "ipc"};
    char namespace[64];
    int ends[2];

    if (argc != 4)
        die(64, "spaces BASE USERS NETWORK IPC");
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        die(1, "socketpair: %m");
    pid_t pid = fork();
    if (pid < 0)
        die(1, "fork: %m");
    if (pid == 0) {
        close(ends[0]);
        if (unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC) < 0)
            die(1, "unshare: %m");
        if (write(ends[1], "", 1) == 1)
            pause();
        _exit(1);
    }
    close(ends[1]);
    char byte;
    if (read(ends[0], &byte, 1) != 1)
        die(1, "no namespaces were made");
    map_ids(pid, "uid_map", strtoul(argv[0], NULL, 10));
    map_ids(pid, "gid_map", strtoul(argv[0], NULL, 10));
    for (int i = 0; i < 3; i++) {
        snprintf(namespace, sizeof namespace, "/proc/%d/ns/%s", pid, kinds[i]);
        pin(namespace, argv[1 + i]);
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return 0;
}
