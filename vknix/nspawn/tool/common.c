/* Files, clocks and cgroups, as all verbs need them. */
#define _GNU_SOURCE
#include "vktool.h"

#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

noreturn void die(int code, const char *format, ...)
{
    char text[PATH_MAX + 256];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    dprintf(STDERR_FILENO, "vktool: %s\n", text);
    _exit(code);
}

static struct timespec clock_now(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return t;
}

long long now_ns(void)
{
    struct timespec t = clock_now(CLOCK_REALTIME);

    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

long long monotonic_ms(void)
{
    struct timespec t = clock_now(CLOCK_MONOTONIC);

    return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

void stamp(char *out, long long ns)
{
    time_t seconds = ns / 1000000000;
    struct tm t;
    char text[128];

    gmtime_r(&seconds, &t);
    snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%09lldZ", t.tm_year + 1900, t.tm_mon + 1, t.tm_mday, t.tm_hour,
             t.tm_min, t.tm_sec, ns % 1000000000);
    memcpy(out, text, STAMP);
}

void path(char *out, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    int length = vsnprintf(out, PATH_MAX, format, args);
    va_end(args);
    if (length < 0 || length >= PATH_MAX)
        die(1, "a path is too long: %.100s...", out);
}

ssize_t slurp(const char *file, char *out, size_t size)
{
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    size_t have = 0;
    ssize_t n = -1;

    if (fd < 0)
        return -1;
    while (have < size - 1 && (n = read(fd, out + have, size - 1 - have)) > 0)
        have += n;
    close(fd);
    out[have] = 0;
    return n < 0 ? -1 : (ssize_t)have;
}

int write_all(int fd, const void *data, size_t size)
{
    for (const char *p = data; size > 0;) {
        ssize_t n = write(fd, p, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        p += n;
        size -= n;
    }
    return 0;
}

int poke(const char *file, const char *text)
{
    int fd = open(file, O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return -1;
    int rc = write_all(fd, text, strlen(text));
    close(fd);
    return rc;
}

long count_facts(const char *file, char **last)
{
    FILE *facts = fopen(file, "re");
    size_t room = 0;
    long lines = 0;

    *last = NULL;
    if (!facts)
        return errno == ENOENT ? 0 : -1;
    while (getline(last, &room, facts) > 0)
        lines++;
    lines = ferror(facts) ? -1 : lines;
    fclose(facts);
    return lines;
}

int load_attempt(const char *file, struct attempt *out)
{
    char text[sizeof *out + 64];

    if (slurp(file, text, sizeof text) < 0)
        return -1;
    *out = (struct attempt){0};
    if (sscanf(text, "%ld %63s %lld %4095s %d %d %d", &out->number, out->id, &out->started_ns, out->cgroup, &out->child, &out->began,
               &out->signal) >= 4)
        return 0;
    errno = EINVAL;
    return -1;
}

int save_attempt(const char *file, const struct attempt *attempt)
{
    char fresh[PATH_MAX];

    path(fresh, "%s.new", file);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return -1;
    int rc = dprintf(fd, "%ld %s %lld %s %d %d %d\n", attempt->number, attempt->id, attempt->started_ns, attempt->cgroup,
                     (int)attempt->child, attempt->began, attempt->signal);
    close(fd);
    return rc < 0 ? -1 : rename(fresh, file);
}

int own_cgroup(char *out)
{
    char text[4 * PATH_MAX];
    char *line;

    if (slurp("/proc/self/cgroup", text, sizeof text) < 0)
        return -1;
    line = strncmp(text, "0::", 3) == 0 ? text : strstr(text, "\n0::");
    if (!line) {
        errno = ENOENT;
        return -1;
    }
    line += *line == '\n' ? 4 : 3;
    path(out, "%.*s", (int)strcspn(line, "\n"), line);
    return 0;
}

int cgroup_dir(const char *cgroup, char *out)
{
    FILE *mounts = setmntent("/proc/self/mounts", "re");
    struct mntent *mount = NULL;

    if (!mounts)
        return -1;
    while ((mount = getmntent(mounts)) && strcmp(mount->mnt_type, "cgroup2") != 0)
        ;
    if (mount)
        path(out, "%s%s", mount->mnt_dir, cgroup);
    endmntent(mounts);
    errno = ENOENT;
    return mount ? 0 : -1;
}

int watch_signals(void)
{
    static const int numbers[] = {SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH};
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        sigaddset(&set, numbers[i]);
    for (int number = SIGRTMIN; number <= SIGRTMAX; number++)
        sigaddset(&set, number);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_CLOEXEC);
    if (fd < 0)
        die(1, "signalfd: %m");
    return fd;
}

void default_signals(void)
{
    sigset_t none;

    for (int number = 1; number <= SIGRTMAX; number++)
        signal(number, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

noreturn void end_as(int status)
{
    struct rlimit no_core = {0, 0};
    sigset_t all;

    if (WIFSIGNALED(status)) {
        setrlimit(RLIMIT_CORE, &no_core);
        signal(WTERMSIG(status), SIG_DFL);
        sigfillset(&all);
        raise(WTERMSIG(status));
        sigprocmask(SIG_UNBLOCK, &all, NULL);
    }
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}
