/* `tar -x`: members of an archive as files. */
#define _GNU_SOURCE
#include "tar.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A directory that is given its mode and time once all is in it. */
struct later {
    struct later *next;
    struct member member;
};

/* Its path below the directory where it is unpacked, without what is too much; NULL where it leads out of there. */
static char *inside(char *name)
{
    for (char *at = name; at; at = strchr(at, '/')) {
        at += strspn(at, "/");
        if (strncmp(at, "..", 2) == 0 && (at[2] == '/' || at[2] == '\0'))
            return NULL;
    }
    name += strspn(name, "/");
    for (size_t size = strlen(name); size > 0 && name[size - 1] == '/';)
        name[--size] = '\0';
    return *name ? name : ".";
}

static void make_parents(char *name)
{
    for (char *slash = strchr(name, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(name, 0777);
        *slash = '/';
    }
}

/* Puts into force what the archive says of it: a link has no mode of its own. */
static int dress(const char *name, const struct member *member)
{
    const struct timespec times[] = {{.tv_nsec = UTIME_NOW}, member->modified};

    if (tar.owners && lchown(name, member->uid, member->gid) < 0)
        return -1;
    if (member->type != '2' && tar.exact && chmod(name, member->mode) < 0)
        return -1;
    return tar.touch ? 0 : utimensat(AT_FDCWD, name, times, AT_SYMLINK_NOFOLLOW);
}

static int take_content(const char *name, const struct member *member)
{
    static char buffer[BUFFER];
    long long left = member->size;
    int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, member->mode & (tar.exact ? 0600 : 07777));
    int error = fd < 0 ? errno : 0;

    for (size_t some; left > 0; left -= some) { // also of what can't be kept: the next member comes after it
        some = left < BUFFER ? left : BUFFER;
        get_bytes(buffer, some);
        if (!error && write_all(fd, buffer, some) < 0)
            error = errno;
    }
    skip_bytes(padding(member->size));
    if (fd >= 0 && close(fd) < 0 && !error)
        error = errno;
    errno = error;
    return error ? -1 : 0;
}

/* A directory that is there stays as it is. */
static int take_directory(const char *name, const struct member *member, struct later **later)
{
    struct stat st;
    struct later *made;

    if (stat(name, &st) == 0 && S_ISDIR(st.st_mode))
        return 0;
    unlink(name);
    if (mkdir(name, member->mode | 0700) < 0)
        return -1;
    made = malloc(sizeof *made);
    if (!made)
        return -1;
    *made = (struct later){*later, *member};
    made->member.name = copy_text(name, LONGEST);
    *later = made;
    return 0;
}

static int take_other(const char *name, const struct member *member)
{
    switch (member->type) {
    case '1':
        return link(inside(member->link) ? inside(member->link) : "", name);
    case '2':
        return symlink(member->link, name);
    case '3':
        return mknod(name, S_IFCHR | member->mode, member->device);
    case '4':
        return mknod(name, S_IFBLK | member->mode, member->device);
    case '6':
        return mkfifo(name, member->mode);
    }
    errno = EOPNOTSUPP;
    return -1;
}

static void take_member(struct member *member, struct later **later)
{
    char *name = inside(member->name);
    bool content = member->type == '0' || member->type == '\0' || member->type == '7';
    int done;

    if (!name)
        complain("%s: it would be elsewhere", member->name);
    if (!name || (!content && member->size > 0))
        skip_bytes(member->size + padding(member->size));
    if (!name)
        return;
    make_parents(name);
    if (member->type == '5')
        done = take_directory(name, member, later);
    else {
        unlink(name);
        done = content ? take_content(name, member) : take_other(name, member);
        if (done == 0 && member->type != '1')
            done = dress(name, member);
    }
    if (done < 0)
        complain("%s: %m", name);
    else if (tar.verbose)
        dprintf(STDOUT_FILENO, "%s\n", member->name);
}

void unpack(void)
{
    struct later *later = NULL;
    struct member member;

    while (next_member(&member)) {
        take_member(&member, &later);
        free(member.name);
        free(member.link);
    }
    for (mode_t mask = umask(0); later; later = later->next) {
        later->member.mode &= tar.exact ? 07777 : ~mask;
        if (chmod(later->member.name, later->member.mode) < 0 || dress(later->member.name, &later->member) < 0)
            complain("%s: %m", later->member.name);
    }
}
