/* `vktool usage`: what the host, each Pod and each container use now, in one pass: what the kernel says, not yet what it means.
   Where a cgroup has no memory controller, its processes are counted instead. */
#define _GNU_SOURCE
#include "vktool.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { TEXT = 16384, UID32 = 32 };

/* Of all processes in a cgroup and below. `first` is one that is in the container, for its network. */
struct crowd {
    unsigned long count;
    unsigned long long resident, faults, major_faults;
    pid_t first;
};

/* `NAME VALUE` lines of a file whose names are in `names`, which ends with NULL; without names its whole first line, as `as`. */
static bool copy_lines(const char *file, const char *as, const char *const *names)
{
    char text[TEXT], *rest, *line;

    if (slurp(file, text, sizeof text) < 0)
        return false;
    line = strtok_r(text, "\n", &rest);
    if (!names) {
        if (line)
            printf("%s %s\n", as, line);
        return line;
    }
    for (; line; line = strtok_r(NULL, "\n", &rest))
        for (const char *const *name = names; *name; name++)
            if (strncmp(line, *name, strlen(*name)) == 0 && strchr(" :", line[strlen(*name)]))
                printf("%s.%s %s\n", as, *name, line + strlen(*name) + 1 + strspn(line + strlen(*name) + 1, " \t"));
    return true;
}

/* Lines `some avg10=... avg60=... avg300=... total=...` and `full ...`. */
static void copy_pressure(const char *file, const char *as)
{
    static const char *const kinds[] = {"some", "full", NULL};

    copy_lines(file, as, kinds);
}

static void count_process(pid_t pid, struct crowd *crowd)
{
    char file[64], text[4096], *p;
    unsigned long long faults, major, pages;

    snprintf(file, sizeof file, "/proc/%d/stat", pid);
    if (slurp(file, text, sizeof text) < 0 || !(p = strrchr(text, ')')) ||
        sscanf(p + 1, " %*c %*s %*s %*s %*s %*s %*s %llu %*s %llu", &faults, &major) != 2)
        return; // it has ended meanwhile
    crowd->count++;
    crowd->faults += faults;
    crowd->major_faults += major;
    if (!crowd->first)
        crowd->first = pid;
    snprintf(file, sizeof file, "/proc/%d/statm", pid);
    if (slurp(file, text, sizeof text) > 0 && sscanf(text, "%*s %llu", &pages) == 1)
        crowd->resident += pages * (unsigned long long)sysconf(_SC_PAGESIZE);
}

static void count_below(const char *cgroup, struct crowd *crowd)
{
    char file[PATH_MAX];
    struct dirent *entry;
    pid_t pid;

    path(file, "%s/cgroup.procs", cgroup);
    FILE *procs = fopen(file, "re");
    while (procs && fscanf(procs, "%d", &pid) == 1)
        count_process(pid, crowd);
    if (procs)
        fclose(procs);
    DIR *dir = opendir(cgroup);
    while (dir && (entry = readdir(dir)))
        if (entry->d_type == DT_DIR && entry->d_name[0] != '.') {
            path(file, "%s/%s", cgroup, entry->d_name);
            count_below(file, crowd);
        }
    if (dir)
        closedir(dir);
}

