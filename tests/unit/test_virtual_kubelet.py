"""What is understood of `go test -v`, and of `kubectl top`."""

from tests.conformance import metrics_server, virtual_kubelet

OUTPUT = """=== RUN   TestEndToEnd
=== RUN   TestEndToEnd/TestGetPods
    basic.go:47: Created pod: nginx-1
=== RUN   TestEndToEnd/TestGetStatsSummary
    basic.go:106: failed to find pod
=== NAME  TestEndToEnd
    suite.go:9: True
--- FAIL: TestEndToEnd (3.00s)
    --- PASS: TestEndToEnd/TestGetPods (2.25s)
    --- FAIL: TestEndToEnd/TestGetStatsSummary (0.50s)
FAIL
"""


def test_each_test_has_its_end_and_what_it_said() -> None:
    outcomes = {outcome.name: outcome for outcome in virtual_kubelet.read(OUTPUT)}
    assert set(outcomes) == set(virtual_kubelet.TESTS)
    assert (outcomes["TestGetPods"].why, outcomes["TestGetPods"].seconds) == ("", 2.25)
    assert outcomes["TestGetStatsSummary"].why == "basic.go:106: failed to find pod"
    assert outcomes["TestPodLifecycleForceDelete"].why == "it did not run"
    assert all(outcome.why == "it did not run" for outcome in virtual_kubelet.read(""))


TOP = """NAME    CPU(cores)   CPU(%)   MEMORY(bytes)   MEMORY(%)
vknix   544m         13%      25961Mi         53%
"""


def test_what_kubectl_top_says_is_read() -> None:
    assert metrics_server.rows(TOP) == {"vknix": (544, 25961)}
    assert metrics_server.rows("error: metrics not available yet\n") == {}
