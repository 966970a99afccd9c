"""The command line: run, plan, check. Exit codes: 0 well, 1 something is wrong and was said, 78 the configuration is."""

import argparse
import asyncio
import gc
import signal
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from vknix import __version__, log
from vknix import config as configs
from vknix.errors import ConfigError, VknixError

EX_CONFIG = 78  # of sysexits.h


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.verb(arguments))
    except ConfigError as error:
        print(f"vknix: the configuration is wrong:\n{_indented(str(error))}", file=sys.stderr)
        return EX_CONFIG
    except VknixError as error:
        print(f"vknix: {error}", file=sys.stderr)
        return 1


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vknix", description="A pool of bare NixOS hosts as a node of a Kubernetes cluster.")
    parser.add_argument("--version", action="version", version=f"vknix {__version__}")
    verbs = parser.add_subparsers(required=True, metavar="run|plan|check")
    run = verbs.add_parser("run", help="be the node")
    run.add_argument("--config", type=Path, required=True, help="vknix.yaml")
    run.add_argument("--log-level", choices=log.LEVELS, default="info")
    run.set_defaults(verb=_run)
    plan = verbs.add_parser("plan", help="show the units, files and mounts that a host would get for a Pod; touches nothing")
    plan.add_argument("pod", type=Path, help="a Pod as YAML or JSON; - for standard input")
    plan.add_argument("--command", action="store_true", help="only the command that starts each container's unit")
    plan.add_argument("--prepare", action="store_true", help="only a script that makes all but the units, for a start by hand")
    plan.add_argument("--tool", default=None, help="vktool's path on the host, as its units have it")
    plan.add_argument("--address", default=None, help="the Pod's address")
    plan.set_defaults(verb=_plan)
    check = verbs.add_parser("check", help="say whether configuration, cluster and hosts are fit, and what to do where not")
    check.add_argument("--config", type=Path, required=True, help="vknix.yaml")
    check.set_defaults(verb=_check)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    from vknix import node  # slow to import: aiohttp, asyncssh, the Kubernetes client

    log.setup(arguments.log_level)
    config = configs.load(arguments.config)
    gc.freeze()  # what is imported by now stays: full collections need not look at it
    asyncio.run(_until_told(node.run(config)))
    return 0


async def _until_told(work: Coroutine[Any, Any, None]) -> None:
    """SIGTERM and SIGINT end it as a cancellation does: the lease is released, the machines run on."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        await work
    except asyncio.CancelledError:
        return


def _plan(arguments: argparse.Namespace) -> int:
    from vknix import planning

    text = sys.stdin.read() if str(arguments.pod) == "-" else arguments.pod.read_text()
    given = {name: value for name in ("tool", "address") if (value := getattr(arguments, name)) is not None}
    show = planning.commands if arguments.command else planning.preparation if arguments.prepare else planning.describe
    print(show(text, planning.Options(**given)), end="")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from vknix import checking

    config = configs.load(arguments.config)
    return asyncio.run(checking.check(config, print))