/* One cgroup: what its controllers say, and where one is missing what its processes add up to. */
static void tell_cgroup(const char *cgroup, struct crowd *crowd)
{
    static const char *const cpu[] = {"usage_usec", "nr_periods", "nr_throttled", "throttled_usec", NULL};
    static const char *const memory[] = {"anon", "file", "inactive_file", "pgfault", "pgmajfault", NULL};
    char file[PATH_MAX];

    path(file, "%s/cpu.stat", cgroup);
    copy_lines(file, "cpu", cpu);
    path(file, "%s/memory.current", cgroup);
    copy_lines(file, "memory", NULL);
    path(file, "%s/memory.stat", cgroup);
    copy_lines(file, "memory", memory);
    path(file, "%s/memory.swap.current", cgroup);
    copy_lines(file, "swap", NULL);
    path(file, "%s/memory.swap.max", cgroup);
    copy_lines(file, "swap.max", NULL);
    path(file, "%s/memory.max", cgroup);
    copy_lines(file, "memory.max", NULL);
    for (const char *const *kind = (const char *const[]){"cpu", "memory", "io", NULL}; *kind; kind++) {
        char as[32];
        path(file, "%s/%s.pressure", cgroup, *kind);
        snprintf(as, sizeof as, "psi.%s", *kind);
        copy_pressure(file, as);
    }
    count_below(cgroup, crowd);
    printf("processes %lu\nresident %llu\nfaults %llu %llu\n", crowd->count, crowd->resident, crowd->faults, crowd->major_faults);
}

/* Interfaces of the network that a process is in, but for the loopback; none where it is the host's own. */
static void tell_network(pid_t pid)
{
    char file[64], text[TEXT], name[64], *rest;
    struct stat own, its;
    unsigned long long rx, rx_errors, tx, tx_errors;

    snprintf(file, sizeof file, "/proc/%d/ns/net", pid);
    if (pid && (stat(file, &its) < 0 || stat("/proc/self/ns/net", &own) < 0 || own.st_ino == its.st_ino))
        return;
    snprintf(file, sizeof file, "/proc/%d/net/dev", pid ? pid : getpid());
    if (slurp(file, text, sizeof text) < 0)
        return;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
        if (sscanf(line, " %63[^:]: %llu %*s %llu %*s %*s %*s %*s %*s %llu %*s %llu", name, &rx, &rx_errors, &tx, &tx_errors) == 5 &&
            strcmp(name, "lo") != 0 && strncmp(name, "vnet", 4) != 0)
            printf("net %s %llu %llu %llu %llu\n", name, rx, rx_errors, tx, tx_errors);
}

static void tell_filesystem(const char *as, const char *where)
{
    struct statvfs of;

    if (statvfs(where, &of) == 0)
        printf("fs %s %llu %llu %llu %llu\n", as, (unsigned long long)of.f_blocks * of.f_frsize,
               (unsigned long long)of.f_bavail * of.f_frsize, (unsigned long long)of.f_files, (unsigned long long)of.f_ffree);
}

void count_logs(const char *uid32, const char *container, unsigned long long *bytes, unsigned long long *files)
{
    char file[PATH_MAX];
    struct dirent *entry;
    struct stat st;

    *bytes = *files = 0;
    path(file, "/var/lib/vknix/%s/c/%s/log", uid32, container);
    DIR *dir = opendir(file);
    while (dir && (entry = readdir(dir)))
        if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode)) {
            *bytes += (unsigned long long)st.st_blocks * 512;
            ++*files;
        }
    if (dir)
        closedir(dir);
}

static void tell_logs(const char *uid32, const char *container)
{
    unsigned long long bytes, files;

    count_logs(uid32, container, &bytes, &files);
    printf("logs %llu %llu\n", bytes, files);
}

/* What is in a container, and not what keeps it: that is in the cgroup `payload`, or where nspawn put it. */
static void tell_container(const char *unit, const char *uid32, const char *container, struct crowd *pod)
{
    static const char *const places[] = {"payload", "supervisor/payload"};
    char cgroup[PATH_MAX];
    struct crowd crowd = {0};

    for (size_t i = 0; i < sizeof places / sizeof *places && !crowd.count; i++) {
        path(cgroup, "%s/%s", unit, places[i]);
        if (access(cgroup, F_OK) < 0)
            continue;
        printf("of container %s %s\n", uid32, container);
        tell_cgroup(cgroup, &crowd);
        tell_logs(uid32, container);
    }
    if (!pod->first)
        pod->first = crowd.first;
}

