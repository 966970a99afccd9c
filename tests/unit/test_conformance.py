"""Which of the upstream tests scripts/conformance runs, and what it tells of ginkgo's report."""

from pathlib import Path

import pytest

from tests.conformance.report import Outcome, read, summary
from tests.conformance.suite import chosen

NODE = "[sig-node] Pods should get a host IP [NodeConformance] [Conformance]"
RESIZE = "[sig-node] Pod InPlace Resize Container resize pod via the replace endpoint [Conformance]"
API = "[sig-node] Secrets should patch a secret [Conformance]"
STORAGE = "[sig-storage] ConfigMap should be consumable from pods in volume [NodeConformance] [Conformance]"
OTHER = "[sig-apps] Job should run [Conformance]"
OPTIONAL = "[sig-node] Pods should be seen"
NAMES = (NODE, RESIZE, API, STORAGE, OTHER, OPTIONAL)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param({}, [NODE, STORAGE], id="what-needs-a-node"),
        pytest.param({"resize": True}, [RESIZE], id="resize-alone"),
        pytest.param({"focus": "host IP"}, [NODE], id="focus"),
        pytest.param({"focus": "Secrets|Job"}, [], id="focus-adds-nothing"),
        pytest.param({"skip": r"sig-node"}, [STORAGE], id="skip"),
    ],
)
def test_choice(asked: dict[str, str | bool], expected: list[str]) -> None:
    assert chosen(NAMES, **asked) == expected  # type: ignore[arg-type] # of one mapping


REPORT = f"""<testsuites><testsuite>
<testcase name="[It] {NODE} [sig-node, NodeConformance, Conformance]" status="passed" time="2.25"/>
<testcase name="[It] {STORAGE} [sig-storage]" status="failed" time="180.5">
<failure message="Timed out after 180.001s.&#10;expected pod to be completed, got instead:&#10;    &lt;*v1.Pod | 0x10&gt;: &#10;
  message: no such path&#10;  reason: ErrImagePull&#10; reason: ErrImagePull">trace</failure></testcase>
<testcase name="[It] {OTHER} [sig-apps]" status="skipped" time="0"><skipped message="skipped"/></testcase>
</testsuite></testsuites>"""


@pytest.fixture
def junit(tmp_path: Path) -> Path:
    file = tmp_path / "junit.xml"
    file.write_text(REPORT)
    return file


def test_test_is_told_with_what_it_said(junit: Path) -> None:
    why = "Timed out after 180.001s. expected pod to be completed, got instead: message: no such path reason: ErrImagePull"
    assert read(junit, [NODE, STORAGE]) == [Outcome(NODE, 2.25), Outcome(STORAGE, 180.5, why)]


@pytest.mark.parametrize(("name", "why"), [(OTHER, "skipped"), (RESIZE, "it did not run")])
def test_test_that_did_not_run_has_not_passed(junit: Path, name: str, why: str) -> None:
    assert read(junit, [name]) == [Outcome(name, 0.0, why)]


def test_no_report_means_that_nothing_ran(tmp_path: Path) -> None:
    assert [outcome.why for outcome in read(tmp_path / "junit.xml", [NODE])] == ["it did not run"]


def test_summary_names_what_failed_and_counts() -> None:
    told = summary([Outcome(NODE, 2.0), Outcome(STORAGE, 3.0, "it broke")], 90.0)
    assert told.splitlines() == [f"failed: {STORAGE}", "        it broke", "1 passed, 1 failed of 2 in 1.5 minutes"]
