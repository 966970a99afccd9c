/* What the verbs of vktool share. Functions that can fail return -1 and leave errno, unless their line says otherwise. */
#ifndef VKTOOL_H
#define VKTOOL_H

#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdnoreturn.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

/* One record of a log: "2006-01-02T15:04:05.000000000Z stdout F text\n"; F ends a line, P is a piece of one. */
enum { STAMP = 30, FLAG = 38, PREFIX = 40, PIECE = 16384, CHUNK = 65536 };

/* The log of one attempt as it is written: whole records only; what can't be written is dropped as a block, and counted. It is a row of
   files in `directory`, N.log the newest and N.log.POSITION those that were cut off before: the position in the whole log where each
   begins. A file is cut off where it has `limit` bytes (0: never), and `files` are kept. */
struct log {
    const char *directory;
    long attempt;
    int fd, files;
    long long limit, start, size, lost; // `start`: where the newest file begins, `size`: what it has
    bool inside; // a line: its last piece was a P
    size_t used;
    char text[262144];
};

/* One output of the child: `have` bytes wait for the end of their line. */
struct stream {
    int fd;
    const char *name;
    size_t have;
    char text[PIECE + CHUNK];
};

/* A file of a log, open. */
struct segment {
    int fd;
    long long start, size;
};

enum { SEGMENTS = 1024 };

/* The `run` file: the attempt that runs now. `child`: nspawn, once it is there. Once it has ended, as far as `run` knows: `began`: its
   program has run; `signal`: what has ended it. */
struct attempt {
    long number;
    char id[64];
    long long started_ns;
    char cgroup[PATH_MAX];
    pid_t child;
    int began, signal;
};

/* Between nspawn and systemd: `held` is a READY that nspawn has said and systemd has not heard; `fd` -1 where nobody listens. */
struct notify {
    int fd;
    struct sockaddr_un systemd;
    socklen_t systemd_size;
    pid_t leader;
    bool held, init; // `init`: there is one
    int report; // from `init` or a service to be: its end says that the program runs; -1 where there is none, or it has spoken
    bool heard, failed; // who reports is there; has said why the program does not run
    int process; // a pidfd of the machine's first process, from `init`; -1 without
    bool running; // the program, for all that is known
    const char *unit, *run_file; // of the container whose last limits come into force with READY
};

enum { GUESTS = 16, DOOR_FDS = GUESTS + 2, FRAME = 4096 };

/* Someone who is attached. `feeds`: its input is the container's; `text` begins with a frame that may be incomplete. */
struct guest {
    int fd;
    bool greeted, feeds;
    size_t have;
    unsigned char text[FRAME];
};

/* What the container reads, and who is attached to it. `input` is its stdin (a terminal's is `terminal`), -1 where it has none or no
   more; `text` is what it has not read yet; after `closing`, that is the last. */
struct door {
    int listener, input, terminal;
    bool reads, once, tty, closing;
    size_t pending;
    unsigned char text[FRAME];
    struct guest guests[GUESTS];
};

/* Where a process that is to become another says why it could not: one line that begins with `mark`. `code`, if any, is how it then exits. */
struct report {
    int fd, code;
    const char *mark;
};

enum { NOT_ENTERED = 125, NOT_RUN = 126, NOT_FOUND = 127, GROUPS = 1024 };

/* What `run` passes to `init` through nspawn, as systemd passes sockets: file descriptors from 3 on. */
enum { PASS_PROGRAM = 3, PASS_IDENTITY, PASS_REPORT, PASS_PROCESSES, PASS_USERS, PASS_DEVICES, PASS_END };
enum { HIGH = 32 }; // descriptors from here on are out of their way

/* What goes through nspawn to `init`, if that is what ARGV starts. */
struct passed {
    int fds[PASS_END - PASS_PROGRAM];
    bool any;
};

