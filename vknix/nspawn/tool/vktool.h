/* What the verbs of vktool share. Functions that can fail return -1 and leave errno, unless their line says otherwise. */
#ifndef VKTOOL_H
#define VKTOOL_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdnoreturn.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

/* One record of a log: "2006-01-02T15:04:05.000000000Z stdout F text\n"; F ends a line, P is a piece of one. */
enum { STAMP = 30, FLAG = 38, PREFIX = 40, PIECE = 16384 };

/* The `run` file: the attempt that runs now. */
struct attempt {
    long number;
    char id[64];
    long long started_ns;
    char cgroup[PATH_MAX];
};

/* Between nspawn and systemd: `held` is a READY that nspawn has said and systemd has not heard; `fd` -1 where nobody listens. */
struct notify {
    int fd;
    struct sockaddr_un systemd;
    socklen_t systemd_size;
    pid_t leader;
    bool held;
};

int run(int argc, char **argv);
int fact(int argc, char **argv);
int exec(int argc, char **argv);
int logs(int argc, char **argv);

/* Says `vktool: ...` on stderr (in printf's words, %m included) and ends the process. */
noreturn void die(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The wall clock, since the epoch. */
long long now_ns(void);
/* A clock that is never set, for deadlines. */
long long monotonic_ms(void);
/* Writes `ns` as RFC 3339 in UTC, STAMP characters and no NUL. */
void stamp(char *out, long long ns);
/* Joins printf-wise into a path of PATH_MAX; dies where it is too long. */
void path(char *out, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Reads a small file as a string: its length, cut to size - 1. */
ssize_t slurp(const char *file, char *out, size_t size);
/* Writes all of it, however often write(2) stops short. */
int write_all(int fd, const void *data, size_t size);
/* The text of a cgroup attribute file is replaced, as `echo text > file`. */
int poke(const char *file, const char *text);
/* The number of lines of a facts file (0 without one), a torn last one included; `last` becomes that line, to be freed. */
long count_facts(const char *file, char **last);
/* Reads and writes (by rename) a run file. */
int load_attempt(const char *file, struct attempt *out);
int save_attempt(const char *file, const struct attempt *attempt);
/* The path of this process in the cgroup2 tree, PATH_MAX. */
int own_cgroup(char *out);
/* The directory of a cgroup, wherever cgroup2 is mounted, PATH_MAX. */
int cgroup_dir(const char *cgroup, char *out);
/* Blocks what systemd, sshd and vknix may send, and gives a signalfd for it. Dies where it can't. */
int watch_signals(void);
/* Where in a log the last `lines` lines begin. */
off_t tail_start(int fd, long lines);
/* The last bytes of a log as the program wrote them, no more than `lines` lines: how many bytes. */
ssize_t tail_text(const char *file, long lines, char *out, size_t size);
/* No signal is blocked, ignored or caught, whatever was inherited: as a program expects to start. */
void default_signals(void);
/* Makes `root` a fresh copy of the directory `skeleton`; what was there is gone. Dies where it can't. */
void fresh_root(const char *root, const char *skeleton);
/* Puts a socket of its own in place of systemd's, for the child to come. */
void open_notify(struct notify *notify);
/* Takes one message from it. */
void take_notify(struct notify *notify);
/* Passes a held READY on once the machine's program runs. */
void check_ready(struct notify *notify, pid_t nspawn);
/* The child has ended so: the last word. */
void end_notify(struct notify *notify, int status);

#endif
