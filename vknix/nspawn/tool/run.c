/* `vktool run`: the supervisor of one attempt. Two pipes in, one log out, signals on to the child, its end handed on. */
#define _GNU_SOURCE
#include "vktool.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 65536, DRAIN_MS = 1000, SANDBOX_MS = 30000, LOOK_MS = 1 };

/* The log file. Whole records only: what can't be written is dropped as a block, and counted. */
struct log {
    int fd;
    off_t size;
    long long lost;
    size_t used;
    char text[4 * CHUNK];
};

/* One output of the child: `have` bytes wait for the end of their line. */
struct stream {
    int fd;
    const char *name;
    size_t have;
    char text[PIECE + CHUNK];
};

static void flush(struct log *log)
{
    if (write_all(log->fd, log->text, log->used) == 0) {
        log->size += log->used;
    } else {
        log->lost += log->used;
        if (ftruncate(log->fd, log->size) < 0) // a torn record would swallow the next one
            log->size = lseek(log->fd, 0, SEEK_END);
    }
    log->used = 0;
}

static void append(struct log *log, const char *prefix, const char *text, size_t size, char flag)
{
    if (log->used + PREFIX + size + 1 > sizeof log->text)
        flush(log);
    char *p = log->text + log->used;
    memcpy(p, prefix, PREFIX);
    p[FLAG] = flag;
    memcpy(p + PREFIX, text, size);
    p[PREFIX + size] = '\n';
    log->used += PREFIX + size + 1;
}

/* Logs the lines that are complete, and pieces of those that are too long. With `last`, all that is left. */
static void split(struct stream *stream, struct log *log, int last)
{
    char prefix[PREFIX + 1];
    char *p = stream->text;
    char *end = p + stream->have;

    stamp(prefix, now_ns());
    snprintf(prefix + STAMP, sizeof prefix - STAMP, " %s F ", stream->name);
    while (p < end) {
        size_t left = end - p;
        char *newline = memchr(p, '\n', left > PIECE ? PIECE + 1 : left);
        if (!newline && left <= PIECE && !last)
            break;
        size_t size = newline ? (size_t)(newline - p) : left > PIECE ? PIECE : left;
        append(log, prefix, p, size, newline ? 'F' : 'P');
        p += size + (newline ? 1 : 0);
    }
    stream->have = end - p;
    memmove(stream->text, p, stream->have);
    flush(log);
}

static void copy(struct stream *stream, struct log *log)
{
    ssize_t n = read(stream->fd, stream->text + stream->have, CHUNK);

    if (n > 0) {
        stream->have += n;
        split(stream, log, 0);
    } else if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
        close(stream->fd);
        stream->fd = -1;
    }
}

/* Opens the log of this attempt for as long as the process lives: the lock tells readers that more may come. */
static void open_log(struct log *log, const char *directory, long attempt)
{
    char file[PATH_MAX], fresh[PATH_MAX];
    struct stat st;
    char last = '\n';

    path(file, "%s/%ld.log", directory, attempt);
    path(fresh, "%s/.%ld.log", directory, attempt);
    log->fd = open(file, O_RDWR | O_APPEND | O_NOFOLLOW | O_CLOEXEC);
    int made = log->fd < 0 && errno == ENOENT;
    if (made) // under another name until it is locked: else a reader could find it without its writer
        log->fd = open(fresh, O_RDWR | O_APPEND | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0640);
    if (log->fd < 0 || flock(log->fd, LOCK_EX) < 0 || (made && rename(fresh, file) < 0) || fstat(log->fd, &st) < 0)
        die(1, "%s: %m", file);
    log->size = st.st_size;
    if (log->size > 0 && pread(log->fd, &last, 1, log->size - 1) == 1 && last != '\n' && write_all(log->fd, "\n", 1) == 0)
        log->size++; // the host died while this attempt wrote
}

static void empty_file(const char *file)
{
    int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0666);

    if (fd < 0 || fchmod(fd, 0666) < 0)
        die(1, "%s: %m", file);
    close(fd);
}

static struct attempt this_attempt(const char *facts)
{
    struct attempt attempt = {.started_ns = now_ns()};
    const char *id = getenv("INVOCATION_ID");
    char *last;

    attempt.number = count_facts(facts, &last);
    free(last);
    if (attempt.number < 0)
        die(1, "%s: %m", facts);
    if (!id || !*id || strlen(id) >= sizeof attempt.id)
        die(1, "INVOCATION_ID is not set: run this under systemd");
    strcpy(attempt.id, id);
    if (own_cgroup(attempt.cgroup) < 0)
        die(1, "/proc/self/cgroup has no cgroup2 line: %m");
    return attempt;
}

/* Moves this process into `shim`, so that the unit's own cgroup has no process and may enable controllers for its children. */
static void leave_unit_cgroup(const char *unit)
{
    char shim[PATH_MAX], procs[PATH_MAX];

    path(shim, "%s/shim", unit);
    path(procs, "%s/cgroup.procs", shim);
    if ((mkdir(shim, 0755) < 0 && errno != EEXIST) || poke(procs, "0") < 0)
        die(1, "%s: %m", shim);
}

static bool is_service(char **argv)
{
    return strcmp(argv[0], "service") == 0;
}

