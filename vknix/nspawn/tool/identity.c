/* What a process of a container is: read from a file, and become. */
#define _GNU_SOURCE
#include "vktool.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

noreturn void fail(const struct report *report, int code, const char *format, ...)
{
    char text[PATH_MAX + 256];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    dprintf(report->fd, "%s %s\n", report->mark, text);
    _exit(report->code ? report->code : code);
}

void must(const struct report *report, int result, const char *what)
{
    if (result < 0)
        fail(report, NOT_ENTERED, "%s: %m", what);
}

/* The next field of a spec, "" past its end. */
static char *field(char **at, char *end)
{
    char *text = *at < end ? *at : end;

    *at = text + strlen(text) + 1;
    return text;
}

static void parse_groups(struct identity *who, char *text)
{
    if (strcmp(text, "-") == 0)
        return;
    for (char *p = strtok(text, ","); p && who->group_count < GROUPS; p = strtok(NULL, ","))
        who->groups[who->group_count++] = strtoul(p, NULL, 10);
}

/* A number N and N fields after it, ended by NULL; NULL where there can't be so many. */
static char **parse_list(char **at, char *end)
{
    size_t count = strtoul(field(at, end), NULL, 10);
    char **list = *at <= end && count <= (size_t)(end - *at) ? calloc(count + 1, sizeof(char *)) : NULL;

    for (size_t i = 0; list && i < count; i++)
        list[i] = field(at, end);
    return list;
}

static int parse(char *text, size_t size, struct identity *who)
{
    char *at = text, *end = text + size;

    who->capabilities = strtoull(field(&at, end), NULL, 16);
    who->uid = strtoul(field(&at, end), NULL, 10);
    who->gid = strtoul(field(&at, end), NULL, 10);
    parse_groups(who, field(&at, end));
    who->flags = field(&at, end);
    who->base = strtoul(field(&at, end), NULL, 10);
    who->directory = field(&at, end);
    who->environment = parse_list(&at, end);
    who->mapped = who->environment ? parse_list(&at, end) : NULL;
    errno = EINVAL;
    return who->mapped ? 0 : -1;
}

int read_identity(int fd, struct identity *who)
{
    struct stat st;
    ssize_t n = 1;
    size_t have = 0;

    if (fd < 0 || fstat(fd, &st) < 0)
        return -1;
    char *text = calloc(st.st_size + 1, 1);
    while (text && n > 0 && have < (size_t)st.st_size)
        have += (n = pread(fd, text + have, st.st_size - have, have)) > 0 ? n : 0;
    return text && n >= 0 ? parse(text, have, who) : -1;
}

void load_identity(const struct report *report, const char *file, struct identity *who)
{
    int fd = open(file, O_RDONLY | O_CLOEXEC);

    if (read_identity(fd, who) < 0)
        fail(report, NOT_ENTERED, "%s: %m", file);
    close(fd);
}

bool is(const struct identity *who, char flag)
{
    return strchr(who->flags, flag) != NULL;
}

void become(const struct report *report, const struct identity *who)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{0}};

    if (is(who, SECCOMP)) // while it may still be done without no_new_privs
        must(report, install_filter(who->capabilities), "seccomp");
    for (int c = 0; c < 64; c++)
        if (!(who->capabilities >> c & 1) && prctl(PR_CAPBSET_READ, c, 0, 0, 0) == 1)
            must(report, prctl(PR_CAPBSET_DROP, c, 0, 0, 0), "bounding set");
    must(report, prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "ambient set");
    must(report, setgroups(who->group_count, who->groups), "groups");
    must(report, setresgid(who->gid, who->gid, who->gid), "gid");
    must(report, setresuid(who->uid, who->uid, who->uid), "uid");
    must(report, syscall(SYS_capget, &header, data), "capget");
    for (int i = 0; i < 2; i++) {
        data[i].permitted &= who->uid == 0 ? (__u32)(who->capabilities >> 32 * i) : 0;
        data[i].effective = data[i].permitted;
        data[i].inheritable = 0;
    }
    must(report, syscall(SYS_capset, &header, data), "capset");
    if (is(who, NO_NEW_PRIVILEGES))
        must(report, prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
    must(report, prctl(PR_SET_PDEATHSIG, SIGKILL), "parent death signal");
}

static const char *search_path(char **environment)
{
    for (; *environment; environment++)
        if (strncmp(*environment, "PATH=", 5) == 0)
            return *environment + 5;
    return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
}

/* Where the container's PATH has `name`; `name` itself if it is a path. NULL, with errno, where it has none. */
static const char *find_program(const char *name, char **environment)
{
    static char file[PATH_MAX];
    int error = ENOENT;
    struct stat st;

    if (strchr(name, '/'))
        return name;
    for (const char *p = search_path(environment), *next; *name && p; p = next) {
        const char *colon = strchrnul(p, ':');
        next = *colon ? colon + 1 : NULL;
        snprintf(file, sizeof file, "%.*s/%s", (int)(colon - p), colon == p ? "." : p, name);
        if (stat(file, &st) < 0 || !S_ISREG(st.st_mode))
            continue;
        if (access(file, X_OK) == 0)
            return file;
        error = EACCES;
    }
    errno = error;
    return NULL;
}

noreturn void become_command(const struct report *report, const struct identity *who, char **argv, void (*lacking)(char **))
{
    if (chdir(who->directory) < 0)
        fail(report, NOT_RUN, "exec: \"%s\": working directory %s: %m", argv[0], who->directory);
    const char *program = find_program(argv[0], who->environment);
    if (!program && errno == ENOENT && lacking)
        lacking(argv);
    if (!program && errno == ENOENT)
        fail(report, NOT_FOUND, "exec: \"%s\": executable file not found in $PATH", argv[0]);
    if (program)
        execve(program, argv, who->environment);
    fail(report, errno == ENOENT ? NOT_FOUND : NOT_RUN, "exec: \"%s\": %m", argv[0]);
}
