"""A choice of the upstream conformance tests, quick ones of each group, and virtual-kubelet's own. All: scripts/conformance."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance import report, suite, virtual_kubelet
from tests.conformance.run import names, run_tests, start_vknix
from tests.lab.lab import Lab

pytestmark = pytest.mark.lab


@pytest.fixture
def two_nodes(lab: Lab) -> Iterator[Lab]:
    """The lab with two nodes without a taint; its usual one is made anew for the tests that follow."""
    start_vknix(lab, nodes=2)
    yield lab
    lab.vknix.stop()
    lab.kubectl("delete", "nodes", "--all")


@pytest.mark.timeout(420)
def test_quick_conformance_tests_pass(two_nodes: Lab, tmp_path: Path) -> None:
    tests = suite.quick(names(two_nodes.layout.kubernetes))
    outcomes = run_tests(two_nodes, tests, procs=4, folder=tmp_path, told=print)
    assert not [outcome for outcome in outcomes if outcome.why], report.summary(outcomes, 0)


@pytest.mark.timeout(420)  # on a machine that has not built them yet
def test_virtual_kubelet_s_own_tests_pass(lab: Lab) -> None:
    outcomes = virtual_kubelet.run_tests(lab, print)
    assert len(outcomes) == 9
    assert not [outcome for outcome in outcomes if outcome.why], report.summary(outcomes, 0)
