/* The filter of the profile RuntimeDefault: what container runtimes refuse by default, and system calls that are newer than this
   file. Made here rather than by nspawn, so that what is exec'd has the same one, and because it takes 40 ms there. */
#define _GNU_SOURCE
#include "vktool.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

enum { NEVER = -1, NEWEST = 462, LONGEST = 512 }; // mseal: above it a program is told that the kernel is older

#if defined(__x86_64__)
enum { ARCHITECTURE = AUDIT_ARCH_X86_64 };
#elif defined(__aarch64__)
enum { ARCHITECTURE = AUDIT_ARCH_AARCH64 };
#else
#error "which system calls has this architecture?"
#endif

/* A system call that only the holders of a capability may make. */
struct rule {
    int call, capability;
};

static const struct rule rules[] = {
    {SYS_add_key, NEVER},
    {SYS_keyctl, NEVER},
    {SYS_request_key, NEVER},
    {SYS_kexec_load, NEVER},
    {SYS_kexec_file_load, NEVER},
    {SYS_swapon, NEVER},
    {SYS_swapoff, NEVER},
    {SYS_pivot_root, NEVER},
    {SYS_userfaultfd, NEVER},
    {SYS_io_uring_setup, NEVER},
    {SYS_io_uring_enter, NEVER},
    {SYS_io_uring_register, NEVER},
    {SYS_nfsservctl, NEVER},
    {SYS_vhangup, CAP_SYS_TTY_CONFIG},
    {SYS_mount, CAP_SYS_ADMIN},
    {SYS_umount2, CAP_SYS_ADMIN},
    {SYS_mount_setattr, CAP_SYS_ADMIN},
    {SYS_move_mount, CAP_SYS_ADMIN},
    {SYS_open_tree, CAP_SYS_ADMIN},
    {SYS_fsopen, CAP_SYS_ADMIN},
    {SYS_fsconfig, CAP_SYS_ADMIN},
    {SYS_fsmount, CAP_SYS_ADMIN},
    {SYS_fspick, CAP_SYS_ADMIN},
    {SYS_setns, CAP_SYS_ADMIN},
    {SYS_unshare, CAP_SYS_ADMIN},
    {SYS_sethostname, CAP_SYS_ADMIN},
    {SYS_setdomainname, CAP_SYS_ADMIN},
    {SYS_quotactl, CAP_SYS_ADMIN},
    {SYS_quotactl_fd, CAP_SYS_ADMIN},
    {SYS_bpf, CAP_SYS_ADMIN},
    {SYS_perf_event_open, CAP_SYS_ADMIN},
    {SYS_fanotify_init, CAP_SYS_ADMIN},
    {SYS_lookup_dcookie, CAP_SYS_ADMIN},
    {SYS_name_to_handle_at, CAP_SYS_ADMIN},
    {SYS_open_by_handle_at, CAP_DAC_READ_SEARCH},
    {SYS_syslog, CAP_SYSLOG},
    {SYS_acct, CAP_SYS_PACCT},
    {SYS_reboot, CAP_SYS_BOOT},
    {SYS_chroot, CAP_SYS_CHROOT},
    {SYS_init_module, CAP_SYS_MODULE},
    {SYS_finit_module, CAP_SYS_MODULE},
    {SYS_delete_module, CAP_SYS_MODULE},
    {SYS_settimeofday, CAP_SYS_TIME},
    {SYS_adjtimex, CAP_SYS_TIME},
    {SYS_clock_settime, CAP_SYS_TIME},
    {SYS_clock_adjtime, CAP_SYS_TIME},
    {SYS_kcmp, CAP_SYS_PTRACE},
    {SYS_pidfd_getfd, CAP_SYS_PTRACE},
    {SYS_process_vm_readv, CAP_SYS_PTRACE},
    {SYS_process_vm_writev, CAP_SYS_PTRACE},
    {SYS_mbind, CAP_SYS_NICE},
    {SYS_set_mempolicy, CAP_SYS_NICE},
    {SYS_get_mempolicy, CAP_SYS_NICE},
    {SYS_move_pages, CAP_SYS_NICE},
    {SYS_migrate_pages, CAP_SYS_NICE},
#ifdef __x86_64__
    {SYS_iopl, CAP_SYS_RAWIO},
    {SYS_ioperm, CAP_SYS_RAWIO},
    {SYS_uselib, NEVER},
    {SYS_ustat, NEVER},
    {SYS_sysfs, NEVER},
    {SYS__sysctl, NEVER},
    {SYS_create_module, CAP_SYS_MODULE},
    {SYS_query_module, CAP_SYS_MODULE},
    {SYS_get_kernel_syms, NEVER},
#endif
};

