/* The child of `run`: what ARGV is started in and with, and what is passed through nspawn to `init`. */
#define _GNU_SOURCE
#include "vktool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

/* Moves a descriptor out of the way of those that are passed. */
static int raise_fd(int fd)
{
    int high = fcntl(fd, F_DUPFD_CLOEXEC, HIGH);

    if (high < 0)
        die(1, "a file for init: %m");
    close(fd);
    return high;
}

/* Opens what is passed; /dev/null where there is no such file. */
static int open_high(const char *file, int flags)
{
    int fd = open(file, flags | O_CLOEXEC);

    return raise_fd(fd < 0 ? open("/dev/null", O_RDWR | O_CLOEXEC) : fd);
}

/* A copy of this program, which nobody in a container can write to. */
static int own_copy(void)
{
    int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    int copy = memfd_create("vktool", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    struct stat st;
    off_t done = 0;

    if (from < 0 || copy < 0 || fstat(from, &st) < 0)
        die(1, "a copy of vktool: %m");
    while (done < st.st_size && sendfile(copy, from, NULL, st.st_size - done) > 0)
        done = lseek(copy, 0, SEEK_CUR);
    if (done < st.st_size || fcntl(copy, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
        die(1, "a copy of vktool: %m");
    close(from);
    return raise_fd(copy);
}

void open_passed(struct passed *passed, const char *runfile, struct identity *who, int *report)
{
    const char *slash = strrchr(runfile, '/');
    int length = slash ? (int)(slash - runfile) : 0;
    char file[PATH_MAX];
    int ends[2];

    path(file, "%.*s/identity", length, runfile);
    passed->fds[PASS_IDENTITY - PASS_PROGRAM] = open_high(file, O_RDONLY);
    if (read_identity(passed->fds[PASS_IDENTITY - PASS_PROGRAM], who) < 0)
        die(1, "%s: %m", file);
    passed->fds[PASS_PROGRAM - PASS_PROGRAM] = own_copy();
    passed->fds[PASS_DEVICES - PASS_PROGRAM] = open_high(is(who, PRIVILEGED) ? "/dev" : "/dev/null", O_RDONLY);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        die(1, "socketpair: %m");
    *report = ends[0];
    passed->fds[PASS_REPORT - PASS_PROGRAM] = raise_fd(ends[1]);
}

void open_namespaces(struct passed *passed, const char *runfile, const char *shares)
{
    const char *slash = strrchr(runfile, '/');
    int length = slash ? (int)(slash - runfile) : 0;
    char file[PATH_MAX];

    if (!passed->any)
        return;
    path(file, "%.*s/../../pid", length, runfile);
    passed->fds[PASS_PROCESSES - PASS_PROGRAM] = shares ? raise_fd(open_processes(shares)) : open_high(file, O_RDONLY);
    path(file, "%.*s/../../users", length, runfile);
    passed->fds[PASS_USERS - PASS_PROGRAM] = open_high(file, O_RDONLY);
}

/* Puts them where nspawn looks for what it is to pass on. */
static void place_passed(const struct passed *passed)
{
    char number[32];

    if (!passed->any)
        return;
    for (int fd = PASS_PROGRAM; fd < PASS_END; fd++)
        if (dup2(passed->fds[fd - PASS_PROGRAM], fd) < 0)
            _exit(1);
    snprintf(number, sizeof number, "%d", PASS_END - PASS_PROGRAM);
    setenv("LISTEN_FDS", number, 1);
    snprintf(number, sizeof number, "%d", (int)getpid());
    setenv("LISTEN_PID", number, 1);
}

void close_passed(const struct passed *passed)
{
    for (int i = 0; passed->any && i < PASS_END - PASS_PROGRAM; i++)
        close(passed->fds[i]);
}

bool is_service(char **argv)
{
    return strcmp(argv[0], "service") == 0;
}

noreturn void become_child(char **argv, const char *unit, const int *stdio, const struct passed *passed, int word)
{
    char supervisor[PATH_MAX], procs[PATH_MAX];
    int journal = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, HIGH);

    // where nspawn would go by itself; the unit's own cgroup may have no process once controllers are enabled in it
    path(supervisor, "%s/supervisor", unit);
    path(procs, "%s/cgroup.procs", supervisor);
    // nspawn's own messages belong to the journal, where `fact` reads them, and not to the container's log
    setenv("SYSTEMD_LOG_TARGET", "journal", 1);
    default_signals();
    if (dup2(stdio[0], STDIN_FILENO) == STDIN_FILENO && dup2(stdio[1], STDOUT_FILENO) == STDOUT_FILENO &&
        dup2(stdio[2], STDERR_FILENO) == STDERR_FILENO) {
        if (is_service(argv))
            become_service(argv + 1, unit, word);
        place_passed(passed);
        if ((mkdir(supervisor, 0755) == 0 || errno == EEXIST) && poke(procs, "0") == 0)
            execvp(argv[1], argv + 1);
    }
    dprintf(journal, "vktool: exec %s: %m\n", argv[1]);
    _exit(1);
}
