"""Volumes and what else is mounted put in place on a host: the part of the script that follows the files. Pure."""

import shlex

from vknix.core.files import File as VolumeFile
from vknix.core.storage import Closure, Disk, HostDir, Memory, Nfs, Storage
from vknix.nspawn import files, mounts, nfs, paths
from vknix.nspawn.plan import PodPlan

UNMOUNTABLE = 76  # exit code of a script that could not make a volume; what it says last on stderr is for the Pod's author
_CALL = "unmountable"
_FAIL = f"{_CALL}() {{ printf '%s\\n' \"$*\" >&2; exit {UNMOUNTABLE}; }}\n"


def shared(plan: PodPlan) -> str:
    """Files that each container has as a mount of its own. What is the same stays: a container that begins may be mounting it, and
    the kernel moves no mount of a file whose name has gone (ENOENT), as users of their own need it.
    """
    run, names = paths.run(plan.uid32), (files.HOSTS, files.RESOLV_CONF)
    new = " ".join(f"{run}/new/{name}" for name in names)
    return (
        f"if [ -e {run}/{names[-1]} ]; then\n"
        f"for name in {' '.join(names)}; do\n"
        f"cmp -s {run}/new/$name {run}/$name || mv -f {run}/new/$name {run}/$name\ndone\n"
        f"else\nmv -f -t {run} {new}\nfi\n"
    )


def volumes(plan: PodPlan, tool: str) -> str:
    """Each volume is made, once, or swapped. Where one can't be had, the script says why and ends with UNMOUNTABLE."""
    made = [_made(plan, name, of, tool) for name, of in plan.storage.items()]
    lines = [_volume_script(f"{paths.run(plan.uid32)}/vol/{name}", of) for name, of in plan.volumes.items()]
    return "".join([_FAIL if any(f"{_CALL} " in each for each in made) else "", *made, *lines])


def _made(plan: PodPlan, name: str, of: Storage, tool: str) -> str:
    at = mounts.where(plan.uid32, name, of)
    match of:
        case Disk():
            return _disk(at, plan.fs_group)
        case Memory(size):
            return _once(f"mountpoint -q {at}", _memory(at, size, plan.fs_group))
        case Nfs():
            there = f"grep -qF ' {at} ' /proc/self/mounts"  # a look at the mount itself waits for its server
            return _once(there, nfs.script(name, at, of, _failing))
        case HostDir():
            mark = f"{paths.run(plan.uid32)}/made/{name}"
            own = _own(plan, name, of, tool) if of.owned and plan.fs_group is not None else ""
            return _once(f"[ -e {mark} ]", f"{_host_dir(name, of)}{own}: > {mark}\n")
        case Closure():
            return ""


def _once(done: str, script: str) -> str:
    return f"if ! {done}; then\n{script}fi\n"


def _failing(name: str, why: str) -> str:
    said = f'MountVolume.SetUp failed for volume "{name}": {why}'
    return f"{_CALL} {shlex.quote(said)}"


def _disk(at: str, group: int | None) -> str:
    """Made once: what its users make of its mode stays."""
    owner = f"chgrp {group} {at}.new\nchmod 2777 {at}.new\n" if group is not None else ""
    if not owner:
        return f"[ -d {at} ] || mkdir -m 777 {at}\n"
    return _once(f"[ -d {at} ]", f"rm -rf {at}.new\nmkdir -m 777 {at}.new\n{owner}mv -T {at}.new {at}\n")


def _memory(at: str, size_bytes: int, group: int | None) -> str:
    options = f"size={size_bytes},mode={'2777' if group is not None else '777'},nosuid,nodev"
    options += f",gid={group}" if group is not None else ""
    return f"mkdir -p {at}\nmount -t tmpfs -o {options} vknix {at}\n"


_TESTS = {"Directory": "-d", "File": "-f", "Socket": "-S", "CharDevice": "-c", "BlockDevice": "-b", "Exists": "-e"}
_WORDS = {
    "Directory": "a directory",
    "DirectoryOrCreate": "a directory",
    "File": "a file",
    "FileOrCreate": "a file",
    "Socket": "a socket",
    "CharDevice": "a character device",
    "BlockDevice": "a block device",
    "Exists": "there",
}


def _host_dir(name: str, of: HostDir) -> str:
    """As hostPath's types have it; of no type: what is not there becomes a directory, as container runtimes do."""
    at = shlex.quote(of.path)
    if of.type == "":
        return f"[ -e {at} ] || mkdir -p {at} || {_failing(name, f'{of.path} can not be made')}\n"
    failing = _failing(name, f"hostPath type check failed: {of.path} is not {_WORDS[of.type]}")
    if of.type == "DirectoryOrCreate":
        return f"[ -e {at} ] || mkdir -p -m 755 {at} || :\n[ -d {at} ] || {failing}\n"
    if of.type == "FileOrCreate":
        return f"[ -e {at} ] || {{ : > {at} && chmod 644 {at}; }} 2>/dev/null || :\n[ -f {at} ] || {failing}\n"
    return f"[ {_TESTS[of.type]} {at} ] || {failing}\n"


def _own(plan: PodPlan, name: str, of: HostDir, tool: str) -> str:
    how = "always" if plan.fs_group_always else "mismatch"
    failing = _failing(name, f"it can not be given to group {plan.fs_group}")
    return f"{tool} own {shlex.quote(of.path)} {plan.fs_group} {how} || {failing}\n"


def _volume_script(root: str, of: tuple[VolumeFile, ...]) -> str:
    """As the kubelet's atomic writer: names -> ..data -> a directory named by what is in it, which is changed as a whole."""
    new, stamp = f"{root}/..new-{files.digest(of)}", f"..v{files.digest(of)}"
    names = [shlex.quote(each) for each in sorted({file.path.split("/")[0] for file in of})]
    links = "".join(f'[ -L {root}/{name} ] || set -- "$@" ..data/{name}\n' for name in names)
    keep = "|".join(names) or "''"
    return (
        f"if [ -d {root}/{stamp} ]; then rm -rf {root}/..new-*; else mv -T {new} {root}/{stamp}; fi\n"
        f"if ! [ {root}/..data -ef {root}/{stamp} ]; then\n"
        f"ln -sfn {stamp} {root}/..data_tmp\nmv -T {root}/..data_tmp {root}/..data\nfi\n"
        f'set --\n{links}[ $# = 0 ] || ln -s "$@" {root}/\n'
        f'for old in {root}/..v*; do [ "$old" = {root}/{stamp} ] || rm -rf "$old"; done\n'
        f"for link in {root}/* {root}/.[!.]*; do\n"
        f'case ${{link##*/}} in {keep}) ;; *) [ ! -L "$link" ] || rm -f "$link";; esac\ndone\n'
    )