/* ARGV as `run` takes it: what follows `--` is executed, what follows `service` is a service to become. */
static noreturn void child(char **argv, const char *unit, int out, int err)
{
    char procs[PATH_MAX];
    int journal = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    int in = open("/dev/null", O_RDONLY | O_CLOEXEC);

    path(procs, "%s/cgroup.procs", unit);
    // nspawn's own messages belong to the journal, where `fact` reads them, and not to the container's log
    setenv("SYSTEMD_LOG_TARGET", "journal", 1);
    default_signals();
    if (dup2(in, STDIN_FILENO) == STDIN_FILENO && dup2(out, STDOUT_FILENO) == STDOUT_FILENO &&
        dup2(err, STDERR_FILENO) == STDERR_FILENO) {
        if (is_service(argv))
            become_service(argv + 1, unit, journal);
        if (poke(procs, "0") == 0)
            execvp(argv[1], argv + 1);
    }
    dprintf(journal, "vktool: exec %s: %m\n", argv[1]);
    _exit(1);
}

/* Starts ARGV in the unit's own cgroup, its outputs connected to the streams. */
static pid_t start(char **argv, const char *unit, struct stream *out, struct stream *err)
{
    int pipes[2][2];

    if (pipe2(pipes[0], O_CLOEXEC) < 0 || pipe2(pipes[1], O_CLOEXEC) < 0)
        die(1, "pipe: %m");
    pid_t pid = fork();
    if (pid < 0)
        die(1, "fork: %m");
    if (pid == 0)
        child(argv, unit, pipes[0][1], pipes[1][1]);
    close(pipes[0][1]);
    close(pipes[1][1]);
    out->fd = pipes[0][0];
    err->fd = pipes[1][0];
    return pid;
}

/* Takes one signal: whether the child has ended, its wait status in `status`. */
static int take_signal(int fd, pid_t pid, int *status)
{
    struct signalfd_siginfo info;

    if (read(fd, &info, sizeof info) != sizeof info)
        return 0;
    if (info.ssi_signo == SIGCHLD)
        return waitpid(pid, status, WNOHANG) == pid;
    kill(pid, info.ssi_signo);
    return 0;
}

/* Until the child has ended and both pipes are read out, or DRAIN_MS have passed since: the wait status. `starter`: see check_ready. */
static int supervise(pid_t pid, pid_t starter, int signals, struct stream *out, struct stream *err, struct log *log, struct notify *notify)
{
    long long deadline = 0;
    int status = 0;

    for (;;) {
        struct pollfd fds[] = {{signals, POLLIN, 0}, {out->fd, POLLIN, 0}, {err->fd, POLLIN, 0}, {notify->fd, POLLIN, 0}};
        long long left = deadline - monotonic_ms();
        if (deadline && (left <= 0 || (out->fd < 0 && err->fd < 0)))
            break;
        if (poll(fds, 4, deadline ? (int)left : notify->held ? LOOK_MS : -1) < 0)
            continue;
        if (fds[1].revents)
            copy(out, log);
        if (fds[2].revents)
            copy(err, log);
        if (fds[3].revents)
            take_notify(notify);
        check_ready(notify, starter);
        if (fds[0].revents && take_signal(signals, pid, &status))
            deadline = monotonic_ms() + DRAIN_MS;
    }
    split(out, log, 1);
    split(err, log, 1);
    return status;
}

/* Ends as the child did. */
static noreturn void end_as(int status)
{
    struct rlimit no_core = {0, 0};
    sigset_t all;

    if (WIFSIGNALED(status)) {
        setrlimit(RLIMIT_CORE, &no_core);
        signal(WTERMSIG(status), SIG_DFL);
        sigfillset(&all);
        raise(WTERMSIG(status));
        sigprocmask(SIG_UNBLOCK, &all, NULL);
    }
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

/* Waits until the file is there: the Pod's network is made while its units start. */
static void await_sandbox(const char *file)
{
    const struct timespec pause = {0, 500000};
    long long deadline = monotonic_ms() + SANDBOX_MS;

    while (access(file, F_OK) < 0) {
        if (monotonic_ms() >= deadline)
            die(1, "the Pod's network was not made: %s: %m", file);
        nanosleep(&pause, NULL);
    }
}

int run(int argc, char **argv)
{
    static struct stream out = {.name = "stdout"}, err = {.name = "stderr"};
    static struct log log;
    struct notify notify = {.fd = -1};
    char unit[PATH_MAX];

    if (argc < 9 || (strcmp(argv[7], "--") != 0 && !(is_service(argv + 7) && argc == 11)))
        die(1, "run LOGDIR FACTS ROOT SKELETON TERMLOG RUNFILE SANDBOX -- ARGV... | service IDENTITY COMMAND NETNS");
    int signals = watch_signals();
    struct attempt attempt = this_attempt(argv[1]);
    if (cgroup_dir(attempt.cgroup, unit) < 0)
        die(1, "no cgroup2 is mounted here: %m");
    if (strcmp(argv[2], "-") != 0)
        fresh_root(argv[2], argv[3]);
    empty_file(argv[4]);
    open_log(&log, argv[0], attempt.number);
    leave_unit_cgroup(unit);
    if (save_attempt(argv[5], &attempt) < 0)
        die(1, "%s: %m", argv[5]);
    await_sandbox(argv[6]);
    open_notify(&notify);
    pid_t pid = start(argv + 7, unit, &out, &err);
    if (is_service(argv + 7))
        hold_ready(&notify, pid);
    int status = supervise(pid, is_service(argv + 7) ? getpid() : pid, signals, &out, &err, &log, &notify);
    end_notify(&notify, status);
    if (log.lost)
        dprintf(STDERR_FILENO, "%lld bytes of output were lost: the log can't be written\n", log.lost);
    flock(log.fd, LOCK_UN); // before the close, whose event wakes readers
    close(log.fd);
    end_as(status);
}
