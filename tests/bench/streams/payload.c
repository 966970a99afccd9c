/* What the streams of a benchmark come from and go to, as one static program: `true`; `lines BYTES`; `ticks RATE SECONDS`, a line each with
   its number and the time (ns, realtime); `serve PORT`: the first byte of a connection says what it is: `e` echoes, `s` and a number
   of 4 bytes sends so many MiB, and closes. Else it waits. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { LINE = 100, BLOCK = 640 * LINE };
static char block[BLOCK];

static void put(int fd, const char *from, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, from, size);
        if (n <= 0)
            _exit(1);
        from += n;
        size -= n;
    }
}

static int lines(long left)
{
    for (size_t i = 0; i < BLOCK; i++)
        block[i] = i % LINE == LINE - 1 ? '\n' : 'a' + i % 26;
    for (; left > 0; left -= BLOCK)
        put(1, block, left < BLOCK ? left : BLOCK);
    return 0;
}

static int ticks(long rate, long seconds)
{
    struct timespec next, now;
    char line[64];

    clock_gettime(CLOCK_MONOTONIC, &next);
    for (long i = 0; i < rate * seconds; i++) {
        next.tv_nsec += 1000000000L / rate;
        if (next.tv_nsec >= 1000000000L)
            next.tv_nsec -= 1000000000L, next.tv_sec++;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
        clock_gettime(CLOCK_REALTIME, &now);
        put(1, line, snprintf(line, sizeof line, "%ld %ld%09ld\n", i, now.tv_sec, now.tv_nsec));
    }
    return 0;
}

static void answer(int client)
{
    int one = 1;
    ssize_t n = read(client, block, 1);

    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (n == 1 && block[0] == 's') {
        uint32_t mib;
        if (recv(client, &mib, sizeof mib, MSG_WAITALL) != sizeof mib)
            return;
        for (long left = (long)ntohl(mib) << 20; left > 0; left -= BLOCK)
            put(client, block, left < BLOCK ? left : BLOCK);
        return;
    }
    while (n > 0 && (n = read(client, block, BLOCK)) > 0)
        put(client, block, n);
}

static void serve(int port)
{
    struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    int listener = socket(AF_INET6, SOCK_STREAM, 0), one = 1;

    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&any, sizeof any) < 0 || listen(listener, 256) < 0)
        _exit(1);
    for (int client; (client = accept(listener, NULL, NULL)) >= 0; close(client))
        if (fork() == 0) {
            answer(client);
            _exit(0);
        }
}

int main(int argc, char **argv)
{
    signal(SIGCHLD, SIG_IGN);
    signal(SIGTERM, SIG_DFL);
    if (argc == 2 && strcmp(argv[1], "true") == 0)
        return 0;
    if (argc == 3 && strcmp(argv[1], "lines") == 0)
        return lines(atol(argv[2]));
    if (argc == 4 && strcmp(argv[1], "ticks") == 0)
        return ticks(atol(argv[2]), atol(argv[3]));
    if (argc == 3 && strcmp(argv[1], "serve") == 0)
        serve(atoi(argv[2]));
    for (;;)
        pause();
}
