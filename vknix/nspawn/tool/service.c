/* A container that is none: a service of the host, with the Pod's network and its own identity. */
#define _GNU_SOURCE
#include "vktool.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Reads an argv, each word ended by NUL; it stays allocated for the life of the process. */
static char **load_command(const struct report *report, const char *file)
{
    struct stat st;

    if (stat(file, &st) < 0)
        fail(report, NOT_ENTERED, "%s: %m", file);
    char *text = malloc(st.st_size + 1);
    ssize_t size = text ? slurp(file, text, st.st_size + 1) : -1;
    size_t count = 0;
    for (ssize_t i = 0; i < size; i++)
        count += text[i] == '\0';
    char **argv = calloc(count + 1, sizeof(char *));
    if (count == 0 || !argv)
        fail(report, NOT_ENTERED, "%s: no command: %m", file);
    for (size_t i = 0; i < count; i++, text += strlen(text) + 1)
        argv[i] = text;
    return argv;
}

static void join_network(const struct report *report, const char *file)
{
    int netns = strcmp(file, "-") == 0 ? -1 : open(file, O_RDONLY | O_CLOEXEC);

    if (strcmp(file, "-") != 0 && (netns < 0 || setns(netns, CLONE_NEWNET) < 0))
        fail(report, NOT_ENTERED, "the Pod's network: %s: %m", file);
}

noreturn void become_service(char **words, const char *unit, int word)
{
    const struct report report = {.fd = word, .code = 1, .mark = "vktool:"};
    static struct identity who;
    char payload[PATH_MAX], procs[PATH_MAX];

    // Below the unit's own cgroup, so that each exec can have one beside it.
    path(payload, "%s/payload", unit);
    path(procs, "%s/cgroup.procs", payload);
    if ((mkdir(payload, 0755) < 0 && errno != EEXIST) || poke(procs, "0") < 0)
        fail(&report, NOT_ENTERED, "%s: %m", payload);
    load_identity(&report, words[0], &who);
    char **argv = load_command(&report, words[1]);
    join_network(&report, words[2]);
    setsid();
    if (isatty(STDIN_FILENO))
        must(&report, ioctl(STDIN_FILENO, TIOCSCTTY, 0), "controlling terminal");
    become(&report, &who);
    become_command(&report, &who, argv, NULL);
}
