"""How a host mounts NFS: by mount.nfs where that is there, else by what the kernel does alone, which is NFS 4. Pure."""

import ipaddress
import re
import shlex
from collections.abc import Callable

from vknix.core.storage import Nfs

_WITHIN_S = 20  # a server that does not answer must not hold the host's other work up
_VERSIONS = ("4.2", "4.1", "4.0")  # mount.nfs tries them in turn, and so is it here
_VERSION = re.compile(r"(?:nfs)?vers=(.*)")
_OLD = re.compile(r"v?[23](?:\..*)?")
_REMEDY = "add nfs to boot.supportedFilesystems"
_NO_KERNEL = f"the kernel of the host has no NFS; {_REMEDY}"
_NO_TOOL = f"an NFS before 4 takes mount.nfs, which is not on the host; {_REMEDY}"


def script(name: str, at: str, of: Nfs, failing: Callable[[str, str], str]) -> str:
    """Mounts it, or ends as `failing` has it, by the volume's name and why."""
    silent = failing(name, f"mount failed: {of.server} does not answer within {_WITHIN_S} s")
    # mount ends with a hint to the kernel's messages, mount.nfs begins with what it tried.
    said = '"$(printf %s "$said" | grep -v "^ *dmesg(1)" | tail -n 1)"'
    return (
        f"mkdir -p {at}\n"
        f"grep -qwE 'nfs4?' /proc/filesystems || modprobe -q nfs 2>/dev/null || {failing(name, _NO_KERNEL)}\n"
        "code=0\n"
        f"if command -v mount.nfs >/dev/null; then\n{_by_helper(at, of)}else\n{_by_kernel(name, at, of, failing)}fi\n"
        f"case $code in 0) ;; 124) {silent} ;; *) {failing(name, 'mount failed: ')}{said} ;; esac\n"
    )


def _by_helper(at: str, of: Nfs) -> str:
    options = ["-o", ",".join(_options(of))] if _options(of) else []
    return _mounting(shlex.join(["-t", "nfs", *options, "--", _source(of), at]))


def _by_kernel(name: str, at: str, of: Nfs, failing: Callable[[str, str], str]) -> str:
    """The kernel resolves no names, and is to be told under which address its server knows it."""
    asked = [found[1] for option in of.options if (found := _VERSION.fullmatch(option))]
    if any(_OLD.fullmatch(version) for version in (*asked, *of.options)):
        return f"{failing(name, _NO_TOOL)}\n"
    rest = "".join(f",{option}" for option in _options(of) if not _VERSION.fullmatch(option))
    options = f'vers="$version",addr="$to",clientaddr="$from"{shlex.quote(rest) if rest else ""}'
    mounting = _mounting(f"-i -t nfs4 -o {options} {shlex.join(['--', _source(of), at])}")
    return (
        f"to={_address(of.server)}\n"
        f'[ -n "$to" ] || {failing(name, f"{of.server} has no address")}\n'
        "from=$(ip route get \"$to\" 2>/dev/null | sed -n 's/.* src \\([^ ]*\\).*/\\1/p')\n"
        # By the old system call, whose errors have names.
        "export LIBMOUNT_FORCE_MOUNT2=always\n"
        f"for version in {shlex.join(asked[-1:] or _VERSIONS)}; do\n"
        f"code=0\n{mounting}"
        'case $said in *"rotocol not supported"*) ;; *) break ;; esac\ndone\n'
    )


def _address(server: str) -> str:
    try:
        return str(ipaddress.ip_address(server))
    except ValueError:
        return f"$(getent ahosts {shlex.quote(server)} | sed -n '1s/ .*//p')"


def _options(of: Nfs) -> tuple[str, ...]:
    return (*of.options, *(["ro"] if of.read_only else []))


def _source(of: Nfs) -> str:
    return f"[{of.server}]:{of.path}" if ":" in of.server else f"{of.server}:{of.path}"


def _mounting(words: str) -> str:
    return f"said=$(timeout {_WITHIN_S} mount {words} 2>&1) || code=$?\n"
