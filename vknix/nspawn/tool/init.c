/* `vktool init`: the first process of a container, between nspawn and the program. It still has all capabilities, in the container's
   namespaces; it does what is left to do there, gives up what the container has not, and becomes the program. */
#define _GNU_SOURCE
#include "vktool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LOCKED = MS_NOSUID | MS_NODEV | MS_NOEXEC };

/* What a container may not see of its kernel, and what it may only read: the lists of containerd and runc. */
static const char *const hidden[] = {
    "/proc/acpi",        "/proc/asound",     "/proc/interrupts", "/proc/kcore",         "/proc/keys",    "/proc/latency_stats",
    "/proc/sched_debug", "/proc/timer_list", "/proc/scsi",       "/proc/timer_stats",   "/sys/firmware", "/sys/devices/virtual/powercap",
};
static const char *const read_only[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};

/* `run` hears why the program does not run. */
static const struct report report = {.fd = PASS_REPORT, .code = 1, .mark = "vktool:"};

static void hide(const char *file)
{
    struct stat st;

    if (stat(file, &st) < 0)
        return;
    int rc = S_ISDIR(st.st_mode) ? mount("tmpfs", file, "tmpfs", MS_RDONLY | LOCKED, "size=0,mode=755")
                                 : mount("/dev/null", file, NULL, MS_BIND, NULL);
    if (rc < 0)
        fail(&report, NOT_ENTERED, "can't hide %s: %m", file);
}

static void protect(const char *file)
{
    struct statvfs st;

    if (statvfs(file, &st) < 0 || st.f_flag & ST_RDONLY)
        return;
    if (mount(file, file, NULL, MS_BIND | MS_REC, NULL) < 0 ||
        mount(NULL, file, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | LOCKED, NULL) < 0)
        fail(&report, NOT_ENTERED, "can't protect %s: %m", file);
}

/* /proc as the container is to see it: anew where the container is `among` others' processes, or nothing of it is to be hidden. */
static void set_proc(const struct identity *who, bool among)
{
    if ((among || is(who, UNMASKED)) && mount("proc", "/proc", "proc", LOCKED, NULL) < 0)
        fail(&report, NOT_ENTERED, "/proc: %m");
    if (is(who, UNMASKED))
        return;
    for (size_t i = 0; i < sizeof hidden / sizeof *hidden; i++)
        hide(hidden[i]);
    for (size_t i = 0; i < sizeof read_only / sizeof *read_only; i++)
        protect(read_only[i]);
}

/* Whether an entry of the host's /dev is none of its devices, or each container has its own. */
static bool is_own(const char *name)
{
    static const char *const own[] = {".", "..", "pts", "shm", "mqueue", "fd", "console", "ptmx", "hugepages"};

    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (strcmp(name, own[i]) == 0)
            return true;
    return false;
}

/* Makes the devices of the directory `from` in `to`, those that are not there; takes both over. */
static void copy_devices(int from, int to)
{
    DIR *dir = fdopendir(from);
    struct dirent *entry;
    struct stat st;

    while (dir && (entry = readdir(dir))) {
        const char *name = entry->d_name;
        if (is_own(name) || fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        if (S_ISDIR(st.st_mode)) {
            mkdirat(to, name, st.st_mode & 07777);
            int below = openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            int source = openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (below >= 0 && source >= 0)
                copy_devices(source, below);
        } else if ((S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)) && mknodat(to, name, st.st_mode, st.st_rdev) == 0 &&
                   (fchownat(to, name, st.st_uid, st.st_gid, 0) < 0 || fchmodat(to, name, st.st_mode & 07777, 0) < 0))
            fail(&report, NOT_ENTERED, "/dev/%s: %m", name);
    }
    if (dir)
        closedir(dir);
    close(to);
}

