"""The command line of scripts/conformance: a lab, the tests, what became of them. Exit code 0: each that was chosen passed."""

import argparse
import sys
import time
from pathlib import Path

from tests.conformance import metrics_server, report, suite, virtual_kubelet
from tests.conformance.report import Outcome
from tests.conformance.run import names, run_tests, start_vknix
from tests.lab import kubernetes
from tests.lab.lab import Lab
from tests.lab.shell import LabError, say


def main() -> int:
    """Run what was asked for, and tell the person what can't be done."""
    args = _parser().parse_args()
    try:
        if args.virtual_kubelet or args.metrics_server:
            return _run_beside(args)
        tests = suite.chosen(names(args.kubernetes), resize=args.resize, focus=args.focus, skip=args.skip)
        if args.list:
            print("\n".join(tests))
            return 0
        return _run(args, tests)
    except LabError as error:
        say(f"scripts/conformance: {error}")
        return 1
    except KeyboardInterrupt:
        say("scripts/conformance: interrupted")
        return 130


def _run(args: argparse.Namespace, tests: list[str]) -> int:
    shape = "vm" if args.resize and args.shape is None else args.shape
    nodes = args.nodes or (1 if args.resize else 2)
    lab = Lab.up(args.name, hosts=args.hosts or nodes, shape=shape, kubernetes_release=args.kubernetes)
    try:
        start_vknix(lab, nodes=nodes)
        procs = args.procs or (2 if args.resize else 4)
        say(f"{len(tests)} tests, {procs} at a time; their output: {args.report / 'output.log'}")
        began = time.monotonic()
        outcomes = run_tests(lab, tests, procs=procs, folder=args.report, told=say)
        print(report.summary(outcomes, time.monotonic() - began))
        return 1 if any(outcome.why for outcome in outcomes) else 0
    finally:
        if not args.keep:
            lab.down()


def _run_beside(args: argparse.Namespace) -> int:
    """The tests that are not Kubernetes' own, on one vknix node as it comes."""
    lab = Lab.up(args.name, hosts=args.hosts, shape=args.shape, kubernetes_release=args.kubernetes)
    try:
        began, outcomes = time.monotonic(), list[Outcome]()
        if args.virtual_kubelet:
            outcomes += virtual_kubelet.run_tests(lab, say)
        if args.metrics_server:
            outcomes += metrics_server.run_tests(lab, say)
        print(report.summary(outcomes, time.monotonic() - began))
        return 1 if any(outcome.why for outcome in outcomes) else 0
    finally:
        if not args.keep:
            lab.down()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/conformance", description="The conformance tests of Kubernetes that need a node, on a lab with vknix nodes."
    )
    add = parser.add_argument
    add("--focus", metavar="RE", default="", help="only tests with such a name")
    add("--skip", metavar="RE", default="", help="no tests with such a name")
    add("--resize", action="store_true", help="the tests of in-place resize alone, on hosts whose cgroups have controllers")
    add("--virtual-kubelet", action="store_true", help="virtual-kubelet's own tests instead, which are nine")
    add("--metrics-server", action="store_true", help="the real metrics-server and `kubectl top` instead")
    add("--list", action="store_true", help="print the names of the tests and do nothing")
    add("--nodes", type=int, metavar="N", help="how many vknix nodes, each with hosts of its own (default: 2; 1 with --resize)")
    add("--hosts", type=int, metavar="N", help="how many hosts, dealt out to the nodes (default: one for each)")
    add("--shape", help="of the hosts, as scripts/lab has it (default: mixed; vm with --resize)")
    add("--procs", type=int, metavar="N", help="how many tests at a time (default: 4; 2 with --resize)")
    add("--kubernetes", metavar="V", default=kubernetes.DEFAULT, help=f"the release (default: {kubernetes.DEFAULT})")
    add("--name", default="conformance", help="which lab (default: conformance)")
    add("--keep", action="store_true", help="leave the lab up")
    add(
        "--report",
        type=Path,
        default=Path("conformance"),
        metavar="DIR",
        help="for junit.xml and output.log (default: conformance)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