/* Flags of an identity. */
enum {
    NO_NEW_PRIVILEGES = 'n',
    SECCOMP = 's',
    UNMASKED = 'u', // all of /proc and /sys
    PRIVILEGED = 'p',
    OWN_USERS = 'U', // a user namespace of the Pod
};

/* What a process of a container is. `base`: the host's number of user 0; `mapped`: the mounts that are to be seen so. */
struct identity {
    unsigned long long capabilities;
    uid_t uid;
    gid_t gid;
    gid_t groups[GROUPS];
    size_t group_count;
    const char *flags;
    uid_t base;
    const char *directory;
    char **environment;
    char **mapped;
};

int run(int argc, char **argv);
int fact(int argc, char **argv);
int exec(int argc, char **argv);
int init(int argc, char **argv);
int pause_pod(int argc, char **argv);
int spaces(int argc, char **argv);
int logs(int argc, char **argv);
int follow(int argc, char **argv);
int attach(int argc, char **argv);
int limit(int argc, char **argv);
int mounts(int argc, char **argv);
int own(int argc, char **argv);
int usage(int argc, char **argv);
int disk(int argc, char **argv);
int read_files(int argc, char **argv);
int forward(int argc, char **argv);

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
/* Opens the log of this attempt for as long as the process lives: the lock tells readers that more may come. Of the attempts before it
   only the last one's is kept. */
