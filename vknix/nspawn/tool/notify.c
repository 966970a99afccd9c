/* What nspawn tells systemd passes through here. nspawn says READY=1 just before it executes the program; that is held back until
   the program runs, so that a unit whose program can't be executed is never active. */
#define _GNU_SOURCE
#include "vktool.h"

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KEPT = 133 }; // what nspawn itself exits with for a reboot; a program that does is reported as 1

/* As in linux/pidfd.h, which may be older than the kernel. */
struct process_info {
    uint64_t mask, cgroup;
    uint32_t ids[11];
    int32_t exit_code;
};
#define GET_INFO _IOWR(0xFF, 11, struct process_info)
enum { INFO_EXIT = 1 << 3 };

static const char READY[] = "READY=1", LEADER[] = "X_NSPAWN_LEADER_PID=";

/* Sends one message to systemd; where that fails nobody waits for it. */
static void pass_on(const struct notify *notify, const char *text, size_t size)
{
    if (size > 0)
        sendto(notify->fd, text, size, MSG_NOSIGNAL, (const struct sockaddr *)&notify->systemd, notify->systemd_size);
}

/* Takes the address of systemd's socket; false where there is none. */
static bool find_systemd(struct notify *notify)
{
    const char *systemd = getenv("NOTIFY_SOCKET");

    if (!systemd || !*systemd || strlen(systemd) >= sizeof notify->systemd.sun_path)
        return false;
    notify->systemd.sun_family = AF_UNIX;
    memcpy(notify->systemd.sun_path, systemd, strlen(systemd));
    notify->systemd_size = offsetof(struct sockaddr_un, sun_path) + strlen(systemd);
    if (*systemd == '@')
        notify->systemd.sun_path[0] = '\0';
    return true;
}

void open_notify(struct notify *notify, const char *unit, const char *run_file)
{
    struct sockaddr_un own = {.sun_family = AF_UNIX};
    socklen_t size = sizeof own.sun_family; // no name: the kernel gives one that nobody has
    char name[sizeof own.sun_path + 1];
    int on = 1;

    notify->fd = -1;
    notify->unit = unit;
    notify->run_file = run_file;
    if (!find_systemd(notify)) {
        finish_limits(unit, run_file);
        return;
    }
    notify->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (notify->fd < 0 || setsockopt(notify->fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) < 0 ||
        bind(notify->fd, (struct sockaddr *)&own, size) < 0)
        die(1, "no socket for nspawn's word: %m");
    size = sizeof own;
    if (getsockname(notify->fd, (struct sockaddr *)&own, &size) < 0)
        die(1, "no socket for nspawn's word: %m");
    size_t length = size - offsetof(struct sockaddr_un, sun_path) - 1;
    snprintf(name, sizeof name, "@%.*s", (int)length, own.sun_path + 1);
    setenv("NOTIFY_SOCKET", name, 1);
}

/* Notes what `sender` says of the start and passes on the rest, line by line. */
static void hear(struct notify *notify, char *text, pid_t sender)
{
    char rest[4096];
    size_t used = 0;

    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        size_t size = strlen(line);
        if (strcmp(line, READY) == 0)
            notify->held = true;
        else if (strncmp(line, LEADER, sizeof LEADER - 1) == 0)
            notify->leader = find_child(sender, (pid_t)atol(line + sizeof LEADER - 1));
        else if (used + size + 1 <= sizeof rest)
            used += snprintf(rest + used, sizeof rest - used, "%s%s", used ? "\n" : "", line);
    }
    pass_on(notify, rest, used);
}

