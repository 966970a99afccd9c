/* The writable root of an attempt: what the last one left is removed, its image's own tree is copied where it has one, then a
   skeleton. The old content is the container's: it may be as deep and as odd as it likes. */
#define _GNU_SOURCE
#include "vktool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Opens a directory below `at` that is neither a symlink nor the root of a mount. */
static int open_below(int at, const char *name)
{
    struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS};

    return syscall(SYS_openat2, at, name, &how, sizeof how);
}

/* The entries of a directory; takes `fd` over. */
static DIR *entries(int fd)
{
    DIR *dir = fdopendir(fd);

    if (!dir)
        die(1, "can't list a directory of the root: %m");
    return dir;
}

static struct dirent *next_entry(DIR *dir)
{
    struct dirent *entry;

    do
        entry = readdir(dir);
    while (entry && (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0));
    return entry;
}

/* Removes a file or an empty directory: 1 where it is a directory that isn't empty. */
static int remove_simple(int at, const char *name)
{
    if (unlinkat(at, name, 0) == 0)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return -1;
    if (unlinkat(at, name, AT_REMOVEDIR) == 0)
        return 0;
    return errno == ENOTEMPTY || errno == EEXIST ? 1 : -1;
}

/* Moves a directory up into `top` under a name that is free. */
static int hoist(int at, const char *name, int top)
{
    static unsigned long count;
    char fresh[32];

    for (;;) {
        snprintf(fresh, sizeof fresh, ".vk%lu", count++);
        if (renameat2(at, name, top, fresh, RENAME_NOREPLACE) == 0)
            return 0;
        if (errno != EEXIST)
            return -1;
    }
}

/* Empties one directory; its filled subdirectories move up, so that no depth needs more than two descriptors. */
static void empty(int fd, int top)
{
    DIR *dir = entries(fd);
    struct dirent *entry;

    while ((entry = next_entry(dir))) {
        int rc = remove_simple(dirfd(dir), entry->d_name);
        if (rc > 0)
            rc = hoist(dirfd(dir), entry->d_name, top);
        if (rc < 0)
            die(1, "can't remove %s from the old root: %m", entry->d_name);
    }
    closedir(dir);
}

