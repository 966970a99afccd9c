"""scripts/bench: `start` is the warm start and the stop of a Pod, in turn with the bare start of the same unit; `exec`, `logs` and
`forward` are what streams, in turn with the same over bare SSH; `soak` makes and deletes random Pods, and fails where one of them,
vknix or a host ends as it should not; `fuzz` sends odd bytes, and needs no lab.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.bench import fuzz, soak, start
from tests.bench.streams import execs, forwards, logs
from tests.lab.lab import Lab
from tests.lab.shell import LabError


def main() -> int:
    arguments = _parser().parse_args()
    if arguments.what == "fuzz":
        return fuzz.fuzz(arguments.examples, arguments.processes)
    try:
        lab = Lab.up(arguments.lab, hosts=arguments.hosts, shape=arguments.shape)
        try:
            return _run(lab, arguments)
        finally:
            if not arguments.keep_lab:
                lab.down()
    except LabError as error:
        print(f"scripts/bench: {error}", file=sys.stderr)
        return 1


def _run(lab: Lab, arguments: argparse.Namespace) -> int:
    if arguments.what == "start":
        asyncio.run(start.bench(lab, arguments.rounds))
        return 0
    if arguments.what == "exec":
        asyncio.run(execs.bench(lab, tuple(arguments.parts), arguments.rounds, arguments.mib))
        return 0
    if arguments.what == "logs":
        asyncio.run(logs.bench(lab, tuple(arguments.parts), arguments.rounds))
        return 0
    if arguments.what == "forward":
        asyncio.run(forwards.bench(lab, tuple(arguments.parts), arguments.rounds, arguments.mib))
        return 0
    of = arguments
    wrong = soak.soak(lab, soak.Plan(of.pods, of.at_once, of.seed, of.only, of.kill, of.cut, of.out))
    print("\n".join(wrong) or "all as it should be")
    return 1 if wrong else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Benchmarks, each a ratio in one run; and a soak.")
    what = parser.add_subparsers(required=True, metavar="start | exec | logs | forward | soak | fuzz", dest="what")
    starts = what.add_parser("start", help="warm Pod start and stop against the bare unit's, with nspawn's filter and without")
    starts.add_argument("--rounds", type=int, default=30)
    starts.set_defaults(hosts=1)
    streams = [
        _streams(what.add_parser("exec", help="commands, against bare SSH"), execs.PARTS, mib=1024),
        _streams(what.add_parser("logs", help="logs, against journalctl over SSH"), logs.PARTS, mib=0),
        _streams(what.add_parser("forward", help="port-forward, against ssh -L"), forwards.PARTS, mib=256),
    ]
    soaks = what.add_parser("soak", help="random Pods, made and deleted; each status is held against a kubelet's rules")
    soaks.add_argument("--pods", type=int, default=500)
    soaks.add_argument("--at-once", type=int, default=16)
    soaks.add_argument("--seed", type=int, default=1, help="which Pods (default: 1)")
    soaks.add_argument("--only", type=int, nargs="+", default=(), metavar="N", help="these Pods of the seed, by number")
    soaks.add_argument("--kill", action="store_true", help="kill -9 vknix every so often, and start it again")
    soaks.add_argument("--cut", action="store_true", help="cut a host off every so often, for some seconds")
    soaks.add_argument("--out", type=Path, default=Path("soak"), help="where to leave Pods that break a rule (default: soak/)")
    soaks.set_defaults(hosts=2)
    fuzzes = what.add_parser("fuzz", help="odd requests, sessions and frames at the kubelet API, far more than scripts/check tries")
    fuzzes.add_argument("--examples", type=int, default=5000, help="of each test (default: 5000)")
    fuzzes.add_argument("--processes", type=int, default=1)
    for each, shape in ((starts, "debian"), *((of, "debian") for of in streams), (soaks, "mixed")):
        each.add_argument("--shape", choices=("debian", "nixos", "mixed"), default=shape)
        each.add_argument("--lab", default="bench", help="its name")
        each.add_argument("--keep-lab", action="store_true")
    return parser


def _streams(parser: argparse.ArgumentParser, parts: Iterable[str], *, mib: int) -> argparse.ArgumentParser:
    known = tuple(parts)
    parser.add_argument("parts", nargs="*", default=known, metavar="PART", help=f"of {' '.join(known)}")
    parser.add_argument("--rounds", type=int, default=3)
    if mib:
        parser.add_argument("--mib", type=int, default=mib, help=f"how much goes through (default: {mib})")
    parser.set_defaults(hosts=1)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
