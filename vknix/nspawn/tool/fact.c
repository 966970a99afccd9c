/* `vktool fact`: how one attempt ended, as one line that outlives unit, journal and reboot. Right also where `run` was killed
   before it wrote anything. */
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
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MESSAGE = 4096, LOG_LINES = 80, LOG_BYTES = 2048, JOURNAL_MS = 5000 };

/* What is known of the end; all strings are of systemd's words. */
struct end {
    const char *id, *result, *code, *status;
    char signal[32]; // KILL, TERM, ..., or its number; START where the program never ran
    bool oom;
    char message[MESSAGE];
    size_t message_size;
};

static const char *variable(const char *name)
{
    const char *value = getenv(name);

    return value ? value : "";
}

/* Reads `fd` until its end or the deadline: how many bytes. */
static size_t read_until(int fd, char *out, size_t size, long long deadline)
{
    struct pollfd end = {fd, POLLIN, 0};
    size_t have = 0;
    ssize_t n = 1;

    while (n > 0 && have < size) {
        long long left = deadline - monotonic_ms();
        if (left <= 0 || poll(&end, 1, (int)left) <= 0)
            break;
        n = read(fd, out + have, size - have);
        have += n > 0 ? n : 0;
    }
    return have;
}

/* Runs a program and takes its output as a string; it is killed at the deadline. */
static void capture(char *const *argv, char *out, size_t size, long long deadline)
{
    int ends[2];

    *out = 0;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return;
    pid_t pid = fork();
    if (pid == 0) {
        dup2(ends[1], STDOUT_FILENO);
        execvp(argv[0], argv);
        _exit(127);
    }
    close(ends[1]);
    out[read_until(ends[0], out, size - 1, deadline)] = 0;
    close(ends[0]);
    if (pid > 0) {
        if (monotonic_ms() >= deadline)
            kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
}

/* The program never ran, and `line` says why. */
static void set_not_started(struct end *end, const char *line)
{
    strcpy(end->signal, "START");
    end->message_size = strcspn(line, "\n");
    if (end->message_size > sizeof end->message)
        end->message_size = sizeof end->message;
    memcpy(end->message, line, end->message_size);
}

/* What nspawn and `run` said in the journal. `began`: the program has run. `silent`: the container has said nothing. */
static void read_journal(struct end *end, const char *text, bool began, bool silent)
{
    static const char killed[] = " terminated by signal ";

    for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        const char *name = strncmp(line, "Container ", 10) == 0 ? strstr(line, killed) : NULL;
        if (name && name < line + strcspn(line, "\n")) {
            name += strlen(killed);
            snprintf(end->signal, sizeof end->signal, "%.*s", (int)strcspn(name, ".\n"), name);
        } else if (!began && (strncmp(line, "vktool: ", 8) == 0 ||
                              (silent && !*end->signal && strncmp(line, "Failed to ", 10) == 0)))
            set_not_started(end, line);
    }
}

/* nspawn exits 1 after `exit 1`, after a signal, and where the program could not start; its words tell which, but those of a program
   that has begun may be the same. A busy journal takes in the last ones when `child` is gone, and no longer knows of which invocation
   it was. */
static void read_verdict(struct end *end, const char *log, const struct attempt *attempt)
{
    static char text[65536];
    char match[128], process[32];
    char *sync[] = {"journalctl", "--sync", NULL};
    char *query[] = {"journalctl", "-q", "-b", "-n", "20", "-o", "cat", match, "+", process, "SYSLOG_IDENTIFIER=systemd-nspawn", NULL};
    long long deadline = monotonic_ms() + JOURNAL_MS;

    // Inside the container nspawn can't reach the journal, and `mount` has but its program's stderr: their last words are then the
    // only ones of the log.
    ssize_t size = slurp(log, text, sizeof text);
    bool one_line = !attempt->began && size > PREFIX && memchr(text, '\n', size) == text + size - 1;
    if (one_line && (strncmp(text + PREFIX, "vktool: ", 8) == 0 ||
                     (strncmp(text + PREFIX, "execv(", 6) == 0 && strstr(text, ") failed: ")))) {
        set_not_started(end, text + PREFIX);
        return;
    }
    snprintf(match, sizeof match, "_SYSTEMD_INVOCATION_ID=%s", end->id);
    snprintf(process, sizeof process, "_PID=%d", (int)attempt->child);
    capture(sync, text, sizeof text, deadline); // what nspawn said last may not have been taken in yet
    capture(query, text, sizeof text, deadline);
    read_journal(end, text, attempt->began, size <= 0);
}

/* The last bytes that the container left in its termination log. */
static void read_termination_log(struct end *end, const char *file)
{
    int fd = open(file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);

    if (size > 0) {
        ssize_t n = pread(fd, end->message, MESSAGE, size > MESSAGE ? size - MESSAGE : 0);
        end->message_size = n > 0 ? n : 0;
    }
    close(fd);
}

static void read_message(struct end *end, const char *termination_log, const char *logs, long attempt, bool fallback)
{
    bool failed = strcmp(end->code, "exited") != 0 || strcmp(end->status, "0") != 0;

    if (strcmp(end->signal, "START") == 0)
        return;
    read_termination_log(end, termination_log);
    if (end->message_size == 0 && fallback && failed) {
        ssize_t n = tail_text(logs, attempt, LOG_LINES, end->message, LOG_BYTES);
        end->message_size = n > 0 ? n : 0;
    }
}

