/* `vktool mount`: the volumes that a plain bind can't give. Made in a mount namespace of its own, so that the host never sees them
   and nothing is left of them. What is in a volume is its users' own: a path in it may change or become a link at any moment. It is
   resolved once, by the kernel, and never leaves the volume. */
#define _GNU_SOURCE
#include "vktool.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SPEC = 1 << 20, TRIES = 64 };

struct want {
    const char *volume;
    const char *sub;
    const char *target;
    const char *how;
};

/* What `path` is below the open directory `at`, whatever its links say. A rename nearby can make the kernel ask for another try. */
static int open_in(int at, const char *path, int flags)
{
    struct open_how how = {.flags = flags | O_PATH | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};

    for (int i = 0; i < TRIES; i++) {
        int fd = syscall(SYS_openat2, at, path, &how, sizeof how);
        if (fd >= 0 || errno != EAGAIN)
            return fd;
    }
    return -1;
}

/* One directory in `at`, no link: as open as `mode` says from the moment when it has that name for good. */
static int make_directory(int at, const char *name, mode_t mode)
{
    char self[64];

    if (mkdirat(at, name, 0700) < 0)
        return errno == EEXIST ? 0 : -1;
    int fd = openat(at, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd); // fchmod takes no O_PATH
    int rc = fd < 0 ? -1 : chmod(self, mode);
    close(fd);
    return rc;
}

/* The directory `sub` of the volume; what is missing of it is made with the volume's own mode. */
static int make_below(int volume, const char *sub)
{
    char prefix[PATH_MAX];
    struct stat st;
    int at = open_in(volume, ".", O_DIRECTORY);

    if (at < 0 || fstat(volume, &st) < 0)
        return -1;
    for (const char *name = sub + strspn(sub, "/"); at >= 0 && *name;) {
        size_t length = strcspn(name, "/");
        path(prefix, "%.*s", (int)(name + length - sub), sub);
        int next = open_in(volume, prefix, O_DIRECTORY);
        if (next < 0 && errno == ENOENT && make_directory(at, strrchr(prefix, '/') ? strrchr(prefix, '/') + 1 : prefix,
                                                         st.st_mode & 07777) == 0)
            next = open_in(volume, prefix, O_DIRECTORY);
        close(at);
        at = next;
        name += length + strspn(name + length, "/");
    }
    return at;
}

static int open_wanted(const struct want *want)
{
    int volume = open(want->volume, O_PATH | O_CLOEXEC);

    if (volume < 0)
        die(1, "%s: %m", want->volume);
    if (!*want->sub)
        return volume;
    int fd = open_in(volume, want->sub, 0);
    if (fd < 0 && errno == ENOENT && strchr(want->how, 'c'))
        fd = make_below(volume, want->sub);
    if (fd < 0)
        die(1, "failed to prepare subPath %s of the volume for %s: %m", want->sub, want->target);
    close(volume);
    return fd;
}

/* A file or directory where something can be mounted on; what is there stays. */
static void make_point(int at, const char *name, bool directory)
{
    if (directory)
        mkdirat(at, name, 0755);
    else
        close(openat(at, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644));
}

/* The mount point in the container's root, which may be read-only later. Where it can't be made, nspawn says so. */
static void make_target(int root, const char *target, bool directory)
{
    struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    const char *name = strrchr(target, '/') + 1;
    char parent[PATH_MAX];

    path(parent, "%.*s", (int)(name - target), target);
    int at = syscall(SYS_openat2, root, parent, &how, sizeof how);
    if (at >= 0)
        make_point(at, name, directory);
    close(at);
}

static int set(const char *point, const char *how)
{
    unsigned recursive = strchr(how, 'R') ? AT_RECURSIVE : 0;
    struct mount_attr attr = {.attr_set = (strpbrk(how, "rR") ? MOUNT_ATTR_RDONLY : 0) | (strchr(how, 'x') ? MOUNT_ATTR_NOEXEC : 0)};

    if (!strchr(how, 's') && mount(NULL, point, NULL, MS_PRIVATE | MS_REC, NULL) < 0)
        return -1;
    return attr.attr_set ? syscall(SYS_mount_setattr, AT_FDCWD, point, recursive, &attr, sizeof attr) : 0;
}

static void mount_one(const struct want *want, int root, int points, const char *directory, int number)
{
    char name[16], point[PATH_MAX], self[64];
    struct stat st;
    int fd = open_wanted(want);

    snprintf(name, sizeof name, "%d", number);
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    path(point, "%s/%s", directory, name);
    if (fstat(fd, &st) < 0)
        die(1, "%s: %m", want->target);
    if (S_ISLNK(st.st_mode)) // O_PATH without O_NOFOLLOW follows; what is left is a race that was lost
        die(1, "%s: a link can't be mounted", want->target);
    make_point(points, name, S_ISDIR(st.st_mode));
    if (mount(self, point, NULL, MS_BIND | MS_REC, NULL) < 0 || set(point, want->how) < 0)
        die(1, "can't mount the volume for %s: %m", want->target);
    make_target(root, want->target, S_ISDIR(st.st_mode));
    close(fd);
}

/* The next field of the specification, which ends with a NUL. */
static const char *field(char **at, const char *end)
{
    char *begin = *at;
    char *stop = memchr(begin, 0, end - begin);

    if (!stop)
        die(64, "the specification of the mounts is torn");
    *at = stop + 1;
    return begin;
}

static void mount_all(const char *file, const char *root, const char *directory)
{
    static char text[SPEC];
    ssize_t size = slurp(file, text, sizeof text);
    int at = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (size < 0 || at < 0)
        die(1, "%s: %m", size < 0 ? file : root);
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL) < 0 ||
        mount("vktool", directory, "tmpfs", MS_NOSUID | MS_NODEV, "mode=700,size=1m") < 0)
        die(1, "can't make a place for mounts: %m");
    int points = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    for (char *next = text; next < text + size;) {
        static int number;
        struct want want = {.volume = field(&next, text + size)};
        want.sub = field(&next, text + size);
        want.target = field(&next, text + size);
        want.how = field(&next, text + size);
        mount_one(&want, at, points, directory, number++);
    }
    close(points);
    close(at);
}

int mounts(int argc, char **argv)
{
    if (argc < 5 || strcmp(argv[3], "--") != 0)
        die(64, "mount SPEC ROOT DIRECTORY -- ARGV...");
    mount_all(argv[0], argv[1], argv[2]);
    execvp(argv[4], argv + 4);
    die(1, "exec %s: %m", argv[4]);
}