struct program {
    struct sock_filter code[LONGEST];
    unsigned short length;
};

static void add(struct program *program, struct sock_filter instruction)
{
    if (program->length < LONGEST)
        program->code[program->length] = instruction;
    program->length++;
}

static void load(struct program *program, unsigned offset)
{
    add(program, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset));
}

static void answer(struct program *program, unsigned what)
{
    add(program, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, what));
}

static unsigned refuse(int error)
{
    return SECCOMP_RET_ERRNO | error;
}

/* Where the comparison holds, that is the answer; else on with the next instruction. */
static void answer_if(struct program *program, unsigned short comparison, unsigned value, unsigned what)
{
    add(program, (struct sock_filter)BPF_JUMP(BPF_JMP | comparison | BPF_K, value, 0, 1));
    answer(program, what);
}

/* The next `count` instructions are for one system call only. */
static void only_for(struct program *program, unsigned call, unsigned char count)
{
    add(program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, count));
}

static void check_arguments(struct program *program, bool admin)
{
    const unsigned first = offsetof(struct seccomp_data, args[0]); // its low half: both architectures are little-endian
    const unsigned spaces = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWCGROUP;
    static const unsigned personalities[] = {0, 8, 0x20000, 0x20008, 0xffffffff};

    if (!admin) {
        only_for(program, SYS_clone, 4);
        load(program, first);
        answer_if(program, BPF_JSET, spaces, refuse(EPERM));
        answer(program, SECCOMP_RET_ALLOW);
        answer_if(program, BPF_JEQ, SYS_clone3, refuse(ENOSYS)); // its flags can't be seen from here: libc then uses clone
    }
    only_for(program, SYS_socket, 4);
    load(program, first);
    answer_if(program, BPF_JEQ, AF_VSOCK, refuse(EPERM));
    answer(program, SECCOMP_RET_ALLOW);
    only_for(program, SYS_personality, 2 + 2 * sizeof personalities / sizeof *personalities);
    load(program, first);
    for (size_t i = 0; i < sizeof personalities / sizeof *personalities; i++)
        answer_if(program, BPF_JEQ, personalities[i], SECCOMP_RET_ALLOW);
    answer(program, refuse(EPERM));
}

int install_filter(unsigned long long capabilities)
{
    static struct program program;

    program.length = 0;
    load(&program, offsetof(struct seccomp_data, arch));
    add(&program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0));
    answer(&program, refuse(ENOSYS));
    load(&program, offsetof(struct seccomp_data, nr));
    answer_if(&program, BPF_JGT, NEWEST, refuse(ENOSYS));
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (rules[i].capability == NEVER || !(capabilities >> rules[i].capability & 1))
            answer_if(&program, BPF_JEQ, rules[i].call, refuse(EPERM));
    check_arguments(&program, capabilities >> CAP_SYS_ADMIN & 1);
    answer(&program, SECCOMP_RET_ALLOW);
    if (program.length > LONGEST) {
        errno = E2BIG;
        return -1;
    }
    struct sock_fprog filter = {program.length, program.code};
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
}
