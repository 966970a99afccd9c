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
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { DRAIN_MS = 1000, SANDBOX_MS = 30000, LOOK_MS = 1 };

enum { OUT, ERR, TERMINAL, STREAMS };

/* One attempt, from its start to its end. */
struct run {
    struct attempt attempt;
    pid_t pid;
    bool had_terminal;
    struct stream streams[STREAMS];
    struct log log;
    struct notify notify;
    struct door door;
};

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
    int out[2], err[2], word[2] = {-1, -1}, slave;
    int stdio[3] = {open_input(&run->door)};

    make_pipe(out);
    make_pipe(err);
    stdio[1] = out[1];
    stdio[2] = err[1];
    if (run->door.tty && is_service(argv)) {
        set_terminal(run, own_terminal(&slave));
        stdio[0] = stdio[1] = stdio[2] = slave;
    }
    if (is_service(argv) && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, word) < 0)
        die(1, "socketpair: %m");
    run->pid = fork();
    if (run->pid < 0)
        die(1, "fork: %m");
    if (run->pid == 0)
        become_child(argv, unit, stdio, passed, word[1]);
    close(stdio[0]);
    close(out[1]);
    close(err[1]);
    close_passed(passed);
    if (is_service(argv)) {
        close(word[1]);
        hold_ready(&run->notify, run->pid, word[0]);
    }
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
            log_output(&run->streams[i], &run->log, has_guests(&run->door));
    if (run->door.tty && run->streams[TERMINAL].fd < 0)
        set_terminal(run, -1);
}

/* Logs all that is left of unfinished lines. */
static void finish_lines(struct run *run)
{
    for (int i = 0; i < STREAMS; i++)
        log_lines(&run->streams[i], &run->log, true);
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
        check_ready(&run->notify, run->pid);
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
    run.notify.init = passed.any;
    start(&run, argv + 7, unit, &passed);
    run.attempt.child = run.pid;
    save_attempt(argv[5], &run.attempt);
    run.had_terminal = run.door.terminal >= 0;
    int status = end_notify(&run.notify, supervise(&run, signals), &run.attempt.signal);
    run.attempt.began = run.notify.running;
    if (run.attempt.signal || run.attempt.began)
        save_attempt(argv[5], &run.attempt);
    if (run.log.lost)
        dprintf(STDERR_FILENO, "%lld bytes of output were lost: the log can't be written\n", run.log.lost);
    close_log(&run.log);
    end_as(status);
}
