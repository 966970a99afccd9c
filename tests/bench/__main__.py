"""scripts/bench: `start` is the warm start and the stop of a Pod, in turn with the bare start of the same unit."""

import argparse
import asyncio
import sys

from tests.bench import start
from tests.lab.lab import Lab
from tests.lab.shell import LabError


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Benchmarks, each a ratio in one run.")
    what = parser.add_subparsers(required=True, metavar="start")
    starts = what.add_parser("start", help="warm Pod start and stop against the bare unit's, with nspawn's filter and without")
    starts.add_argument("--rounds", type=int, default=30)
    starts.add_argument("--shape", choices=("debian", "nixos"), default="debian")
    starts.add_argument("--keep-lab", action="store_true")
    arguments = parser.parse_args()
    try:
        lab = Lab.up("bench", hosts=1, shape=arguments.shape)
        try:
            asyncio.run(start.bench(lab, arguments.rounds))
        finally:
            if not arguments.keep_lab:
                lab.down()
    except LabError as error:
        print(f"scripts/bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
