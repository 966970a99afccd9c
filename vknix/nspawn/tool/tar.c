/* What `kubectl cp` runs, for a container that has no such program: `tar`, to and from a pipe, and `test -d`.

   It runs in the process that would have become the program: in the container's root and namespaces, as its user, with its
   capabilities and filter, and with no descriptor of the host's. So it can reach what that user's own tar could, and nothing else. */
#define _GNU_SOURCE
#include "tar.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct tar tar;

void complain(const char *format, ...)
{
    va_list arguments;

    dprintf(STDERR_FILENO, "tar: ");
    va_start(arguments, format);
    vdprintf(STDERR_FILENO, format, arguments);
    va_end(arguments);
    dprintf(STDERR_FILENO, "\n");
    tar.status = FAILED;
}

static void take_long_option(const char *word)
{
    static const struct {
        const char *name;
        bool *flag, value;
    } known[] = {{"create", &tar.create, true},          {"extract", &tar.create, false},
                 {"verbose", &tar.verbose, true},        {"touch", &tar.touch, true},
                 {"same-owner", &tar.owners, true},      {"no-same-owner", &tar.owners, false},
                 {"same-permissions", &tar.exact, true}, {"no-same-permissions", &tar.exact, false}};

    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(word, known[i].name) == 0) {
            *known[i].flag = known[i].value;
            return;
        }
    give_up("vknix's tar, which this image has for want of its own, does not know --%s", word);
}

/* The letters of one word. A letter that wants an argument has the word after it (the rest of its own, unless it is the old form). */
static char **take_letters(const char *letters, bool old, char **next)
{
    for (const char *at = letters; *at; at++) {
        if (*at == 'f' || *at == 'C') {
            bool own = !old && at[1];
            const char *argument = own ? at + 1 : *next++;
            if (!argument)
                give_up("-%c wants an argument", *at);
            if (*at == 'f' && strcmp(argument, "-") != 0)
                give_up("vknix's tar, which this image has for want of its own, has archives on a pipe only: say -f -");
            if (*at == 'C' && chdir(argument) < 0)
                give_up("%s: %m", argument);
            if (own)
                break;
            continue;
        }
        switch (*at) {
        case 'c': tar.create = true; break;
        case 'x': tar.create = false; break;
        case 'v': tar.verbose = true; break;
        case 'm': tar.touch = true; break;
        case 'p': tar.exact = true; break;
        case 'o': tar.owners = false; break;
        default: give_up("vknix's tar, which this image has for want of its own, does not know -%c", *at);
        }
    }
    return next;
}

static int run_tar(char **words)
{
    bool options = true, asked = false;

    tar.owners = tar.exact = geteuid() == 0;
    if (*words && **words != '-') {
        char *letters = *words++;
        asked = strpbrk(letters, "cx");
        words = take_letters(letters, true, words);
    }
    while (*words) {
        char *word = *words++;
        if (options && strcmp(word, "--") == 0)
            options = false;
        else if (options && strncmp(word, "--", 2) == 0) {
            take_long_option(word + 2);
            asked |= strcmp(word, "--create") == 0 || strcmp(word, "--extract") == 0;
        } else if (options && word[0] == '-' && word[1]) {
            asked |= strpbrk(word, "cx") != NULL;
            words = take_letters(word + 1, false, words);
        } else if (asked && tar.create)
            pack(word);
        else
            give_up("vknix's tar, which this image has for want of its own, unpacks all of an archive: not only %s", word);
    }
    if (!asked)
        give_up("say -c or -x");
    if (!tar.create)
        unpack();
    else
        end_pack();
    return tar.status;
}

void stand_in(char **argv)
{
    struct stat st;

    if (strcmp(argv[0], "tar") == 0) {
        close_range(3, ~0U, 0);
        exit(run_tar(argv + 1));
    }
    if (strcmp(argv[0], "test") == 0 && argv[1] && strcmp(argv[1], "-d") == 0 && argv[2] && !argv[3])
        exit(stat(argv[2], &st) < 0 || !S_ISDIR(st.st_mode));
}