/* vk-<uid32>.slice and the units vk-<uid32>-<container>.service in it. */
static void tell_pod(const char *slice, const char *uid32)
{
    char unit[PATH_MAX], container[256];
    struct crowd inside = {0}, crowd = {0};
    struct dirent *entry;
    DIR *dir = opendir(slice);

    while (dir && (entry = readdir(dir))) {
        size_t length = strlen(entry->d_name), before = strlen("vk-") + UID32 + 1, after = strlen(".service");
        if (length <= before + after || strncmp(entry->d_name, "vk-", 3) != 0 || strcmp(entry->d_name + length - after, ".service") != 0)
            continue;
        snprintf(container, sizeof container, "%.*s", (int)(length - before - after), entry->d_name + before);
        path(unit, "%s/%s", slice, entry->d_name);
        tell_container(unit, uid32, container, &inside);
    }
    if (dir)
        closedir(dir);
    printf("of pod %s\n", uid32);
    tell_cgroup(slice, &crowd);
    if (inside.first)
        tell_network(inside.first);
}

static void tell_pods(const char *root)
{
    char slice[PATH_MAX], all[PATH_MAX], uid32[UID32 + 1];
    struct dirent *entry;

    path(all, "%s/vk.slice", root);
    DIR *dir = opendir(all);
    while (dir && (entry = readdir(dir))) {
        if (strlen(entry->d_name) != strlen("vk-.slice") + UID32 || strncmp(entry->d_name, "vk-", 3) != 0)
            continue;
        snprintf(uid32, sizeof uid32, "%.*s", UID32, entry->d_name + strlen("vk-"));
        path(slice, "%s/%s", all, entry->d_name);
        tell_pod(slice, uid32);
    }
    if (dir)
        closedir(dir);
}

static void tell_host(const char *root)
{
    static const char *const cpu[] = {"usage_usec", NULL}, *const ticks[] = {"cpu", "btime", NULL};
    static const char *const faults[] = {"pgfault", "pgmajfault", NULL};
    static const char *const memory[] = {"MemTotal", "MemFree", "Inactive(file)", "AnonPages", "SwapTotal", "SwapFree", NULL};
    char file[PATH_MAX];

    printf("of host\n");
    path(file, "%s/cpu.stat", root);
    copy_lines(file, "cpu", cpu);
    copy_lines("/proc/stat", "ticks", ticks);
    printf("hertz %ld\n", sysconf(_SC_CLK_TCK));
    copy_lines("/proc/meminfo", "memory", memory);
    copy_lines("/proc/vmstat", "memory", faults);
    copy_lines("/proc/loadavg", "load", NULL);
    copy_lines("/proc/sys/kernel/pid_max", "pid_max", NULL);
    copy_pressure("/proc/pressure/cpu", "psi.cpu");
    copy_pressure("/proc/pressure/memory", "psi.memory");
    copy_pressure("/proc/pressure/io", "psi.io");
    tell_filesystem("node", "/var/lib");
    tell_filesystem("image", "/nix");
    tell_network(0);
}

int usage(int argc, char **argv)
{
    char text[TEXT], root[PATH_MAX], *line, *end;

    (void)argv;
    if (argc != 0)
        die(64, "usage");
    if (slurp("/proc/1/cgroup", text, sizeof text) < 0 || !(line = strstr(text, "0::")))
        die(1, "/proc/1/cgroup has no cgroup2 line: %m");
    line += strlen("0::");
    line[strcspn(line, "\n")] = '\0';
    end = strstr(line, "/init.scope");
    if (end)
        *end = '\0';
    if (cgroup_dir(strcmp(line, "/") == 0 ? "" : line, root) < 0)
        die(1, "no cgroup2 is mounted here: %m");
    printf("at %lld\n", now_ns());
    tell_host(root);
    tell_pods(root);
    printf("that was all\n");
    return ferror(stdout) || fflush(stdout) ? 1 : 0;
}
