/* What a container reads, and who comes to it while it runs. The supervisor's side: a socket beside the `run` file, input from whoever
   comes, and word of where in the log "now" is. Output goes through the log alone, so nobody who reads slowly holds up the container.

   `vktool attach` is the other side: it follows the log from there, and sends on what its own standard input brings. */
#define _GNU_SOURCE
#include "vktool.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

enum { HEAD = 3, NOT_RUNNING = 3 };

/* ---- The supervisor's side ---- */

/* The address of the socket in an open directory: a container's own path may be longer than an address can be. */
static struct sockaddr_un address_in(int directory)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/attach", directory);
    return address;
}

/* The directory that a file is in, open. */
static int directory_of(const char *file)
{
    char directory[PATH_MAX];
    const char *name = strrchr(file, '/');

    path(directory, "%.*s/", name ? (int)(name - file) : 1, name ? file : ".");
    return open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

void open_door(struct door *door, const char *runfile)
{
    int directory = directory_of(runfile);
    struct sockaddr_un address = address_in(directory);

    for (int i = 0; i < GUESTS; i++)
        door->guests[i].fd = -1;
    unlinkat(directory, "attach", 0);
    door->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mode_t before = umask(0177);
    if (directory < 0 || door->listener < 0 || bind(door->listener, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(door->listener, GUESTS) < 0)
        die(1, "no socket to attach to beside %s: %m", runfile);
    umask(before);
    close(directory);
}

bool has_guests(const struct door *door)
{
    for (int i = 0; i < GUESTS; i++)
        if (door->guests[i].fd >= 0)
            return true;
    return false;
}

void door_fds(const struct door *door, struct pollfd *fds)
{
    fds[0] = (struct pollfd){door->listener, POLLIN, 0};
    fds[1] = (struct pollfd){door->input, door->pending ? POLLOUT : 0, 0};
    for (int i = 0; i < GUESTS; i++)
        fds[2 + i] = (struct pollfd){door->guests[i].fd, door->pending ? 0 : POLLIN, 0};
}

static void close_input(struct door *door)
{
    if (door->input >= 0 && !door->tty)
        close(door->input); // a terminal stays: its output goes on
    door->input = -1;
    door->pending = 0;
}

/* Writes what the container has room for. It may never read: nothing here waits for it. */
static void push_input(struct door *door)
{
    ssize_t n = door->pending && door->input >= 0 ? write(door->input, door->text, door->pending) : 0;

    if (n > 0) {
        door->pending -= n;
        memmove(door->text, door->text + n, door->pending);
    } else if (n < 0 && errno != EAGAIN && errno != EINTR)
        close_input(door); // nobody reads it any more
    if (door->closing && !door->pending)
        close_input(door);
}

/* A guest sends nothing more, or is gone. As containerd: with stdinOnce its end is the container's, else the session's. */
static void end_feeding(struct door *door, struct guest *guest)
{
    if (!guest->feeds)
        return;
    guest->feeds = false;
    if (door->once && !door->tty) {
        door->closing = true;
        push_input(door);
    } else if (door->reads) {
        close(guest->fd);
        guest->fd = -1;
    }
}

static void dismiss(struct door *door, struct guest *guest)
{
    end_feeding(door, guest);
    if (guest->fd >= 0)
        close(guest->fd);
    guest->fd = -1;
}

static void resize(const struct door *door, const unsigned char *text)
{
    struct winsize size = {.ws_row = text[0] << 8 | text[1], .ws_col = text[2] << 8 | text[3]};

    if (door->tty && door->terminal >= 0)
        ioctl(door->terminal, TIOCSWINSZ, &size);
}

/* One whole frame: a kind, the length of what follows in two bytes, and that. */
static void take_frame(struct door *door, struct guest *guest, const unsigned char *frame, size_t size)
{
    if (*frame == 'i') {
        guest->feeds = true;
        if (door->input < 0 || door->closing)
            return;
        memcpy(door->text, frame + HEAD, size);
        door->pending = size;
        push_input(door);
    } else if (*frame == 's' && size == 4)
        resize(door, frame + HEAD);
    else if (*frame == 'c')
        end_feeding(door, guest);
}

/* Takes frames until one waits for the container to read. */
static void take_frames(struct door *door, struct guest *guest)
{
    while (guest->fd >= 0 && !door->pending && guest->have >= HEAD) {
        size_t size = guest->text[1] << 8 | guest->text[2];
        if (HEAD + size > sizeof guest->text) {
            dismiss(door, guest); // not one of ours
            return;
        }
        if (guest->have < HEAD + size)
            return;
        take_frame(door, guest, guest->text, size);
        guest->have -= HEAD + size;
        memmove(guest->text, guest->text + HEAD + size, guest->have);
    }
}

static void hear_guest(struct door *door, struct guest *guest, short events)
{
    ssize_t n = events & POLLIN ? read(guest->fd, guest->text + guest->have, sizeof guest->text - guest->have) : 0;

    if (n > 0) {
        guest->have += n;
        take_frames(door, guest);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        dismiss(door, guest);
}

static bool let_in(struct door *door)
{
    int fd = accept4(door->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    for (int i = 0; fd >= 0 && i < GUESTS; i++)
        if (door->guests[i].fd < 0) {
            door->guests[i] = (struct guest){.fd = fd};
            return true;
        }
    if (fd >= 0)
        close(fd);
    return false;
}

bool tend_door(struct door *door, const struct pollfd *fds)
{
    if (fds[1].revents & POLLOUT)
        push_input(door);
    else if (fds[1].revents && !door->tty)
        close_input(door);
    for (int i = 0; i < GUESTS; i++) {
        struct guest *guest = &door->guests[i];
        if (guest->fd >= 0 && guest->fd == fds[2 + i].fd && fds[2 + i].revents)
            hear_guest(door, guest, fds[2 + i].revents);
        else if (guest->fd >= 0)
            take_frames(door, guest);
    }
    return fds[0].revents && let_in(door);
}

void greet(struct door *door, long attempt, long long now)
{
    for (int i = 0; i < GUESTS; i++) {
        struct guest *guest = &door->guests[i];
        if (guest->fd >= 0 && !guest->greeted)
            dprintf(guest->fd, "%ld %lld\n", attempt, now);
        guest->greeted = true;
    }
}

/* ---- The client's side ---- */

static int connect_to(const char *runfile)
{
    int directory = directory_of(runfile);
    struct sockaddr_un address = address_in(directory);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (directory < 0 || fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        exit(NOT_RUNNING);
    close(directory);
    return fd;
}

/* What the supervisor says first: the attempt, and where in its log "now" is. */
static void hear_greeting(int fd, long *attempt, long long *now)
{
    char text[64];
    size_t have = 0;
    ssize_t n = 1;

    while (have < sizeof text - 1 && (have == 0 || text[have - 1] != '\n') && (n = read(fd, text + have, 1)) > 0)
        have++;
    text[have] = '\0';
    if (sscanf(text, "%ld %lld\n", attempt, now) != 2)
        exit(NOT_RUNNING); // it ended in this moment
}

/* Sends on what comes, in a process of its own: a client that does not read its output may still press Ctrl-C. */
static pid_t start_pump(int fd)
{
    char text[4096];
    ssize_t n;
    pid_t pid = fork();

    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while ((n = read(STDIN_FILENO, text, sizeof text)) > 0 && write_all(fd, text, n) == 0)
        ;
    _exit(0);
}

int attach(int argc, char **argv)
{
    long attempt;
    long long now;

    if (argc != 2)
        die(64, "attach RUNFILE LOGDIR");
    signal(SIGPIPE, SIG_IGN);
    int fd = connect_to(argv[0]);
    hear_greeting(fd, &attempt, &now);
    pid_t pump = start_pump(fd);
    if (pump < 0)
        die(1, "fork: %m");
    follow_from(argv[1], attempt, now, fd);
    kill(pump, SIGKILL);
    return 0;
}