/* One pass over `top`: whether anything is left of it. */
static bool sweep(int top)
{
    DIR *dir = entries(openat(top, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    struct dirent *entry;
    bool left = false;

    while ((entry = next_entry(dir))) {
        int rc = remove_simple(top, entry->d_name);
        if (rc == 0)
            continue;
        int fd = rc > 0 ? open_below(top, entry->d_name) : -1;
        if (fd < 0)
            die(1, "can't remove %s from the old root: %m", entry->d_name);
        empty(fd, top);
        left = true;
    }
    closedir(dir);
    return left;
}

/* A copy under way. `top` is the new root, which an image may have filled: what is there stays, and directories are joined. */
struct copy {
    int top;
    mode_t writable; // added to each mode: a store path has no w
    uid_t base; // added to each owner
};

/* Copies what `from` holds into `to`, both open directories; takes both over. */
static void copy_into(const struct copy *copy, int from, int to);

static void copy_file(const struct copy *copy, int from, int to, const char *name, const struct stat *st)
{
    int in = openat(from, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    int out = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    off_t left = st->st_size;

    if (out < 0 && errno == EEXIST) {
        close(in);
        return;
    }
    while (in >= 0 && out >= 0 && left > 0) {
        ssize_t n = sendfile(out, in, NULL, left);
        if (n <= 0)
            break;
        left -= n;
    }
    if (in < 0 || out < 0 || left > 0 || fchown(out, copy->base + st->st_uid, copy->base + st->st_gid) < 0 ||
        fchmod(out, (st->st_mode & 07777) | copy->writable) < 0)
        die(1, "can't copy %s to the root: %m", name);
    close(in);
    close(out);
}

static void copy_link(const struct copy *copy, int from, int to, const char *name, const struct stat *st)
{
    char target[PATH_MAX];
    ssize_t n = readlinkat(from, name, target, sizeof target - 1);

    target[n < 0 ? 0 : n] = 0;
    if (n >= 0 && symlinkat(target, to, name) < 0 && errno == EEXIST)
        return;
    if (n < 0 || fchownat(to, name, copy->base + st->st_uid, copy->base + st->st_gid, AT_SYMLINK_NOFOLLOW) < 0)
        die(1, "can't copy the link %s to the root: %m", name);
}

/* Opens the directory `name` of `to`. Where an image has a link in its place, the link counts, as the container sees it. */
static int open_target(const struct copy *copy, int to, const char *name)
{
    struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_XDEV};
    char target[PATH_MAX];
    int fd = openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    ssize_t n = fd < 0 ? readlinkat(to, name, target, sizeof target - 1) : -1;

    if (n < 0)
        return fd;
    target[n] = 0;
    return syscall(SYS_openat2, *target == '/' ? copy->top : to, target, &how, sizeof how);
}

/* Makes `name` in `to` what the open directory `from` is; takes `from` over. */
static void copy_directory(const struct copy *copy, int from, int to, const char *name)
{
    struct stat st;
    bool made = mkdirat(to, name, 0700) == 0 || errno == EEXIST;
    int target = made ? open_target(copy, to, name) : -1;

    if (from < 0 || target < 0 || fstat(from, &st) < 0 || fchown(target, copy->base + st.st_uid, copy->base + st.st_gid) < 0 ||
        fchmod(target, (st.st_mode & 07777) | copy->writable) < 0)
        die(1, "can't make the directory %s in the root: %m", name);
    copy_into(copy, from, target);
}

static void copy_into(const struct copy *copy, int from, int to)
{
    DIR *dir = entries(from);
    struct dirent *entry;
    struct stat st;

    while ((entry = next_entry(dir))) {
        if (fstatat(from, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            die(1, "can't read %s for the root: %m", entry->d_name);
        if (S_ISDIR(st.st_mode))
            copy_directory(copy, openat(from, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), to, entry->d_name);
        else if (S_ISLNK(st.st_mode))
            copy_link(copy, from, to, entry->d_name, &st);
        else
            copy_file(copy, from, to, entry->d_name, &st);
    }
    closedir(dir);
    close(to);
}

/* Copies one tree into the root; `writable` and `base` as in struct copy. */
static void copy_tree(const char *tree, int top, mode_t writable, uid_t base)
{
    struct copy copy = {.top = top, .writable = writable, .base = base};
    int from = open(tree, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int to = openat(top, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (from < 0 || to < 0)
        die(1, "%s: %m", tree);
    copy_into(&copy, from, to);
}

/* Sets the mode of a file in the root, which must be there. */
static void set_mode(int top, const char *name, mode_t mode)
{
    struct open_how how = {.flags = O_RDONLY | O_NONBLOCK | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_XDEV};
    int fd = syscall(SYS_openat2, top, name, &how, sizeof how);

    if (fd < 0 || fchmod(fd, mode) < 0)
        die(1, "can't set the mode of %s in the root: %m", name);
    close(fd);
}

/* Fills the root: an image's tree first where `list` names one, then the skeleton, then the image's modes. `list` has the tree on
   its first line, and `MODE PATH` for each file whose mode a store path can't hold. */
static void fill(int top, const char *list, const char *skeleton, uid_t base)
{
    char line[PATH_MAX + 16];
    unsigned mode;
    int at = 0;
    FILE *file = fopen(list, "re");

    if (!file && errno != ENOENT)
        die(1, "%s: %m", list);
    if (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        copy_tree(line, top, S_IWUSR, base);
    }
    copy_tree(skeleton, top, 0, base);
    while (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        if (sscanf(line, "%o %n", &mode, &at) == 1)
            set_mode(top, line + at, mode);
    }
    if (file)
        fclose(file);
}

void fresh_root(const char *root, const char *skeleton, uid_t base)
{
    char parent[PATH_MAX], image[PATH_MAX];
    const char *name = strrchr(root, '/');

    path(parent, "%.*s/", name ? (int)(name - root) : 0, root);
    name = name ? name + 1 : root;
    int at = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int top = open_below(at, name);
    if (at < 0 || (top < 0 && errno != ENOENT))
        die(1, "%s: %m", root);
    if (top >= 0) {
        while (sweep(top))
            ;
        close(top);
        if (unlinkat(at, name, AT_REMOVEDIR) < 0)
            die(1, "can't remove %s: %m", root);
    }
    if (mkdirat(at, name, 0755) < 0 || (top = open_below(at, name)) < 0)
        die(1, "%s: %m", root);
    if (fchown(top, base, base) < 0)
        die(1, "%s: %m", root);
    path(image, "%s.image", skeleton);
    fill(top, image, skeleton, base);
    close(top);
    close(at);
}
