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
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 65536, DRAIN_MS = 1000, SANDBOX_MS = 30000, LOOK_MS = 1, HIGH = 32 };

/* What goes through nspawn to `init`, if that is what ARGV starts. */
struct passed {
    int fds[PASS_END - PASS_PROGRAM];
    bool any;
};

/* One output of the child: `have` bytes wait for the end of their line. */
struct stream {
    int fd;
    const char *name;
    size_t have;
    char text[PIECE + CHUNK];
};

enum { OUT, ERR, TERMINAL, STREAMS };

/* One attempt, from its start to its end. `starter`: see check_ready. */
struct run {
    struct attempt attempt;
    pid_t pid, starter;
    bool had_terminal;
    struct stream streams[STREAMS];
    struct log log;
    struct notify notify;
    struct door door;
};

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
        log_record(log, prefix, p, size, newline ? 'F' : 'P');
        p += size + (newline ? 1 : 0);
    }
    stream->have = end - p;
    memmove(stream->text, p, stream->have);
    flush_log(log);
}

/* `at_once`: without waiting for the ends of lines. */
static void copy(struct stream *stream, struct log *log, bool at_once)
{
    ssize_t n = read(stream->fd, stream->text + stream->have, CHUNK);

    if (n > 0) {
        stream->have += n;
        split(stream, log, at_once);
    } else if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
        close(stream->fd);
        stream->fd = -1;
    }
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

/* Moves a descriptor out of the way of those that are passed. */
static int raise_fd(int fd)
{
    int high = fcntl(fd, F_DUPFD_CLOEXEC, HIGH);

    if (high < 0)
        die(1, "a file for init: %m");
    close(fd);
    return high;
}

/* Opens what is passed; /dev/null where there is no such file. */
static int open_high(const char *file, int flags)
{
    int fd = open(file, flags | O_CLOEXEC);

    return raise_fd(fd < 0 ? open("/dev/null", O_RDWR | O_CLOEXEC) : fd);
}

