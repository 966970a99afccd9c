"""The command line of scripts/lab. stdout is for answers, stderr for what goes on; exit code 1 is a LabError."""

import argparse
import subprocess
import sys
from collections.abc import Callable

from tests.lab import kubernetes
from tests.lab.lab import Lab
from tests.lab.layout import load
from tests.lab.shell import LabError, say


def main() -> int:
    """Parse, do, and tell the person what can't be done."""
    parser = _parser()
    args = parser.parse_args()
    command: Callable[[argparse.Namespace], int] = args.command
    try:
        return command(args)
    except LabError as error:
        say(f"scripts/lab: {error}")
        return 1
    except PermissionError as error:
        say(f"scripts/lab: {error}; labs are made and used by root")
        return 1
    except KeyboardInterrupt:
        say("scripts/lab: interrupted; run it again to go on, or `down` to remove what there is")
        return 130


def _up(args: argparse.Namespace) -> int:
    lab = Lab.up(args.name, hosts=args.hosts, shape=args.shape, kubernetes_release=args.kubernetes)
    say(lab.status())
    name = "" if args.name == "lab" else f"--name {args.name} "
    say(f'next: eval "$(scripts/lab {name}env)"; scripts/lab {name}vknix start')
    return 0


def _down(args: argparse.Namespace) -> int:
    if load(args.name) is None:
        say(f"there is no lab {args.name}")
    else:
        Lab.open(args.name).down()
    return 0


def _status(args: argparse.Namespace) -> int:
    print(Lab.open(args.name).status())
    return 0


def _env(args: argparse.Namespace) -> int:
    print(Lab.open(args.name).env_lines(), end="")
    return 0


def _vknix(args: argparse.Namespace) -> int:
    vknix = Lab.open(args.name).vknix
    match args.action:
        case "start":
            vknix.start()
        case "stop":
            vknix.stop()
        case "kill":
            vknix.kill()
        case "log" if args.follow:
            return subprocess.call(["tail", "--lines=+1", "--follow=name", vknix.log_file])
        case "log":
            print(vknix.log(), end="")
    return 0


def _host(args: argparse.Namespace) -> int:
    host = Lab.open(args.name).host(args.host)
    match args.action:
        case "reboot":
            host.reboot()
        case "cut":
            host.cut()
        case "heal":
            host.heal()
        case "restart-sshd":
            host.restart_sshd()
        case "snapshot":
            print(host.snapshot(caches=args.caches), end="")
        case "shell":
            return host.shell(args.words)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/lab", description="A real cluster and real hosts on this machine.")
    parser.add_argument("--name", default="lab", help="which lab; several stand beside each other (default: lab)")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--name", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, parents=[common])
        sub.set_defaults(command=command)
        return sub

    up = add("up", _up, "make or complete the lab, without vknix")
    up.add_argument("--hosts", type=_count, help="how many hosts (default: 2; with --shape vm: 1)")
    up.add_argument("--shape", choices=("debian", "nixos", "mixed", "vm"), help="of the hosts (default: mixed, in turn)")
    up.add_argument("--kubernetes", metavar="V", help=f"the release of the control plane (default: {kubernetes.DEFAULT})")
    add("down", _down, "end and remove all of it but the caches")
    add("status", _status, "what there is and what of it runs")
    add("env", _env, 'lines for eval "$(scripts/lab env)"')
    vknix = add("vknix", _vknix, "vknix as a process: start returns when the Node is Ready, kill is -9")
    vknix.add_argument("action", choices=("start", "stop", "kill", "log"))
    vknix.add_argument("-f", "--follow", action="store_true", help="with log: go on as it grows")
    host = add("host", _host, "what can befall a host, a shell on it, and a snapshot of what vknix has made there")
    host.add_argument("host", metavar="NAME")
    host.add_argument("action", choices=("reboot", "cut", "heal", "restart-sshd", "shell", "snapshot"))
    host.add_argument("--caches", action="store_true", help="with snapshot: a section with farms and closure roots, too")
    host.add_argument("words", nargs="*", metavar="-- CMD", help="with shell: a command in place of a terminal")
    return parser


def _count(text: str) -> int:
    count = int(text)
    if not 1 <= count <= 200:
        raise argparse.ArgumentTypeError("a lab has 1 to 200 hosts")
    return count


if __name__ == "__main__":
    sys.exit(main())