/* Whether the kernel killed something in the unit's cgroup for want of memory. */
static bool ran_out_of_memory(const char *cgroup)
{
    char directory[PATH_MAX], file[PATH_MAX], text[1024];
    const char *count;

    if (strcmp(variable("SERVICE_RESULT"), "oom-kill") == 0)
        return true;
    if (!*cgroup || cgroup_dir(cgroup, directory) < 0)
        return false;
    path(file, "%s/memory.events", directory);
    return slurp(file, text, sizeof text) > 0 && (count = strstr(text, "\noom_kill ")) && atol(count + 10) > 0;
}

/* Appends a member of a JSON object, the string escaped. */
static void put_string(FILE *out, const char *name, const char *text)
{
    fprintf(out, "\"%s\":\"", name);
    for (; *text; text++)
        fprintf(out, strchr("\"\\", *text) || (unsigned char)*text < ' ' ? "\\u%04x" : "%c", *text);
    fputs("\",", out);
}

static void put_base64(FILE *out, const char *text, size_t size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *p = (const unsigned char *)text;

    for (size_t i = 0; i < size; i += 3) {
        unsigned long word = p[i] << 16 | (i + 1 < size ? p[i + 1] << 8 : 0) | (i + 2 < size ? p[i + 2] : 0);
        char group[5] = {digits[word >> 18], digits[word >> 12 & 63], digits[word >> 6 & 63], digits[word & 63], 0};
        if (i + 2 >= size)
            group[3] = '=';
        if (i + 1 >= size)
            group[2] = '=';
        fputs(group, out);
    }
}

/* Appends the line and waits until the disk has it. A torn line of a crash is ended first. */
static void write_fact(const char *file, const struct end *end, const struct attempt *attempt, bool torn)
{
    char *line;
    size_t size;
    FILE *out = open_memstream(&line, &size);

    fprintf(out, "%s{\"attempt\":%ld,", torn ? "\n" : "", attempt->number);
    put_string(out, "id", end->id);
    if (attempt->started_ns)
        fprintf(out, "\"started\":%lld,", attempt->started_ns);
    else
        fputs("\"started\":null,", out);
    fprintf(out, "\"finished\":%lld,", now_ns());
    put_string(out, "result", end->result);
    put_string(out, "code", end->code);
    put_string(out, "status", end->status);
    put_string(out, "signal", end->signal);
    fprintf(out, "\"oom\":%s,\"message\":\"", end->oom ? "true" : "false");
    put_base64(out, end->message, end->message_size);
    fputs("\"}\n", out);
    fclose(out);

    int fd = open(file, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 || write_all(fd, line, size) < 0 || fsync(fd) < 0)
        die(1, "%s: %m", file);
}

/* nspawn that was killed leaves these, and refuses its next start for the first of them. */
static void remove_leftovers(const char *machine, const char *root)
{
    char directory[PATH_MAX], lock[PATH_MAX];
    struct stat of;

    path(directory, "/run/systemd/nspawn/unix-export/%s", machine);
    umount2(directory, MNT_DETACH | UMOUNT_NOFOLLOW);
    rmdir(directory);
    path(directory, "/run/systemd/nspawn/propagate/%s", machine);
    rmdir(directory);
    if (stat(root, &of) == 0) {
        path(lock, "/run/systemd/nspawn/locks/inode-%lu:%lu", (unsigned long)of.st_dev, (unsigned long)of.st_ino);
        unlink(lock);
    }
}

int fact(int argc, char **argv)
{
    static struct end end;
    struct attempt attempt;
    char *last, wanted[128], log[PATH_MAX], root[PATH_MAX];

    tell_systemd("EXTEND_TIMEOUT_USEC=30000000"); // a Pod's grace may be shorter than the journal takes to answer
    if (argc != 6)
        die(64, "fact LOGDIR FACTS TERMLOG RUNFILE MACHINE file|fallback");
    end.id = variable("INVOCATION_ID");
    end.result = variable("SERVICE_RESULT");
    end.code = variable("EXIT_CODE");
    end.status = variable("EXIT_STATUS");
    if (load_attempt(argv[3], &attempt) < 0 || strcmp(attempt.id, end.id) != 0)
        attempt = (struct attempt){0}; // `run` did not come as far as writing it
    attempt.number = count_facts(argv[1], &last);
    if (attempt.number < 0)
        die(1, "%s: %m", argv[1]);
    snprintf(wanted, sizeof wanted, "\"id\":\"%s\"", end.id);
    if (last && strstr(last, wanted))
        return 0;
    bool torn = attempt.number > 0 && last[strlen(last) - 1] != '\n';

    path(log, "%s/%ld.log", argv[0], attempt.number);
    if (strcmp(end.code, "killed") == 0 || strcmp(end.code, "dumped") == 0)
        snprintf(end.signal, sizeof end.signal, "%s", end.status);
    else if (attempt.signal)
        snprintf(end.signal, sizeof end.signal, "%d", attempt.signal);
    else if (strcmp(end.status, "1") == 0)
        read_verdict(&end, log, &attempt);
    read_message(&end, argv[2], argv[0], attempt.number, strcmp(argv[5], "fallback") == 0);
    end.oom = ran_out_of_memory(attempt.cgroup);
    write_fact(argv[1], &end, &attempt, torn);
    path(root, "%s/../root", argv[0]);
    remove_leftovers(argv[4], root);
    unlink(argv[3]);
    return 0;
}
