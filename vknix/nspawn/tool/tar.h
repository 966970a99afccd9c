/* What the parts of `tar` share (tar.c, pack.c, unpack.c). */
#ifndef TAR_H
#define TAR_H

#include "vktool.h"

#include <stdlib.h>

enum { BLOCK = 512, BUFFER = 128 * BLOCK, FAILED = 2 };

/* A block of POSIX' ustar. */
struct header {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100], magic[8], user[32], group[32],
        major[8], minor[8], prefix[155], rest[12];
};
_Static_assert(sizeof(struct header) == BLOCK, "a header is a block");

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
/* Reads an archive, and makes all of it in the working directory. */
void unpack(void);

#endif
