/* `vktool exec`: a command in a running container, as one of the container's own processes; and the process that stays outside,
   which ends all of it when its client is gone. */
#define _GNU_SOURCE
#include "vktool.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { END_MS = 1000 };

/* One exec: where it goes, and what its watcher holds. */
struct session {
    struct report report; // its mark is the client's nonce
    pid_t leader;
    int leader_fd, root, processes;
    bool user_namespace;
    char cgroup[PATH_MAX];
    int master, slave; // the terminal inside; -1 without
    struct termios saved; // of the terminal outside
    bool raw;
    char input[4096]; // typed, not yet taken by the terminal inside
    size_t input_size;
};

/* ---- Whom to join ---- */

static bool differs(pid_t pid, const char *namespace)
{
    char theirs[64], ours[64];
    struct stat a, b;

    snprintf(theirs, sizeof theirs, "/proc/%d/ns/%s", pid, namespace);
    snprintf(ours, sizeof ours, "/proc/self/ns/%s", namespace);
    return stat(theirs, &a) < 0 || stat(ours, &b) < 0 || a.st_ino != b.st_ino;
}

/* Finds the container's first process and holds it, so that its number can't come to mean another. The command goes below the
   container's own cgroup, with whose limits it lives. */
static void find_leader(struct session *session, const char *unit, long number)
{
    char file[PATH_MAX];

    session->leader = find_process(unit);
    path(session->cgroup, "%s/payload/exec-%ld", unit, number);
    path(file, "%s/payload", unit);
    if (access(file, F_OK) < 0)
        path(session->cgroup, "%s/exec-%ld", unit, number);
    session->leader_fd = session->leader ? syscall(SYS_pidfd_open, session->leader, 0) : -1;
    path(file, "/proc/%d/root", session->leader);
    session->root = session->leader_fd < 0 ? -1 : open(file, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (session->root < 0 || syscall(SYS_pidfd_send_signal, session->leader_fd, 0, NULL, 0) < 0)
        fail(&session->report, NOT_ENTERED, "the container has no process to join");
    path(file, "/proc/%d/ns/pid_for_children", session->leader); // the Pod's, where its containers share one
    session->processes = open(file, O_RDONLY | O_CLOEXEC);
    session->user_namespace = differs(session->leader, "user");
}

/* ---- The terminal ---- */

/* What a user of the container is out here. */
static uid_t outside(pid_t leader, uid_t uid)
{
    char file[64];
    unsigned long inner, outer, count;
    uid_t found = uid;

    snprintf(file, sizeof file, "/proc/%d/uid_map", leader);
    FILE *map = fopen(file, "re");
    while (map && fscanf(map, "%lu %lu %lu", &inner, &outer, &count) == 3)
        if (uid >= inner && uid - inner < count)
            found = outer + (uid - inner);
    if (map)
        fclose(map);
    return found;
}

/* Opens a terminal of the container's own devpts for one of its users. It is checked: the container may have put in its own. */
static void open_terminal(struct session *session, uid_t uid)
{
    struct open_how how = {.flags = O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC,
                           .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    struct statfs where;
    int unlocked = 0;

    session->master = syscall(SYS_openat2, session->root, "dev/pts/ptmx", &how, sizeof how);
    if (session->master < 0 || fstatfs(session->master, &where) < 0 || where.f_type != DEVPTS_SUPER_MAGIC ||
        ioctl(session->master, TIOCSPTLCK, &unlocked) < 0)
        fail(&session->report, NOT_ENTERED, "the container has no usable /dev/pts");
    session->slave = ioctl(session->master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (session->slave < 0 || fchown(session->slave, outside(session->leader, uid), -1) < 0)
        fail(&session->report, NOT_ENTERED, "the container's /dev/pts: %m");
}

static void copy_size(const struct session *session)
{
    struct winsize size;

    if (session->master >= 0 && ioctl(STDIN_FILENO, TIOCGWINSZ, &size) == 0)
        ioctl(session->master, TIOCSWINSZ, &size);
}

static void make_raw(struct session *session)
{
    struct termios raw;

    if (tcgetattr(STDIN_FILENO, &session->saved) < 0)
        return;
    raw = session->saved;
    cfmakeraw(&raw);
    session->raw = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
}

/* ---- Inside ---- */

/* Takes over the limits and the OOM score of the container's processes, as far as this host lets us. */
static void take_limits(pid_t leader)
{
    char file[64], text[32];
    struct rlimit limit;

    for (int i = 0; i < RLIM_NLIMITS; i++)
        if (prlimit(leader, i, NULL, &limit) == 0)
            setrlimit(i, &limit);
    snprintf(file, sizeof file, "/proc/%d/oom_score_adj", leader);
    if (slurp(file, text, sizeof text) > 0)
        poke("/proc/self/oom_score_adj", text);
}

static void join_namespaces(const struct session *session)
{
    int spaces = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP;

    // Nobody inside may look into this process while it still has the host's memory and descriptors.
    must(&session->report, prctl(PR_SET_DUMPABLE, 0), "dumpable");
    must(&session->report, setns(session->leader_fd, spaces | (session->user_namespace ? CLONE_NEWUSER : 0)), "setns");
    must(&session->report, fchdir(session->root), "the container's root");
    must(&session->report, chroot("."), "chroot");
}

static void take_terminal(const struct session *session)
{
    must(&session->report, ioctl(session->slave, TIOCSCTTY, 0), "controlling terminal");
    for (int fd = 0; fd < 3; fd++)
        must(&session->report, dup2(session->slave, fd), "terminal");
}

static noreturn void child(struct session *session, const struct identity *who, char **argv)
{
    char procs[PATH_MAX];
    path(procs, "%s/cgroup.procs", session->cgroup);
    session->report.fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    must(&session->report, session->report.fd, "stderr");
    must(&session->report, poke(procs, "0"), session->cgroup);
    take_limits(session->leader);
    setsid();
    join_namespaces(session);
    if (session->slave >= 0)
        take_terminal(session);
    become(&session->report, who);
    default_signals();
    become_command(&session->report, who, argv, stand_in);
}

/* ---- Outside ---- */

/* Ends all that was started here, also what left its parent. */
static void kill_all(const struct session *session)
{
    char file[PATH_MAX];

    path(file, "%s/cgroup.kill", session->cgroup);
    poke(file, "1");
}

/* Takes one signal: whether the command has ended, its wait status in `status`. */
static bool take_signal(const struct session *session, int fd, pid_t pid, int *status)
{
    struct signalfd_siginfo info;

    if (read(fd, &info, sizeof info) != sizeof info)
        return false;
    if (info.ssi_signo == SIGCHLD)
        return waitpid(pid, status, WNOHANG) == pid;
    if (info.ssi_signo == SIGWINCH)
        copy_size(session);
    else
        kill_all(session);
    return false;
}

/* Terminal to client: false once nothing more can come. */
static bool pump_out(const struct session *session)
{
    char text[16384];
    ssize_t n = read(session->master, text, sizeof text);

    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    return n > 0 && write_all(STDOUT_FILENO, text, n) == 0;
}

/* Client to terminal, never waiting for it: a program that does not read must not hold up its output. */
static void pump_in(struct session *session)
{
    ssize_t n = write(session->master, session->input, session->input_size);

    if (n > 0) {
        session->input_size -= n;
        memmove(session->input, session->input + n, session->input_size);
    }
}

/* Until the command has ended: its wait status. Ends it when the reader of stdout or stderr is gone. */
static int watch(struct session *session, int signals, pid_t pid)
{
    enum { SIGNALS, OUT, ERR, IN, TERMINAL, COUNT };
    struct pollfd fds[COUNT] = {{signals, POLLIN, 0}, {STDOUT_FILENO, 0, 0}, {STDERR_FILENO, 0, 0},
                                {-1, POLLIN, 0}, {session->master, 0, 0}};
    bool more_input = session->master >= 0;
    int status = 0;

    for (;;) {
        fds[IN].fd = more_input && session->input_size == 0 ? STDIN_FILENO : -1;
        fds[TERMINAL].events = POLLIN | (session->input_size ? POLLOUT : 0);
        if (poll(fds, COUNT, -1) < 0)
            continue;
        for (int i = OUT; i <= ERR; i++)
            if (fds[i].revents) { // nothing is waited for there, so this is an error or a hang-up
                if (fds[i].revents & (POLLERR | POLLHUP))
                    kill_all(session);
                fds[i].fd = -1;
            }
        if (fds[IN].revents) {
            ssize_t n = read(STDIN_FILENO, session->input, sizeof session->input);
            session->input_size = n > 0 ? n : 0;
            more_input = n > 0;
        }
        if (fds[TERMINAL].revents & POLLOUT)
            pump_in(session);
        if (fds[TERMINAL].revents & ~POLLOUT && !pump_out(session))
            fds[TERMINAL].fd = -1;
        if (fds[SIGNALS].revents && take_signal(session, signals, pid, &status))
            return status;
    }
}

/* Kills what the command left, sends on what its terminal still holds, and removes the cgroup; END_MS at most for each. */
static void finish(struct session *session)
{
    struct pollfd terminal = {session->master, POLLIN, 0};
    const struct timespec pause = {0, 1000000};
    long long deadline = monotonic_ms() + END_MS;

    kill_all(session);
    while (session->master >= 0 && monotonic_ms() < deadline && poll(&terminal, 1, 100) >= 0 && pump_out(session))
        ;
    if (session->raw)
        tcsetattr(STDIN_FILENO, TCSANOW, &session->saved);
    for (deadline = monotonic_ms() + END_MS; rmdir(session->cgroup) < 0 && errno == EBUSY && monotonic_ms() < deadline;)
        nanosleep(&pause, NULL);
}

/* Starts the command in a cgroup of its own. This process stays outside of it and of all namespaces. */
static pid_t start(struct session *session, const struct identity *who, char **argv)
{
    if (mkdir(session->cgroup, 0755) < 0)
        fail(&session->report, NOT_ENTERED, "%s: %m", session->cgroup);
    pid_t pid = setns(session->processes, CLONE_NEWPID) < 0 ? -1 : fork(); // into the PID namespace go only children
    if (pid == 0)
        child(session, who, argv);
    if (pid < 0) {
        rmdir(session->cgroup);
        fail(&session->report, NOT_ENTERED, "the container's PID namespace: %m");
    }
    close(session->slave);
    return pid;
}

int exec(int argc, char **argv)
{
    static struct session session = {.report = {.fd = STDERR_FILENO}, .master = -1, .slave = -1};
    static struct identity who;
    struct attempt attempt;
    char unit[PATH_MAX];

    if (argc < 7 || strcmp(argv[5], "--") != 0)
        die(64, "exec RUNFILE SPEC N NONCE tty|notty -- ARGV...");
    session.report.mark = argv[3];
    if (load_attempt(argv[0], &attempt) < 0 || cgroup_dir(attempt.cgroup, unit) < 0)
        fail(&session.report, NOT_ENTERED, "the container does not run (%s: %m)", argv[0]);
    load_identity(&session.report, argv[1], &who);
    find_leader(&session, unit, atol(argv[2]));
    int signals = watch_signals();
    if (strcmp(argv[4], "tty") == 0) {
        open_terminal(&session, who.uid);
        copy_size(&session);
        make_raw(&session);
    }
    pid_t pid = start(&session, &who, argv + 6);
    if (session.master < 0)
        close(STDIN_FILENO); // the command's alone: whoever writes to it must learn that it was closed
    int status = watch(&session, signals, pid);
    finish(&session);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
