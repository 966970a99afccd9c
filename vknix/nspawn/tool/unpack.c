/* `tar -x`: members of an archive as files. */
#define _GNU_SOURCE
#include "tar.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum { LONGEST = 1 << 20 };

/* A member as its header, and those before it that lengthen it, say. */
struct member {
    char *name, *link;
    char type;
    mode_t mode;
    uid_t uid;
    gid_t gid;
    long long size;
    dev_t device;
    struct timespec modified;
};

/* A directory that is given its mode and time once all is in it. */
struct later {
    struct later *next;
    struct member member;
};

static char buffer[BUFFER];

static void get(void *data, size_t size)
{
    for (char *to = data; size > 0;) {
        ssize_t n = read(STDIN_FILENO, to, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            give_up("the archive ends within a member");
        to += n;
        size -= n;
    }
}

static void skip(long long size)
{
    for (; size > 0; size -= size < BUFFER ? size : BUFFER)
        get(buffer, size < BUFFER ? size : BUFFER);
}

static long long number(const char *field, size_t size)
{
    unsigned long long n = 0;

    if (field[0] & 0x80) {
        for (size_t i = 1; i < size; i++)
            n = n >> 55 ? give_up("a number of the archive is too large"), 0 : n << 8 | (unsigned char)field[i];
        return n;
    }
    for (size_t i = strspn(field, " "); i < size && field[i] >= '0' && field[i] <= '7'; i++)
        n = n << 3 | (field[i] - '0');
    return n;
}

static char *copy(const char *text, size_t size)
{
    char *made = strndup(text, size);

    return made ? made : (give_up("no memory"), NULL);
}

/* What a member has that lengthens the next: text with a NUL after it. */
static char *get_text(long long size)
{
    char *text = size <= LONGEST ? malloc(size + 1) : NULL;

    if (!text)
        give_up("a name of the archive is too long");
    get(text, size);
    text[size] = '\0';
    skip(padding(size));
    return text;
}

/* Seconds, with a fraction or without, since the epoch. */
static struct timespec moment(const char *text)
{
    char *fraction;
    struct timespec moment = {.tv_sec = strtoll(text, &fraction, 10)};
    long digit = 100000000;

    if (*fraction == '.')
        for (fraction++; *fraction >= '0' && *fraction <= '9'; fraction++, digit /= 10)
            moment.tv_nsec += digit * (*fraction - '0');
    return moment;
}

/* Records `LENGTH KEY=VALUE\n` of POSIX' pax. */
static void take_records(struct member *member, long long size)
{
    char *text = get_text(size), *end;

    for (char *at = text; at < text + size; at = end) {
        char *key, *value;
        long length = strtol(at, &key, 10);
        if (length <= key - at || length > text + size - at || at[length - 1] != '\n')
            give_up("a record of the archive is none");
        end = at + length;
        end[-1] = '\0';
        key++;
        value = strchr(key, '=');
        if (!value)
            continue;
        *value++ = '\0';
        if (strcmp(key, "path") == 0)
            free(member->name), member->name = copy(value, LONGEST);
        else if (strcmp(key, "linkpath") == 0)
            free(member->link), member->link = copy(value, LONGEST);
        else if (strcmp(key, "size") == 0)
            member->size = atoll(value);
        else if (strcmp(key, "uid") == 0)
            member->uid = atoll(value);
        else if (strcmp(key, "gid") == 0)
            member->gid = atoll(value);
        else if (strcmp(key, "mtime") == 0)
            member->modified = moment(value);
    }
    free(text);
}

static bool is_zero(const struct header *header)
{
    static const struct header zero;

    return memcmp(header, &zero, sizeof zero) == 0;
}

static void check_sum(const struct header *header)
{
    unsigned sum = 8 * ' ';

    for (size_t i = 0; i < sizeof *header; i++)
        if (i < offsetof(struct header, checksum) || i >= offsetof(struct header, type))
            sum += ((const unsigned char *)header)[i];
    if (number(header->checksum, sizeof header->checksum) != sum)
        give_up("this is no tar archive");
}

/* The next member: whether there is one. */
static bool next_member(struct member *member)
{
    struct header header;

    *member = (struct member){.size = -1, .uid = -1, .gid = -1, .modified = {.tv_nsec = UTIME_OMIT}};
    for (;;) {
        get(&header, sizeof header);
        if (is_zero(&header)) {
            get(&header, sizeof header);
            return false;
        }
        check_sum(&header);
        long long size = number(header.size, sizeof header.size);
        if (size < 0)
            give_up("a number of the archive is too large");
        if (header.type == 'x')
            take_records(member, size);
        else if (header.type == 'L')
            free(member->name), member->name = get_text(size);
        else if (header.type == 'K')
            free(member->link), member->link = get_text(size);
        else if (header.type == 'g')
            skip(size + padding(size));
        else {
            bool posix = memcmp(header.magic, "ustar\0", 6) == 0 && header.prefix[0];
            char whole[sizeof header.prefix + sizeof header.name + 2];
            snprintf(whole, sizeof whole, "%.155s%s%.100s", posix ? header.prefix : "", posix ? "/" : "", header.name);
            member->name = member->name ? member->name : copy(whole, sizeof whole);
            member->link = member->link ? member->link : copy(header.link, sizeof header.link);
            member->size = member->size < 0 ? size : member->size;
            member->type = header.type;
            member->mode = number(header.mode, sizeof header.mode) & 07777;
            member->uid = member->uid == (uid_t)-1 ? (uid_t)number(header.uid, sizeof header.uid) : member->uid;
            member->gid = member->gid == (gid_t)-1 ? (gid_t)number(header.gid, sizeof header.gid) : member->gid;
            member->device = makedev(number(header.major, sizeof header.major), number(header.minor, sizeof header.minor));
            if (member->modified.tv_nsec == UTIME_OMIT)
                member->modified = (struct timespec){.tv_sec = number(header.mtime, sizeof header.mtime)};
            return true;
        }
    }
}

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
    long long left = member->size;
    int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, member->mode & (tar.exact ? 0600 : 07777));
    int error = fd < 0 ? errno : 0;

    for (size_t some; left > 0; left -= some) { // also of what can't be kept: the next member comes after it
        some = left < BUFFER ? left : BUFFER;
        get(buffer, some);
        if (!error && write_all(fd, buffer, some) < 0)
            error = errno;
    }
    skip(padding(member->size));
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
    made->member.name = copy(name, LONGEST);
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
        skip(member->size + padding(member->size));
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
