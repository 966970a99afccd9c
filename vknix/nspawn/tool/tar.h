/* What the parts of `tar` share (tar.c, pack.c, members.c, unpack.c). */
#ifndef TAR_H
#define TAR_H

#include "vktool.h"

#include <stdlib.h>
#include <time.h>

enum { BLOCK = 512, BUFFER = 128 * BLOCK, FAILED = 2, LONGEST = 1 << 20 };

/* A block of POSIX' ustar. */
struct header {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100], magic[8], user[32], group[32],
        major[8], minor[8], prefix[155], rest[12];
};
_Static_assert(sizeof(struct header) == BLOCK, "a header is a block");

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

/* What the words ask for, and how it went so far. `touch`: times are not the archive's; `exact`: modes are, whatever the umask. */
struct tar {
    bool create, verbose, touch, exact, owners;
    int status;
};
extern struct tar tar;

/* Says `tar: ...`; the end of it is a failure. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
#define give_up(...) (complain(__VA_ARGS__), exit(FAILED))

/* From the size of a member to a whole block. */
static inline long long padding(long long size)
{
    return -size & (BLOCK - 1);
}

/* Writes a file, or a folder with all that is in it. */
void pack(char *file);
/* The end of an archive. */
void end_pack(void);
/* Reads so much of the content of an archive, or over it. */
void get_bytes(void *data, size_t size);
void skip_bytes(long long size);
/* Of a text, no more than `size` bytes. */
char *copy_text(const char *text, size_t size);
/* The next member of an archive that is read: whether there is one. */
bool next_member(struct member *member);
/* Reads an archive, and makes all of it in the working directory. */
void unpack(void);

#endif
