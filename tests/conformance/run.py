"""A lab and names of tests in, their outcomes out: e2e.test under ginkgo, with its progress on the way."""

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.conformance import report
from tests.conformance.report import Outcome
from tests.lab import images, upstream
from tests.lab.closures import roots
from tests.lab.lab import Lab
from tests.lab.shell import LabError, run

# The line that ends a test in ginkgo's output; its name is on the next.
ENDED = re.compile(r"^(?P<mark>\S+) (?P<failed>\[(?:FAILED|PANICKED|TIMEDOUT|INTERRUPTED)\] )?\[(?P<seconds>[\d.]+) seconds\]$")


def start_vknix(lab: Lab, *, nodes: int) -> None:
    """vknix with that many nodes without a taint, which have the images that the tests name."""
    lab.vknix.stop()
    lab.kubectl("delete", "nodes", "--all")
    config = lab.vknix.config(nodes=nodes)
    lab.vknix.start(
        {
            "nodes": [{**node, "taints": []} for node in config["nodes"]],
            "images": images.aliases(roots(lab.layout)),
            "cluster": {"podCIDRs": [lab.layout.pod_cidr]},
        }
    )


def names(release: str) -> list[str]:
    """Of all tests that the release's e2e.test has."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "report.json")
        flags = ["--ginkgo.dry-run", f"--ginkgo.json-report={file}", "--provider=skeleton", "--kubeconfig=/dev/null"]
        run([upstream.program(release, upstream.E2E), *flags])
        specs = json.loads(file.read_text())[0]["SpecReports"]
    return sorted(
        " ".join([*(spec["ContainerHierarchyTexts"] or ()), spec["LeafNodeText"]]) for spec in specs if spec["LeafNodeType"] == "It"
    )


def run_tests(lab: Lab, tests: Sequence[str], *, procs: int, folder: Path, told: Callable[[str], None]) -> list[Outcome]:
    """Runs them. `folder` gets junit.xml and ginkgo's output; `told` gets a line for each test that ends."""
    if not tests:
        raise LabError("no conformance test has such a name")
    folder.mkdir(parents=True, exist_ok=True)
    junit = folder / "junit.xml"
    junit.unlink(missing_ok=True)
    with (folder / "output.log").open("w") as log:
        for line in _progress(_ginkgo(lab, tests, procs, junit, log.write), len(tests)):
            told(line)
    return report.read(junit, tests)


def _ginkgo(lab: Lab, tests: Sequence[str], procs: int, junit: Path, keep: Callable[[str], object]) -> Iterator[str]:
    """The lines of ginkgo's output as they come."""
    release = lab.layout.kubernetes
    command: list[str | Path] = [
        upstream.program(release, upstream.GINKGO),
        f"--procs={procs}",
        "--no-color",
        "-v",
        f"--focus={'|'.join(re.escape(name) for name in tests)}",
        f"--output-dir={junit.parent}",
        f"--junit-report={junit.name}",
        upstream.program(release, upstream.E2E),
        "--",
        f"--kubeconfig={lab.layout.admin_kubeconfig}",
        "--provider=skeleton",
        f"--num-nodes={len(lab.vknix.nodes)}",
        "--dump-logs-on-failure=false",  # minutes for each test that fails
        f"--report-dir={junit.parent}/reports",
    ]
    env = {**os.environ, "PATH": lab.env()["PATH"]}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=env)
    assert process.stdout is not None
    with process:
        try:
            for line in process.stdout:
                keep(line)
                yield line.rstrip("\n")
        finally:
            process.terminate()


def _progress(lines: Iterator[str], count: int) -> Iterator[str]:
    number = 0
    for line in lines:
        ended = ENDED.match(line)
        if ended is None:
            continue
        name = next(lines, "").replace("[It] ", "").rpartition(" [")[0]  # without its labels, which are in it already
        number += 1
        yield f"{number:4}/{count}  {'FAILED' if ended['failed'] else 'passed'}  {float(ended['seconds']):6.1f} s  {name}"
