/* `tar -c`: files as members of an archive. */
#define _GNU_SOURCE
#include "tar.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum { FDS = 16 };

static char buffer[BUFFER];
static size_t used;

static void flush(void)
{
    if (write_all(STDOUT_FILENO, buffer, used) < 0)
        give_up("the archive can't be written: %m");
    used = 0;
}

/* Room for one block at least: `size` is how much. */
static char *room(size_t *size)
{
    if (used == BUFFER)
        flush();
    *size = BUFFER - used;
    return buffer + used;
}

static void put(const void *data, size_t size)
{
    for (const char *at = data; size > 0;) {
        size_t some, left;
        char *to = room(&left);
        some = size < left ? size : left;
        memcpy(to, at, some);
        used += some;
        at += some;
        size -= some;
    }
}

static void put_zeros(long long size)
{
    static const char zeros[BLOCK];

    for (; size > 0; size -= BLOCK)
        put(zeros, size < BLOCK ? size : BLOCK);
}

/* Octal, or, what that has no room for, as GNU has it: big-endian, after a byte 0x80. */
static void put_number(char *field, size_t size, unsigned long long number)
{
    if (number < 1ULL << 3 * (size - 1)) {
        for (size_t i = size - 1; i-- > 0; number >>= 3)
            field[i] = '0' + (number & 7);
        return;
    }
    memset(field, 0, size);
    for (size_t i = size; i-- > 1 && number; number >>= 8)
        field[i] = number & 0xff;
    field[0] = (char)0x80;
}

static void put_header(struct header *header)
{
    unsigned sum = 0;

    memcpy(header->magic, "ustar  ", 8);
    memset(header->checksum, ' ', sizeof header->checksum);
    for (size_t i = 0; i < sizeof *header; i++)
        sum += ((unsigned char *)header)[i];
    snprintf(header->checksum, sizeof header->checksum, "%06o", sum);
    put(header, sizeof *header);
}

/* A name; where its field is too small, in a member before it, as GNU has it. */
static void put_name(char *field, const char *name, char type)
{
    struct header header = {.name = "././@LongLink", .type = type};
    size_t size = strlen(name) + 1;

    if (size > sizeof header.name + 1) {
        put_number(header.size, sizeof header.size, size);
        put_header(&header);
        put(name, size);
        put_zeros(padding(size));
    }
    strncpy(field, name, sizeof header.name);
}

/* As many bytes as its header said, whatever becomes of the file meanwhile. */
static void put_content(int fd, const char *name, long long size)
{
    long long left = size;

    while (left > 0) {
        size_t most;
        char *to = room(&most);
        ssize_t n = read(fd, to, left < (long long)most ? (size_t)left : most);
        if (n < 0)
            complain("%s: %m", name);
        else if (n == 0)
            complain("%s: it has shrunk by %lld bytes", name, left);
        if (n <= 0)
            break;
        used += n;
        left -= n;
    }
    put_zeros(left);
    put_zeros(padding(size));
}

/* What a member is called: no path from the root, and none that leads out of where it is unpacked. */
static const char *member_name(const char *file)
{
    for (const char *up; (up = strstr(file, "../"));)
        file = up + 3;
    file += strspn(file, "/");
    return *file ? file : ".";
}

static char type_of(mode_t mode)
{
    return S_ISREG(mode) ? '0' : S_ISLNK(mode) ? '2' : S_ISCHR(mode) ? '3' : S_ISBLK(mode) ? '4' : S_ISDIR(mode) ? '5' : '6';
}

static int put_member(const char *file, const struct stat *found, int kind, struct FTW *where)
{
    (void)where;
    struct header header = {0};
    char name[PATH_MAX + 1], link[PATH_MAX] = "";
    struct stat st = *found;
    int fd = -1;

    if (kind == FTW_NS)
        return complain("%s: it can't be looked at", file), 0;
    if (kind == FTW_DNR)
        complain("%s: it can't be read", file);
    if (S_ISSOCK(st.st_mode))
        return 0;
    if (S_ISREG(st.st_mode)) {
        fd = open(file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
            complain("%s: %m", file);
            if (fd >= 0)
                close(fd);
            return 0;
        }
    }
    if (S_ISLNK(st.st_mode) && readlink(file, link, sizeof link - 1) < 0)
        return complain("%s: %m", file), 0;
    snprintf(name, sizeof name, "%s%s", member_name(file), S_ISDIR(st.st_mode) ? "/" : "");
    put_name(header.link, link, 'K');
    put_name(header.name, name, 'L');
    put_number(header.mode, sizeof header.mode, st.st_mode & 07777);
    put_number(header.uid, sizeof header.uid, st.st_uid);
    put_number(header.gid, sizeof header.gid, st.st_gid);
    put_number(header.size, sizeof header.size, fd >= 0 ? st.st_size : 0);
    put_number(header.mtime, sizeof header.mtime, st.st_mtime < 0 ? 0 : st.st_mtime);
    put_number(header.major, sizeof header.major, major(st.st_rdev));
    put_number(header.minor, sizeof header.minor, minor(st.st_rdev));
    header.type = type_of(st.st_mode);
    put_header(&header);
    if (tar.verbose)
        dprintf(STDERR_FILENO, "%s\n", name);
    if (fd >= 0) {
        put_content(fd, file, st.st_size);
        close(fd);
    }
    return 0;
}

void pack(char *file)
{
    for (size_t size = strlen(file); size > 1 && file[size - 1] == '/';)
        file[--size] = '\0';
    if (nftw(file, put_member, FDS, FTW_PHYS) < 0)
        complain("%s: %m", file);
}

void end_pack(void)
{
    put_zeros(2 * BLOCK);
    flush();
}
