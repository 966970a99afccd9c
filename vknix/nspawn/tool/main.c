/* vktool: what vknix needs on a bare host, as one static program. Only vknix and the units that it writes call it.

   vktool run [--init] [--log=BYTES,FILES] [--stdin|--stdin-once] [--tty] [--pids=RUNFILE] LOGDIR FACTS ROOT SKELETON TERMLOG RUNFILE SANDBOX -- ARGV...
       ExecStart of a container: one attempt. Fresh ROOT, empty TERMLOG, RUNFILE written; ARGV runs once the file SANDBOX is
       there, its output goes to LOGDIR/<attempt>.log (of at most BYTES, then another is begun, and FILES are kept), its end is ours. What goes wrong before ARGV runs is one line `vktool: ...` and exit 1.
       It listens on `attach` beside RUNFILE. ARGV's stdin is empty unless asked for; --stdin-once: it ends with the first who
       attaches. --tty: nspawn is told to make a terminal. --pids: ARGV is in the PID namespace of that container, which runs.
   vktool run [OPTION...] LOGDIR FACTS - - TERMLOG RUNFILE SANDBOX service IDENTITY COMMAND NETNS
       The same for a service of the host, which has no root of its own: it becomes what the SPEC (below) IDENTITY says, in the network
       namespace NETNS (`-`: the host's), and executes COMMAND, a file of words, each ended by NUL.
   vktool fact LOGDIR FACTS TERMLOG RUNFILE MACHINE file|fallback
       ExecStopPost: one JSON line at the end of FACTS for the attempt that ended; removes RUNFILE and nspawn's leftovers.
       `fallback` is the policy FallbackToLogsOnError.
   vktool exec RUNFILE SPEC N NONCE tty|notty -- ARGV...
       ARGV in the running container, in a cgroup exec-N of its own below the container's. SPEC holds, each ended by NUL: capabilities
       in hex, uid, gid, groups (`1,2` or `-`), flags (see vktool.h), host's number of user 0, directory, number of environment
       strings, these, number of mounts whose users are mapped, and these.
       Where the container has no program `tar`, or `test`, it is the one of tar.c.
       Exit: the command's own, 128 + n after signal n. Where it never ran: one line `NONCE ...` on stderr, and 127 (not found),
       126 (can't be executed) or 125 (no running container to enter).
   vktool init ARGV...
       The first process of a container, which `run` starts through nspawn: becomes what the file `identity` beside RUNFILE says.
   vktool pause FILE
       A Pod's PID namespace, pinned to FILE for as long as this runs.
   vktool spaces BASE USERS NETWORK IPC
       A user namespace of 65536 users from BASE on, with a network and IPC of its own, pinned to three files.
   vktool limit RUNFILE
       Puts the file `limits.new` beside RUNFILE into force for what runs, and then in the place of `limits`. Exit 3, with a line that
       says why, where it can't be had now.
   vktool mount SPEC ROOT DIRECTORY -- ARGV...
       ARGV in a mount namespace where DIRECTORY/0, 1, ... are the mounts of the file SPEC: four fields each, ended by NUL: a volume,
       a path in it (empty: all of it; never followed out of it), the target in ROOT, where its mount point is made, and letters: `c`
       a missing path becomes a directory, `r` read-only, `R` with all that is mounted in it, `x` no programs, `s` later mounts show.
   vktool own DIRECTORY GROUP always|mismatch
       Gives all in a volume to an fsGroup; `mismatch`: not where the directory itself is as it should be.
   vktool usage
       What the host, each Pod and each container use now: lines `KEY VALUE...` after `of host`, `of container UID32 NAME` and `of pod UID32`.
       A cgroup says `processes` last but `net`; `memory` is missing where it has no controller: then `resident` counts. The last line is `that was all`.
   vktool disk UID32...
       What these Pods have on disk, in bytes: after `of UID32` lines `empty VOLUME N`, and of each container that runs `logs NAME N` and
       `root NAME N`, which is what it has changed in its root. The last line is `that was all`.
   vktool read [VOLUME PATH]...
       For each file of a volume a line with its size and then its bytes; -1 where there is no such regular file, or it is larger than
       1 MiB. Links count within the volume.
   vktool logs LOGDIR ATTEMPT FROM TAIL SINCE_NS LIMIT UNTIL stamps|plain
       The log of one attempt from the position FROM to UNTIL (-1: to its end); TAIL -1 and LIMIT -1 are all of it, SINCE_NS 0 is from the
       start. Exit 2 without a log.
   vktool follow LOGDIR ATTEMPT
       What is written from now on, until the attempt ends, as frames of whole records: a line `END INSIDE LENGTH` (the position after
       them; 1 where they begin within a line) and as many bytes. The first is empty. Exit 2 without a log.
   vktool attach RUNFILE LOGDIR
       What the container writes from now on, until it ends. Its stdin is frames: a kind, the length of what follows in two bytes (all
       of it at most 4096 bytes), and that: `i` input, `c` no more input, `s` rows and columns of the terminal, two bytes each. It ends
       where the session does: exit 0. Exit 3 where the container does not run.
   vktool forward NETNS SOCKET
       Connections to localhost in a Pod's network namespace (`-`: the host's), for as long as SOCKET, which it makes, and its stdin last.
       It says `ready`. Who connects to SOCKET sends the port in two bytes and is answered by one: 0, and from then on it is the
       connection; or 1, why nobody is to be had there, and the end. Exit 3 where the Pod is not there. */
#include "vktool.h"

#include <string.h>

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*main)(int, char **);
    } verbs[] = {{"run", run},       {"fact", fact},    {"exec", exec}, {"logs", logs},
                 {"attach", attach}, {"init", init},    {"pause", pause_pod}, {"spaces", spaces},
                 {"limit", limit},   {"mount", mounts}, {"own", own},
                 {"usage", usage},   {"disk", disk},    {"read", read_files}, {"forward", forward}, {"follow", follow}};

    for (size_t i = 0; argc > 1 && i < sizeof verbs / sizeof *verbs; i++)
        if (strcmp(argv[1], verbs[i].name) == 0)
            return verbs[i].main(argc - 2, argv + 2);
    die(64, "the first argument is no verb of this program");
}