void take_notify(struct notify *notify)
{
    char text[4096], control[CMSG_SPACE(sizeof(struct ucred))];
    struct iovec part = {text, sizeof text - 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t n = recvmsg(notify->fd, &message, MSG_CMSG_CLOEXEC);
    struct cmsghdr *header = n > 0 ? CMSG_FIRSTHDR(&message) : NULL;

    if (!header || header->cmsg_type != SCM_CREDENTIALS)
        return;
    const struct ucred *sender = (const struct ucred *)CMSG_DATA(header);
    if (sender->uid != geteuid())
        return;
    text[n] = '\0';
    hear(notify, text, sender->pid);
}

/* Whether the machine's first process has become something else than what started it. */
static bool program_runs(pid_t leader, pid_t starter)
{
    char file[64];
    struct stat before, now;

    snprintf(file, sizeof file, "/proc/%d/exe", (int)starter);
    if (stat(file, &before) < 0)
        return false;
    snprintf(file, sizeof file, "/proc/%d/exe", (int)leader);
    return stat(file, &now) == 0 && (now.st_dev != before.st_dev || now.st_ino != before.st_ino);
}

void take_report(struct notify *notify)
{
    char text[PATH_MAX + 256], control[CMSG_SPACE(sizeof(int))];
    struct iovec part = {text, sizeof text - 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t n = recvmsg(notify->report, &message, MSG_CMSG_CLOEXEC);
    struct cmsghdr *header = n > 0 ? CMSG_FIRSTHDR(&message) : NULL;

    if (header && header->cmsg_type == SCM_RIGHTS && notify->process < 0) {
        memcpy(&notify->process, CMSG_DATA(header), sizeof notify->process);
        notify->heard = true;
        return;
    }
    close(notify->report);
    notify->report = -1;
    notify->running = n == 0 && notify->heard; // without a word, nspawn has gone before it came to `init`
    notify->failed = n > 0;
    if (n > 0)
        write_all(STDERR_FILENO, text, n);
}

static void say_ready(struct notify *notify)
{
    finish_limits(notify->unit, notify->run_file);
    pass_on(notify, READY, sizeof READY - 1);
    notify->held = false;
}

void hold_ready(struct notify *notify, pid_t child, int report)
{
    notify->held = notify->heard = true;
    notify->report = report;
    notify->leader = child;
}

void check_ready(struct notify *notify, pid_t starter)
{
    if (!notify->held || notify->report >= 0 || notify->failed)
        return;
    notify->running |= notify->leader && program_runs(notify->leader, starter);
    if (notify->running || !notify->leader)
        say_ready(notify);
}

/* How the machine's first process ended, where the kernel still knows (from 6.15 on); else `status`, which is nspawn's. Where `init` was
   stopped before it could show itself there is but one way to what nspawn says then. */
static int own_end(const struct notify *notify, int status)
{
    struct process_info info = {.mask = INFO_EXIT};
    int process = notify->process;

    if (notify->init && process < 0 && WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == KEPT))
        return WEXITSTATUS(status) == 0 ? SIGINT : SIGHUP;
    if (process < 0 || ioctl(process, GET_INFO, &info) < 0 || !(info.mask & INFO_EXIT))
        return status;
    return info.exit_code;
}

/* nspawn's own end says something else where the program exited with the code that nspawn keeps for itself, and where it died by a
   signal: nspawn tells 1, and a reboot (that code) for SIGHUP, a power-off (0) for SIGINT. `signal`: which one. */
static int translate(int status, int end, int *signal)
{
    int told = WIFEXITED(status) ? WEXITSTATUS(status) : -1;

    if (told == 1 && WIFEXITED(end) && WEXITSTATUS(end) == KEPT)
        return end;
    if ((told != KEPT && told != 0 && told != 1) || !WIFSIGNALED(end))
        return status;
    *signal = WTERMSIG(end);
    return (128 + *signal) << 8;
}

int end_notify(struct notify *notify, int status, int *signal)
{
    while (notify->report >= 0)
        take_report(notify);
    status = translate(status, own_end(notify, status), signal);
    if (notify->fd < 0)
        return status;
    take_notify(notify); // READY and what came with it are two messages
    take_notify(notify);
    if (notify->held && WIFEXITED(status) && WEXITSTATUS(status) == 0)
        say_ready(notify); // it ran and was done before it was looked at; systemd would call that a failure
    close(notify->fd);
    return status;
}

void tell_systemd(const char *text)
{
    struct notify notify = {.fd = -1};

    if (find_systemd(&notify) && (notify.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) >= 0)
        pass_on(&notify, text, strlen(text));
    close(notify.fd);
}
