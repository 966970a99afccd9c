/* Whose processes a container sees: its own, or those of another container too. */
#define _GNU_SOURCE
#include "vktool.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

/* The numbers of a process, one for each PID namespace that it is in, ours first: how many, and the last one. */
static int numbers(pid_t pid, long *last)
{
    char file[64], text[8192], *p;
    int depth = 0;

    snprintf(file, sizeof file, "/proc/%d/status", pid);
    if (slurp(file, text, sizeof text) < 0 || !(p = strstr(text, "\nNSpid:")))
        return 0;
    p += strlen("\nNSpid:");
    for (char *rest; *p != '\n'; p = rest, depth++) {
        long number = strtol(p, &rest, 10);
        if (rest == p)
            break;
        *last = number;
    }
    return depth;
}

/* How many PID namespaces deep a process is, if it is the first one of its own; 0 if not. */
static int depth_if_first(pid_t pid)
{
    long number = 0;
    int depth = numbers(pid, &number);

    return number == 1 ? depth : 0;
}

/* The container's first process among those in a cgroup.procs: its PID 1, else whoever stands first. 0 without any. */
static pid_t first_process(const char *procs)
{
    FILE *file = fopen(procs, "re");
    pid_t pid, first = 0;
    int least = INT_MAX;

    while (file && fscanf(file, "%d", &pid) == 1) {
        int depth = depth_if_first(pid);
        if (!first || (depth && depth < least))
            first = pid;
        if (depth && depth < least)
            least = depth;
    }
    if (file)
        fclose(file);
    return first;
}

pid_t find_process(const char *unit)
{
    static const char *const places[] = {"payload", "payload/init.scope", "supervisor/payload"};
    char file[PATH_MAX];
    pid_t found = 0;

    for (size_t i = 0; i < sizeof places / sizeof *places && !found; i++) {
        path(file, "%s/%s/cgroup.procs", unit, places[i]);
        found = first_process(file);
    }
    return found;
}

void join_processes(const char *runfile)
{
    struct attempt attempt;
    char unit[PATH_MAX], file[64];

    if (load_attempt(runfile, &attempt) < 0 || cgroup_dir(attempt.cgroup, unit) < 0)
        die(1, "the container whose processes are to be shared does not run: %s: %m", runfile);
    snprintf(file, sizeof file, "/proc/%d/ns/pid", find_process(unit));
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWPID) < 0)
        die(1, "the PID namespace of the container whose processes are to be shared: %m");
    close(fd);
}

int show_processes(void)
{
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
        return -1;
    return mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
}

pid_t find_child(pid_t parent, pid_t told)
{
    char file[64], text[4096];
    long last;

    snprintf(file, sizeof file, "/proc/%d/task/%d/children", parent, parent);
    if (slurp(file, text, sizeof text) < 0)
        return told;
    for (char *p = text, *rest; *p; p = rest) {
        pid_t pid = (pid_t)strtol(p, &rest, 10);
        if (rest == p)
            break;
        if (numbers(pid, &last) > 0 && last == told)
            return pid;
    }
    return told;
}
