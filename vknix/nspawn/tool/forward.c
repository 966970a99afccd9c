/* `vktool forward`: what listens on localhost in a Pod's network namespace, behind a socket that only root on the host can reach.

   A process for each connection, so that none holds up another and the kernel ends them all with their parent. */
#define _GNU_SOURCE
#include "vktool.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { NOT_THERE = 3, ROOM = 131072, TURNS = 16, LOOK_MS = 250, BACKLOG = 4096 };

/* One direction of a connection. `text` from `at` to `have` is still to be written. */
struct flow {
    int from, to;
    bool ended, passed_on; // no more comes; and the other side has been told
    size_t at, have;
    char text[ROOM];
};

static bool is_stuck(const struct flow *flow)
{
    return flow->at < flow->have;
}

/* Moves what can be moved now, for some turns; false where the connection is broken. */
static bool move(struct flow *flow)
{
    for (int turn = 0; turn < TURNS; turn++) {
        if (is_stuck(flow)) {
            ssize_t n = send(flow->to, flow->text + flow->at, flow->have - flow->at, MSG_NOSIGNAL);
            if (n < 0)
                return errno == EAGAIN || errno == EINTR;
            flow->at += n;
            continue;
        }
        if (flow->ended)
            break;
        ssize_t n = recv(flow->from, flow->text, sizeof flow->text, 0);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        flow->ended = n == 0;
        flow->at = 0;
        flow->have = n;
    }
    if (flow->ended && !is_stuck(flow) && !flow->passed_on) {
        flow->passed_on = true;
        return shutdown(flow->to, SHUT_WR) == 0;
    }
    return true;
}

/* Whether the client's side reads no more: sshd shuts that down when the client has closed, also while it still has bytes for us. */
static bool is_abandoned(int client)
{
    return send(client, "", 0, MSG_NOSIGNAL) < 0 && errno == EPIPE;
}

/* Ends a connection whose other side has not taken what it was sent: an ordinary close would wait for that. */
static void reset(int target)
{
    setsockopt(target, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 1}, sizeof(struct linger));
}

/* Both directions until both have ended, or one side is gone. */
static void pump(int client, int target)
{
    static struct flow in, out;

    in.from = out.to = client;
    in.to = out.from = target;
    while (!(in.passed_on && out.passed_on)) {
        struct pollfd fds[] = {{client, 0, 0}, {target, 0, 0}};
        if (!is_stuck(&in) && !in.ended)
            fds[0].events |= POLLIN;
        if (!is_stuck(&out) && !out.ended)
            fds[1].events |= POLLIN;
        if (is_stuck(&in))
            fds[1].events |= POLLOUT;
        if (is_stuck(&out))
            fds[0].events |= POLLOUT;
        // A hang-up can't be masked: who has said all is looked at only where that means something.
        if (!fds[0].events && out.passed_on)
            fds[0].fd = -1;
        if (!fds[1].events)
            fds[1].fd = -1;
        bool abandoned = poll(fds, 2, is_stuck(&in) ? LOOK_MS : -1) == 0 && !out.ended && is_abandoned(client);
        if (fds[0].revents & (POLLHUP | POLLERR) && !out.passed_on && (in.ended || is_stuck(&in)))
            abandoned = true; // it has closed, and what it had sent before is written or never will be
        if (abandoned && is_stuck(&in))
            reset(target);
        if (abandoned)
            return;
        if (!move(&in) || !move(&out))
            return;
    }
}

/* Connects, unless the client goes first: an errno, 0 once it is connected. */
static int dial(int fd, const struct sockaddr *address, socklen_t size, int client)
{
    int error = 0;
    socklen_t length = sizeof error;

    if (connect(fd, address, size) == 0)
        return 0;
    if (errno != EINPROGRESS)
        return errno;
    for (;;) {
        struct pollfd fds[] = {{fd, POLLOUT, 0}, {client, POLLRDHUP, 0}};
        if (poll(fds, 2, -1) < 0)
            continue;
        if (fds[1].revents)
            return ECANCELED;
        if (fds[0].revents)
            return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0 ? errno : error;
    }
}

/* A socket that is connected to localhost: -1 where nobody listens, and then `why` says so. */
static int dial_localhost(uint16_t port, int client, char *why, size_t size)
{
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    const struct {
        const char *name, *shown;
        int family;
        const struct sockaddr *address;
        socklen_t size;
    } each[] = {{"tcp4", "127.0.0.1", AF_INET, (struct sockaddr *)&four, sizeof four},
                {"tcp6", "[::1]", AF_INET6, (struct sockaddr *)&six, sizeof six}};
    size_t used = 0;

    for (int i = 0; i < 2; i++) {
        int fd = socket(each[i].family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;
        int error = fd < 0 ? errno : dial(fd, each[i].address, each[i].size, client);
        if (error == 0) {
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            return fd;
        }
        close(fd);
        char text[64];
        snprintf(text, sizeof text, "%s", strerror(error));
        text[0] = tolower(text[0]);
        used += snprintf(why + used, size - used, "%sdial %s %s:%d: connect: %s", i ? ", " : "", each[i].name, each[i].shown, port,
                         text);
    }
    return -1;
}

/* One connection: the port in two bytes comes in; a byte goes out, 0 before what the port says, else 1 before why it can't be had. */
static noreturn void serve(int client, pid_t parent)
{
    unsigned char port[2];
    char why[256] = "\1";

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || recv(client, port, sizeof port, MSG_WAITALL) != sizeof port)
        _exit(1);
    int target = dial_localhost(port[0] << 8 | port[1], client, why + 1, sizeof why - 1);
    if (target < 0) {
        send(client, why, strlen(why), MSG_NOSIGNAL);
        _exit(1);
    }
    if (send(client, "", 1, MSG_NOSIGNAL) != 1 || fcntl(client, F_SETFL, O_NONBLOCK) < 0)
        _exit(1);
    pump(client, target);
    _exit(0);
}

static int listen_at(const char *file)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (strlen(file) >= sizeof address.sun_path)
        die(64, "%s: too long for a socket", file);
    strcpy(address.sun_path, file);
    umask(0177);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, BACKLOG) < 0)
        die(NOT_THERE, "%s: %m", file);
    return fd;
}

static void enter_network(const char *netns)
{
    if (strcmp(netns, "-") == 0)
        return;
    int fd = open(netns, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNET) < 0)
        die(NOT_THERE, "%s: %m", netns);
    close(fd);
}

int forward(int argc, char **argv)
{
    char text[64];

    if (argc != 2)
        die(64, "forward NETNS SOCKET");
    enter_network(argv[0]);
    int listener = listen_at(argv[1]);
    pid_t self = getpid();
    signal(SIGCHLD, SIG_IGN); // the kernel reaps them
    write_all(STDOUT_FILENO, "ready\n", 6);
    for (;;) {
        struct pollfd fds[] = {{STDIN_FILENO, POLLIN, 0}, {listener, POLLIN, 0}};
        poll(fds, 2, 4 * LOOK_MS);
        if (access(argv[1], F_OK) < 0)
            return 0; // with the Pod
        if (fds[0].revents && read(STDIN_FILENO, text, sizeof text) <= 0)
            break;
        int client = fds[1].revents ? accept4(listener, NULL, NULL, SOCK_CLOEXEC) : -1;
        if (client >= 0 && fork() == 0) {
            close(listener);
            serve(client, self);
        }
        close(client);
    }
    unlink(argv[1]);
    return 0;
}
