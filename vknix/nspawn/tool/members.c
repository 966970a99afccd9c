/* `tar -x`: the members of an archive, as it is read. */
#define _GNU_SOURCE
#include "tar.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

void get_bytes(void *data, size_t size)
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

void skip_bytes(long long size)
{
    static char buffer[BUFFER];

    for (; size > 0; size -= size < BUFFER ? size : BUFFER)
        get_bytes(buffer, size < BUFFER ? size : BUFFER);
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

char *copy_text(const char *text, size_t size)
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
    get_bytes(text, size);
    text[size] = '\0';
    skip_bytes(padding(size));
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
            free(member->name), member->name = copy_text(value, LONGEST);
        else if (strcmp(key, "linkpath") == 0)
            free(member->link), member->link = copy_text(value, LONGEST);
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

bool next_member(struct member *member)
{
    struct header header;

    *member = (struct member){.size = -1, .uid = -1, .gid = -1, .modified = {.tv_nsec = UTIME_OMIT}};
    for (;;) {
        get_bytes(&header, sizeof header);
        if (is_zero(&header)) {
            get_bytes(&header, sizeof header);
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
            skip_bytes(size + padding(size));
        else {
            bool posix = memcmp(header.magic, "ustar\0", 6) == 0 && header.prefix[0];
            char whole[sizeof header.prefix + sizeof header.name + 2];
            snprintf(whole, sizeof whole, "%.155s%s%.100s", posix ? header.prefix : "", posix ? "/" : "", header.name);
            member->name = member->name ? member->name : copy_text(whole, sizeof whole);
            member->link = member->link ? member->link : copy_text(header.link, sizeof header.link);
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