/* A copy of this program, which nobody in a container can write to. */
static int own_copy(void)
{
    int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    int copy = memfd_create("vktool", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    struct stat st;
    off_t done = 0;

    if (from < 0 || copy < 0 || fstat(from, &st) < 0)
        die(1, "a copy of vktool: %m");
    while (done < st.st_size && sendfile(copy, from, NULL, st.st_size - done) > 0)
        done = lseek(copy, 0, SEEK_CUR);
    if (done < st.st_size || fcntl(copy, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
        die(1, "a copy of vktool: %m");
    close(from);
    return raise_fd(copy);
}

/* Opens what `init` needs and is there already. `report`: where `init` is heard. */
static void open_passed(struct passed *passed, const char *runfile, struct identity *who, int *report)
{
    const char *slash = strrchr(runfile, '/');
    int length = slash ? (int)(slash - runfile) : 0;
    char file[PATH_MAX];
    int ends[2];

    path(file, "%.*s/identity", length, runfile);
    passed->fds[PASS_IDENTITY - PASS_PROGRAM] = open_high(file, O_RDONLY);
    if (read_identity(passed->fds[PASS_IDENTITY - PASS_PROGRAM], who) < 0)
        die(1, "%s: %m", file);
    passed->fds[PASS_PROGRAM - PASS_PROGRAM] = own_copy();
    passed->fds[PASS_DEVICES - PASS_PROGRAM] = open_high(is(who, PRIVILEGED) ? "/dev" : "/dev/null", O_RDONLY);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        die(1, "socketpair: %m");
    *report = ends[0];
    passed->fds[PASS_REPORT - PASS_PROGRAM] = raise_fd(ends[1]);
}

/* Opens what is made with the Pod's sandbox: its namespaces are pinned two directories above the run file. `shares`: the run file of
   the container whose processes this one is to be among. */
static void open_namespaces(struct passed *passed, const char *runfile, const char *shares)
{
    const char *slash = strrchr(runfile, '/');
    int length = slash ? (int)(slash - runfile) : 0;
    char file[PATH_MAX];

    if (!passed->any)
        return;
    path(file, "%.*s/../../pid", length, runfile);
    passed->fds[PASS_PROCESSES - PASS_PROGRAM] = shares ? raise_fd(open_processes(shares)) : open_high(file, O_RDONLY);
    path(file, "%.*s/../../users", length, runfile);
    passed->fds[PASS_USERS - PASS_PROGRAM] = open_high(file, O_RDONLY);
}

/* Puts them where nspawn looks for what it is to pass on. */
static void place_passed(const struct passed *passed)
{
    char number[32];

    if (!passed->any)
        return;
    for (int fd = PASS_PROGRAM; fd < PASS_END; fd++)
        if (dup2(passed->fds[fd - PASS_PROGRAM], fd) < 0)
            _exit(1);
    snprintf(number, sizeof number, "%d", PASS_END - PASS_PROGRAM);
    setenv("LISTEN_FDS", number, 1);
    snprintf(number, sizeof number, "%d", (int)getpid());
    setenv("LISTEN_PID", number, 1);
}

static void close_passed(const struct passed *passed)
{
    for (int i = 0; passed->any && i < PASS_END - PASS_PROGRAM; i++)
        close(passed->fds[i]);
}

static bool is_service(char **argv)
{
    return strcmp(argv[0], "service") == 0;
}

/* ARGV as `run` takes it: what follows `--` is executed, what follows `service` is a service to become. */
static noreturn void child(char **argv, const char *unit, const int *stdio, const struct passed *passed)
{
    char supervisor[PATH_MAX], procs[PATH_MAX];
    int journal = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, HIGH);

    // where nspawn would go by itself; the unit's own cgroup may have no process once controllers are enabled in it
    path(supervisor, "%s/supervisor", unit);
    path(procs, "%s/cgroup.procs", supervisor);
    // nspawn's own messages belong to the journal, where `fact` reads them, and not to the container's log
    setenv("SYSTEMD_LOG_TARGET", "journal", 1);
    default_signals();
    if (dup2(stdio[0], STDIN_FILENO) == STDIN_FILENO && dup2(stdio[1], STDOUT_FILENO) == STDOUT_FILENO &&
        dup2(stdio[2], STDERR_FILENO) == STDERR_FILENO) {
        if (is_service(argv))
            become_service(argv + 1, unit, journal);
        place_passed(passed);
        if ((mkdir(supervisor, 0755) == 0 || errno == EEXIST) && poke(procs, "0") == 0)
            execvp(argv[1], argv + 1);
    }
    dprintf(journal, "vktool: exec %s: %m\n", argv[1]);
    _exit(1);
}

static void make_pipe(int *ends)
{
    if (pipe2(ends, O_CLOEXEC) < 0)
        die(1, "pipe: %m");
}

/* What the child reads: a pipe where input may come, else nothing. A terminal's input goes to the terminal. */
static int open_input(struct door *door)
{
    int ends[2];

    door->input = -1;
    if (!door->reads || door->tty)
        return open("/dev/null", O_RDONLY | O_CLOEXEC);
    make_pipe(ends);
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
    door->input = ends[1];
    return ends[0];
}

static void set_terminal(struct run *run, int master)
{
    run->streams[TERMINAL].fd = run->door.terminal = master;
    run->door.input = run->door.reads ? master : -1;
}

/* Starts ARGV in the cgroup `supervisor` of the unit, its input and outputs connected. A service has a terminal of the host's. */
static void start(struct run *run, char **argv, const char *unit, const struct passed *passed)
{
    int out[2], err[2], slave;
    int stdio[3] = {open_input(&run->door)};

    make_pipe(out);
    make_pipe(err);
    stdio[1] = out[1];
    stdio[2] = err[1];
    if (run->door.tty && is_service(argv)) {
        set_terminal(run, own_terminal(&slave));
        stdio[0] = stdio[1] = stdio[2] = slave;
    }
    run->pid = fork();
    if (run->pid < 0)
        die(1, "fork: %m");
    if (run->pid == 0)
        child(argv, unit, stdio, passed);
    close(stdio[0]);
    close(out[1]);
    close(err[1]);
    close_passed(passed);
    run->streams[OUT].fd = out[0];
    run->streams[ERR].fd = err[0];
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

/* Reads what the child has written. A terminal that was closed takes no input, either. */
static void take_outputs(struct run *run, const struct pollfd *fds)
{
    for (int i = 0; i < STREAMS; i++)
        if (fds[i].revents && run->streams[i].fd >= 0)
            copy(&run->streams[i], &run->log, has_guests(&run->door));
    if (run->door.tty && run->streams[TERMINAL].fd < 0)
        set_terminal(run, -1);
}

/* Logs all that is left of unfinished lines. */
static void finish_lines(struct run *run)
{
    for (int i = 0; i < STREAMS; i++)
        split(&run->streams[i], &run->log, 1);
}

/* Whether nspawn has made a terminal by now that was not taken yet. */
static bool lacks_terminal(const struct run *run)
{
    return run->door.tty && !run->had_terminal && (run->notify.fd < 0 || run->notify.leader);
}

static void take_terminal(struct run *run)
{
    set_terminal(run, copy_terminal(run->pid));
    run->had_terminal = run->door.terminal >= 0;
}

static bool all_closed(const struct run *run)
{
    return run->streams[OUT].fd < 0 && run->streams[ERR].fd < 0 && run->streams[TERMINAL].fd < 0;
}

/* Until the child has ended and all is read out that it wrote, or DRAIN_MS have passed since: the wait status. */
static int supervise(struct run *run, int signals)
{
    enum { SIGNALS = STREAMS, NOTIFY, REPORT, DOOR, COUNT = DOOR + DOOR_FDS };
    struct pollfd fds[COUNT];
    long long deadline = 0;
    int status = 0;

    for (;;) {
        for (int i = 0; i < STREAMS; i++)
            fds[i] = (struct pollfd){run->streams[i].fd, POLLIN, 0};
        fds[SIGNALS] = (struct pollfd){signals, POLLIN, 0};
        fds[NOTIFY] = (struct pollfd){run->notify.fd, POLLIN, 0};
        fds[REPORT] = (struct pollfd){run->notify.report, POLLIN, 0};
        door_fds(&run->door, fds + DOOR);
        long long left = deadline - monotonic_ms();
        if (deadline && (left <= 0 || all_closed(run)))
            break;
        bool looks = (run->notify.held && run->notify.report < 0) || lacks_terminal(run);
        if (poll(fds, COUNT, deadline ? (int)left : looks ? LOOK_MS : -1) < 0)
            continue;
        if (fds[NOTIFY].revents)
            take_notify(&run->notify);
        if (fds[REPORT].revents)
            take_report(&run->notify);
        if (!deadline && lacks_terminal(run))
            take_terminal(run);
        take_outputs(run, fds);
        if (tend_door(&run->door, fds + DOOR)) {
            finish_lines(run);
            greet(&run->door, run->attempt.number, log_end(&run->log));
        }
        check_ready(&run->notify, run->starter);
        if (fds[SIGNALS].revents && take_signal(signals, run->pid, &status))
            deadline = monotonic_ms() + DRAIN_MS;
    }
    finish_lines(run);
    return status;
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

static const char USAGE[] = "run [--init] [--log=BYTES,FILES] [--stdin|--stdin-once] [--tty] [--pids=RUNFILE] LOGDIR FACTS ROOT SKELETON TERMLOG RUNFILE SANDBOX "
                            "-- ARGV... | service IDENTITY COMMAND NETNS";

/* Takes the options: how many words they are. */
static int take_options(int argc, char **argv, struct run *run, bool *init, const char **shares)
{
    struct door *door = &run->door;
    int i = 0;

    for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
        door->once |= strcmp(argv[i], "--stdin-once") == 0;
        door->reads |= door->once || strcmp(argv[i], "--stdin") == 0;
        door->tty |= strcmp(argv[i], "--tty") == 0;
        *init |= strcmp(argv[i], "--init") == 0;
        if (strncmp(argv[i], "--pids=", 7) == 0)
            *shares = argv[i] + 7;
        if (strncmp(argv[i], "--log=", 6) == 0 && sscanf(argv[i] + 6, "%lld,%d", &run->log.limit, &run->log.files) != 2)
            die(1, "%s", USAGE);
    }
    return i;
}

int run(int argc, char **argv)
{
    static struct run run = {.streams = {{.name = "stdout", .fd = -1}, {.name = "stderr", .fd = -1}, {.name = "stdout", .fd = -1}},
                             .notify = {.fd = -1, .report = -1, .process = -1},
                             .door = {.terminal = -1}};
    static struct identity who;
    struct passed passed = {.any = false};
    char unit[PATH_MAX];
    const char *shares = NULL;

    int taken = take_options(argc, argv, &run, &passed.any, &shares);
    argc -= taken;
    argv += taken;
    if (argc < 9 || (strcmp(argv[7], "--") != 0 && !(is_service(argv + 7) && argc == 11)))
        die(1, "%s", USAGE);
    int signals = watch_signals();
    signal(SIGPIPE, SIG_IGN);
    run.attempt = this_attempt(argv[1]);
    if (cgroup_dir(run.attempt.cgroup, unit) < 0)
        die(1, "no cgroup2 is mounted here: %m");
    if (passed.any)
        open_passed(&passed, argv[5], &who, &run.notify.report);
    if (strcmp(argv[2], "-") != 0)
        fresh_root(argv[2], argv[3], who.base);
    empty_file(argv[4]);
    open_log(&run.log, argv[0], run.attempt.number);
    leave_unit_cgroup(unit);
    open_door(&run.door, argv[5]);
    prepare_limits(unit, argv[5]);
    if (save_attempt(argv[5], &run.attempt) < 0)
        die(1, "%s: %m", argv[5]);
    await_sandbox(argv[6]);
    open_namespaces(&passed, argv[5], shares);
    open_notify(&run.notify, unit, argv[5]);
    start(&run, argv + 7, unit, &passed);
    run.attempt.child = run.pid;
    save_attempt(argv[5], &run.attempt);
    run.starter = is_service(argv + 7) ? getpid() : run.pid;
    run.had_terminal = run.door.terminal >= 0;
    if (is_service(argv + 7))
        hold_ready(&run.notify, run.pid);
    int status = end_notify(&run.notify, supervise(&run, signals), &run.attempt.signal);
    if (run.attempt.signal)
        save_attempt(argv[5], &run.attempt);
    if (run.log.lost)
        dprintf(STDERR_FILENO, "%lld bytes of output were lost: the log can't be written\n", run.log.lost);
    close_log(&run.log);
    end_as(status);
}
