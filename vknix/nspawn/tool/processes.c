/* Whose processes a container sees: its own, or those of another container too. */
#define _GNU_SOURCE
#include "vktool.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

/* When a process began, in the kernel's ticks; the last of all where it is gone. */
static unsigned long long began(pid_t pid)
{
    char file[64], text[4096], *p;
    unsigned long long ticks;

    snprintf(file, sizeof file, "/proc/%d/stat", pid);
    if (slurp(file, text, sizeof text) < 0 || !(p = strrchr(text, ')')) ||
        sscanf(p + 1, " %*c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu", &ticks) != 1)
        return ULLONG_MAX;
    return ticks;
}

/* The container's first process among those in a cgroup.procs: its PID 1, else (its processes are the Pod's or the host's) the
   oldest. 0 without any. */
static pid_t first_process(const char *procs)
{
    FILE *file = fopen(procs, "re");
    pid_t pid, first = 0;
    int least = INT_MAX;

    while (file && fscanf(file, "%d", &pid) == 1) {
        int depth = depth_if_first(pid);
        if (!first || (depth && depth < least) || (!depth && least == INT_MAX && began(pid) < began(first)))
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

int open_processes(const char *runfile)
{
    struct attempt attempt;
    char unit[PATH_MAX], file[64];

    if (load_attempt(runfile, &attempt) < 0 || cgroup_dir(attempt.cgroup, unit) < 0)
        die(1, "the container whose processes are to be shared does not run: %s: %m", runfile);
    snprintf(file, sizeof file, "/proc/%d/ns/pid_for_children", find_process(unit)); // the Pod's, where its containers share one
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        die(1, "the PID namespace of the container whose processes are to be shared: %m");
    return fd;
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