/* What a privileged container has of its host. */
static void take_host(void)
{
    copy_devices(PASS_DEVICES, open("/dev", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    mount(NULL, "/sys/fs/cgroup", NULL, MS_REMOUNT | MS_BIND | LOCKED, NULL); // where it is there at all
}

/* Shows a mount, with all in it, to the user namespace as if its users were the host's. */
static void map_users(const char *target)
{
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = PASS_USERS};
    int tree = open_tree(AT_FDCWD, target, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);

    if (tree < 0 || mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes, sizeof attributes) < 0 ||
        move_mount(tree, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        fail(&report, NOT_ENTERED, "%s can't be shown to the Pod's user namespace: %m", target);
    close(tree);
}

static bool is_mapped(const struct identity *who, const char *target)
{
    for (char **mapped = who->mapped; *mapped; mapped++)
        if (strcmp(*mapped, target) == 0)
            return true;
    return false;
}

/* Enters the Pod's user namespace. The mounts become those of a namespace below it, in which they can't be undone. */
static void enter_users(const struct identity *who)
{
    static const char *const made[] = {"/dev", "/run", "/tmp"}; // file systems of nspawn's own, unless a volume is there

    for (size_t i = 0; i < sizeof made / sizeof *made; i++)
        if (!is_mapped(who, made[i]) && chown(made[i], who->base, who->base) < 0 && errno != EROFS)
            fail(&report, NOT_ENTERED, "%s: %m", made[i]);
    for (char **target = who->mapped; *target; target++)
        map_users(*target);
    if (setns(PASS_USERS, CLONE_NEWUSER) < 0 || unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWCGROUP) < 0)
        fail(&report, NOT_ENTERED, "the Pod's user namespace: %m");
}

static noreturn void start(const struct identity *who, char **argv, bool among)
{
    // nspawn's mounts are peers of one another: what is put on one would be on all of its copies.
    if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
        fail(&report, NOT_ENTERED, "the container's mounts: %m");
    set_proc(who, among);
    if (is(who, PRIVILEGED) && !is(who, OWN_USERS))
        take_host();
    if (is(who, OWN_USERS))
        enter_users(who);
    become(&report, who);
    default_signals();
    become_command(&report, who, argv, NULL);
}

/* Hands signals on to the program, which is a process of the Pod's namespace while this one is not, and ends as it does. */
static noreturn void attend(pid_t pid, int signals)
{
    struct signalfd_siginfo info;
    int status = 0;

    close(PASS_REPORT);
    for (;;) {
        if (read(signals, &info, sizeof info) != sizeof info)
            continue;
        if (info.ssi_signo != SIGCHLD)
            kill(pid, info.ssi_signo);
        else if (waitpid(pid, &status, WNOHANG) == pid)
            end_as(status);
    }
}

/* Shows this process to `run`, which is not its parent and yet has to learn how it ends. */
static void show_process(void)
{
    char byte = 0, control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    int self = syscall(SYS_pidfd_open, getpid(), 0);

    if (self < 0)
        return;
    *header = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof self)};
    memcpy(CMSG_DATA(header), &self, sizeof self);
    sendmsg(PASS_REPORT, &message, MSG_NOSIGNAL);
    close(self);
}

int init(int argc, char **argv)
{
    static struct identity who;

    show_process();
    for (int fd = PASS_PROGRAM; fd < PASS_END; fd++)
        fcntl(fd, F_SETFD, FD_CLOEXEC);
    if (argc < 1 || read_identity(PASS_IDENTITY, &who) < 0)
        fail(&report, NOT_ENTERED, "the identity can't be read: %m");
    if (ioctl(PASS_PROCESSES, NS_GET_NSTYPE) != CLONE_NEWPID)
        start(&who, argv, false);
    int signals = watch_signals();
    pid_t pid = setns(PASS_PROCESSES, CLONE_NEWPID) < 0 ? -1 : fork();
    if (pid < 0)
        fail(&report, NOT_ENTERED, "the Pod's process namespace: %m");
    if (pid == 0) {
        if (isatty(STDIN_FILENO)) { // the session of this one has no number where the program is
            setsid();
            ioctl(STDIN_FILENO, TIOCSCTTY, 1);
        }
        start(&who, argv, true);
    }
    attend(pid, signals);
}
