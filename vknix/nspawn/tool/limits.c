/* The limits of a container: lines `attribute value` for the cgroup `payload`, which is the root of all that it sees of cgroups;
   `^attribute value` is for its Pod's slice.
   Beside it are `shim` and `supervisor`: what starts the container is not slowed down by its limits, and not counted.
   They are in the files `limits` (in force) and `limits.new` (wanted) beside the run file; a line that begins with # is vknix's. */
#define _GNU_SOURCE
#include "vktool.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LIMITS = 16384, NOT_APPLIED = 3 };

static const char LATE[] = "cpu.max"; // a quota would throttle the last steps before the program runs

static void beside(char *out, const char *run_file, const char *name)
{
    char directory[PATH_MAX];

    path(directory, "%s", run_file);
    path(out, "%s/%s", dirname(directory), name);
}

/* Lets the children of `unit` have a controller (`+memory`). systemd leads those that it knows down to the unit, and not hugetlb. */
static void enable(const char *unit, const char *controller)
{
    char file[PATH_MAX];
    bool from_root = strcmp(controller, "+hugetlb") == 0;

    for (const char *end = from_root ? strchr(unit + 1, '/') : NULL; end; end = strchr(end + 1, '/')) {
        path(file, "%.*s/cgroup.subtree_control", (int)(end - unit), unit);
        poke(file, controller);
    }
    path(file, "%s/cgroup.subtree_control", unit);
    poke(file, controller);
}

/* Writes the lines of `text` that are late, or those that are not. What a host has no controller for is left out: vknix says so.
   The first attribute that can't be written is named in `failed`. */
static void write_limits(const char *unit, char *text, bool late, char *failed)
{
    char file[PATH_MAX], controller[64];

    for (char *rest, *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char *value = strchr(line, ' ');
        if (*line == '#' || !value || strchr(line, '/'))
            continue;
        *value++ = '\0';
        if ((strcmp(line, LATE) == 0) != late)
            continue;
        bool of_slice = *line == '^';
        line += of_slice;
        snprintf(controller, sizeof controller, "+%.*s", (int)strcspn(line, "."), line);
        path(file, "%s/%s/%s", unit, of_slice ? ".." : "payload", line);
        if (access(file, F_OK) < 0)
            enable(unit, controller);
        if (poke(file, value) < 0 && errno != ENOENT && !*failed)
            snprintf(failed, 256, "%.100s: %s", line, strerror(errno));
    }
}

static void apply(const char *unit, const char *run_file, bool late)
{
    char file[PATH_MAX], text[LIMITS], failed[256] = "";

    beside(file, run_file, "limits");
    if (slurp(file, text, sizeof text) < 0)
        return;
    write_limits(unit, text, late, failed);
    if (*failed)
        dprintf(STDERR_FILENO, "limits: %s\n", failed);
}

void prepare_limits(const char *unit, const char *run_file)
{
    char wanted[PATH_MAX], file[PATH_MAX];

    beside(wanted, run_file, "limits.new");
    beside(file, run_file, "limits");
    rename(wanted, file);
    path(file, "%s/payload", unit);
    if (mkdir(file, 0755) < 0 && errno != EEXIST)
        die(1, "%s: %m", file);
    apply(unit, run_file, false);
}

void finish_limits(const char *unit, const char *run_file)
{
    apply(unit, run_file, true);
}

static unsigned long long number(const char *unit, const char *name)
{
    char file[PATH_MAX], text[64];

    path(file, "%s/payload/%s", unit, name);
    return slurp(file, text, sizeof text) > 0 ? strtoull(text, NULL, 10) : 0;
}

/* Whether less memory is wanted than is in use: the kernel would have to kill for it. */
static bool is_too_little(const char *unit, const char *text)
{
    const char *line = strstr(text, "memory.max ");
    unsigned long long wanted = line ? strtoull(line + strlen("memory.max "), NULL, 10) : 0;
    unsigned long long now = number(unit, "memory.max"), used = number(unit, "memory.current");

    if (!wanted || wanted >= used || (now && wanted >= now))
        return false;
    printf("memory limit (%llu) below current usage (%llu)\n", wanted, used);
    return true;
}

int limit(int argc, char **argv)
{
    char wanted[PATH_MAX], file[PATH_MAX], unit[PATH_MAX], text[LIMITS], again[LIMITS], failed[256] = "";
    struct attempt attempt;

    if (argc != 1)
        die(64, "limit RUNFILE");
    beside(wanted, argv[0], "limits.new");
    beside(file, argv[0], "limits");
    if (slurp(wanted, text, sizeof text) < 0)
        return 0;
    if (load_attempt(argv[0], &attempt) == 0 && cgroup_dir(attempt.cgroup, unit) == 0) {
        if (is_too_little(unit, text))
            return NOT_APPLIED;
        strcpy(again, text);
        write_limits(unit, text, false, failed);
        write_limits(unit, again, true, failed);
    }
    if (*failed)
        printf("%s\n", failed);
    return *failed || rename(wanted, file) < 0 ? NOT_APPLIED : 0;
}