void open_log(struct log *log, const char *directory, long attempt);
/* PREFIX, the text, a newline. It may stay in memory until the next flush. */
void log_record(struct log *log, const char *prefix, const char *text, size_t size, char flag);
void flush_log(struct log *log);
/* Logs the lines that are complete, and pieces of those that are too long. With `last`, all that is left. */
void log_lines(struct stream *stream, struct log *log, bool last);
/* Reads some and logs it; `at_once`: without waiting for the ends of lines. */
void log_output(struct stream *stream, struct log *log, bool at_once);
/* Where the next record will be. */
long long log_end(const struct log *log);
void close_log(struct log *log);
/* Opens the files of a log, oldest first; what they held when they were opened: how many, 0 where there is none. */
int open_segments(const char *directory, long attempt, struct segment *out);
/* Whether the record that ends at `end` in a file of a log is followed by more of its line. */
bool is_inside(int fd, off_t end);
/* Where in a log its last lines begin: the number of the file, and the position. */
int find_tail(const struct segment *segments, int count, long lines, long long *position);
/* The last bytes of a log as the program wrote them, no more than `lines` lines: how many bytes. */
ssize_t tail_text(const char *directory, long attempt, long lines, char *out, size_t size);
/* Sends a log from a position on, each stream to the one of its name, until `writer` is closed at the other end and all is sent. */
void follow_from(const char *directory, long attempt, long long start, int writer);
/* No signal is blocked, ignored or caught, whatever was inherited: as a program expects to start. */
void default_signals(void);
/* Says `MARK ...` and ends the process with `code`. */
noreturn void fail(const struct report *report, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Fails with NOT_ENTERED where `result` is -1. */
void must(const struct report *report, int result, const char *what);
/* Reads a spec (see main.c); its text stays allocated for the life of the process. */
void load_identity(const struct report *report, const char *file, struct identity *who);
/* Drops what the container's own processes don't have. Root keeps the capabilities that are asked for, others none. */
void become(const struct report *report, const struct identity *who);
/* Executes ARGV in that identity's directory, by its PATH; where that lacks it, `lacking`, if any, is asked first. */
noreturn void become_command(const struct report *report, const struct identity *who, char **argv, void (*lacking)(char **));
/* Is the program, and ends as it, where ARGV is a `tar` or a `test -d`; else returns. */
void stand_in(char **argv);
/* Becomes the program of a service of the host, in the unit's cgroup `payload`: WORDS are IDENTITY COMMAND NETNS. What goes wrong is
   one line on `word`, and exit 1. */
noreturn void become_service(char **words, const char *unit, int word);
/* Makes `root` a fresh copy of the directory `skeleton`, on top of the image that the file `skeleton`.image names, if it is there;
   what was in `root` is gone. Owners count from `base`. Dies where it can't. */
void fresh_root(const char *root, const char *skeleton, uid_t base);
/* The same from an open file: -1 where it is none. */
int read_identity(int fd, struct identity *who);
bool is(const struct identity *who, char flag);
/* System calls that RuntimeDefault refuses to the holder of these capabilities fail from now on. */
int install_filter(unsigned long long capabilities);
/* Opens what `init` needs and is there already. `report`: where `init` is heard. */
void open_passed(struct passed *passed, const char *runfile, struct identity *who, int *report);
/* Opens what is made with the Pod's sandbox: its namespaces are pinned two directories above the run file. `shares`: the run file of
   the container whose processes this one is to be among. */
void open_namespaces(struct passed *passed, const char *runfile, const char *shares);
void close_passed(const struct passed *passed);
/* Whether ARGV, as `run` takes it, is a service to become: it follows the word `service`. */
bool is_service(char **argv);
/* Becomes ARGV as `run` takes it, in the cgroup `supervisor` of the unit: what follows `--` is executed. `word`: where a service to be
   says why it is none. */
noreturn void become_child(char **argv, const char *unit, const int *stdio, const struct passed *passed, int word);
/* Ends this process as a wait status says. */
noreturn void end_as(int status);
/* Sends a message to systemd, where it listens. */
void tell_systemd(const char *text);
/* Makes `payload` in the unit's cgroup and puts what is wanted there into force, but for what would slow the start. */
void prepare_limits(const char *unit, const char *run_file);
/* The rest, once the program runs. */
void finish_limits(const char *unit, const char *run_file);
/* Puts a socket of its own in place of systemd's, for the child to come. */
void open_notify(struct notify *notify, const char *unit, const char *run_file);
/* This process says for its child, which has the other end of `report`, that it is ready, once its program runs. */
void hold_ready(struct notify *notify, pid_t child, int report);
/* Takes one message from it. */
void take_notify(struct notify *notify);
/* Takes a word of who reports: who it is, then that the program runs, or why it does not, which goes to the journal. */
void take_report(struct notify *notify);
/* Passes a held READY on once the machine's program runs, which is when it is not what `starter` is. */
void check_ready(struct notify *notify, pid_t starter);
/* The child has ended so: the last word. How the program ended, as a wait status of one that exits; `signal` is set where that is made
   of a signal. */
int end_notify(struct notify *notify, int status, int *signal);
/* Listens beside the run file. Dies where it can't. */
void open_door(struct door *door, const char *runfile);
bool has_guests(const struct door *door);
/* What to poll for, DOOR_FDS of them. */
void door_fds(const struct door *door, struct pollfd *fds);
/* Does what they ask for: whether somebody has come, who waits to be greeted. */
bool tend_door(struct door *door, const struct pollfd *fds);
/* Tells those who have just come which attempt this is and where its log ends. */
void greet(struct door *door, long attempt, long long now);
/* The other end of the terminal that nspawn made; -1 where it has none (yet, or any more). Where it can't be had, nspawn is killed. */
int copy_terminal(pid_t nspawn);
/* A terminal of the host, which only a service has: the end that is ours. */
int own_terminal(int *slave);
/* The PID namespace of the container that a run file names. Dies where it does not run. */
int open_processes(const char *runfile);
/* How much the logs of a container take: bytes of disk, and files. */
void count_logs(const char *uid32, const char *container, unsigned long long *bytes, unsigned long long *files);
/* The child of `parent` that is `told` where they are; `told` itself where there is none. */
pid_t find_child(pid_t parent, pid_t told);
/* The container's first process, by the directory of its unit's cgroup; 0 without. */
pid_t find_process(const char *unit);

#endif
