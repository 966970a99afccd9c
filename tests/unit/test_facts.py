"""vknix.nspawn.facts: what is told of a container, also after a power cut."""

import base64
import json
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.build import ROOT, UID32, pod, told, view
from tests.unit.listed import RECORD, fact, lines, printed
from tests.unit.test_status import apply
from vknix.core import restart
from vknix.core.facts import ContainerFacts, HostName, ImageFacts, ImageState, PodFacts, Reason, State, Uid
from vknix.core.status import patch, pod_status
from vknix.nspawn import listing, paths
from vknix.nspawn.facts import pod_facts
from vknix.nspawn.tree import File
from vknix.nspawn.unit_state import Unit

HOST = HostName("a")
UNIT = paths.unit(UID32, "main")


def seen(facts: bytes = b"", logs: dict[int, float] | None = None, unit: Unit | None = None) -> ContainerFacts | None:
    names = "".join(f"var/lib/vknix/{UID32}/c/main/log/{number}.log {at}\n" for number, at in (logs or {}).items())
    (found,) = listing.found(printed(facts, names))
    return pod_facts(found, HOST, {UNIT: unit} if unit else {}, {}).containers.get("main")


def must(of: ContainerFacts | None) -> ContainerFacts:
    assert of is not None
    return of


def test_end_of_an_attempt_that_was_stopped_to_start_again_says_so() -> None:
    marks = File(f"{paths.var_of(UID32, 'main')}/again", b"1\n1\n")
    (found,) = listing.found(printed(lines(fact(0), fact(1)), "", json.dumps(RECORD).encode(), marks))
    ended = must(pod_facts(found, HOST, {}, {}).containers.get("main"))
    assert [each.again for each in ended.exits] == [False, True]


@pytest.mark.parametrize(
    ("fields", "code", "signal", "reason"),
    [
        pytest.param({}, 0, 0, Reason.COMPLETED, id="exit 0"),
        pytest.param({"status": "3", "result": "exit-code"}, 3, 0, Reason.ERROR, id="exit 3"),
        pytest.param({"status": "1", "signal": "KILL"}, 137, 9, Reason.ERROR, id="a signal that nspawn told of"),
        pytest.param({"status": "143", "signal": "15"}, 143, 15, Reason.ERROR, id="a signal that the kernel told of"),
        pytest.param({"status": "165", "signal": "37"}, 165, 37, Reason.ERROR, id="one of those without a name"),
        pytest.param({"code": "killed", "status": "TERM"}, 143, 15, Reason.ERROR, id="nspawn killed"),
        pytest.param({"code": "dumped", "status": "SEGV", "signal": "SEGV"}, 139, 11, Reason.ERROR, id="nspawn dumped"),
        pytest.param({"code": "killed", "status": "KILL", "oom": True}, 137, 9, Reason.OOM_KILLED, id="out of memory"),
        pytest.param({"status": "1", "signal": "START"}, 128, 0, Reason.START_ERROR, id="program missing"),
        pytest.param({"code": "", "status": "", "result": "resources"}, 128, 0, Reason.START_ERROR, id="never executed"),
        pytest.param({"result": "lost", "code": "", "status": ""}, 137, 0, Reason.UNKNOWN, id="power cut"),
        pytest.param({"status": "1", "signal": "RTMIN+3"}, 137, 9, Reason.ERROR, id="a signal without a number of its own"),
        pytest.param({"status": "1", "signal": "KILL", "oom": False}, 137, 9, Reason.ERROR, id="killed but not for memory"),
    ],
)
def test_the_end_in_kubernetes_words(fields: dict[str, Any], code: int, signal: int, reason: Reason) -> None:
    (ended,) = must(seen(lines(fact(**fields)))).exits
    assert (ended.code, ended.signal, ended.reason) == (code, signal, reason)


def test_an_exit_has_times_id_and_message() -> None:
    message = base64.b64encode("bye \xff".encode("latin-1")).decode()
    (ended,) = must(seen(lines(fact(message=message)))).exits
    assert (ended.started, ended.finished, ended.id, ended.message) == (1.0, 2.0, "id-0", "bye �")


ONE, TWO = fact(0, status="1"), fact(1, status="2")


@pytest.mark.parametrize(
    ("unit", "state", "attempt", "waits"),
    [
        pytest.param(None, State.STOPPED, 1, False, id="gone"),
        pytest.param(Unit("failed", "failed", "id-1"), State.STOPPED, 1, False, id="failed"),
        pytest.param(Unit("inactive", "dead", "id-1"), State.STOPPED, 1, False, id="dead"),
        pytest.param(Unit("inactive", "dead"), State.PREPARING, 2, False, id="made in this moment"),
        pytest.param(Unit("activating", "auto-restart", "id-1"), State.STOPPED, 1, True, id="its host will restart it"),
        pytest.param(Unit("activating", "auto-restart-queued", "id-1"), State.STOPPED, 1, True, id="in a moment"),
        pytest.param(Unit("failed", "failed-before-auto-restart", "id-1"), State.STOPPED, 1, True, id="just before it waits"),
        pytest.param(Unit("activating", "start", "id-2"), State.PREPARING, 2, False, id="starting"),
        pytest.param(Unit("activating", "start"), State.PREPARING, 2, False, id="asked to start"),
        pytest.param(Unit("active", "running", "id-2", 5.0), State.RUNNING, 2, False, id="runs"),
        pytest.param(Unit("deactivating", "stop-sigterm", "id-2"), State.STOPPING, 2, False, id="is stopped"),
    ],
)
def test_state_and_attempt(unit: Unit | None, state: State, attempt: int, waits: bool) -> None:
    made = must(seen(lines(ONE, TWO), {0: 1.0, 1: 2.0}, unit))
    assert (made.state, made.attempt, made.host_restarts) == (state, attempt, waits)
    assert [ended.code for ended in made.exits] == [1, 2]


@pytest.mark.parametrize(
    "unit",
    [
        pytest.param(Unit("deactivating", "stop-post", "id-1"), id="its unit is not through"),
        pytest.param(Unit("activating", "start", attempt=1), id="nothing was heard of its unit yet"),
        pytest.param(Unit("active", "running", "id-1", attempt=1), id="its unit was heard of while it ran"),
    ],
)
def test_the_end_of_an_attempt_is_told_once_its_unit_has_ended(unit: Unit) -> None:
    made = must(seen(lines(ONE, TWO), {0: 1.0, 1: 2.0}, unit))
    assert (made.attempt, [ended.code for ended in made.exits]) == (1, [1])
    assert must(seen(lines(ONE, TWO), {0: 1.0, 1: 2.0}, replace(unit, active="failed"))).attempt == 1


def test_files_that_are_ahead_of_a_waiting_unit_tell_the_end_it_waits_after() -> None:
    """Else the attempt that has ended would run again, once systemd tells that it has begun."""
    of = must(seen(lines(ONE, TWO), unit=Unit("activating", "auto-restart", "id-0")))
    assert (of.attempt, [each.id for each in of.exits]) == (0, ["id-0"])


def test_what_began_in_sight_is_never_lost() -> None:
    """Its log may be read before systemd has told of its unit."""
    (found,) = listing.found(printed(b"", f"var/lib/vknix/{UID32}/c/main/log/0.log 7.0\n"))
    begun = pod_facts(replace(found, listed={}), HOST, {UNIT: Unit("inactive", "dead")}, {}).containers["main"]
    assert (begun.state, begun.exits) == (State.PREPARING, ())
    assert pod_facts(replace(found, listed={}), HOST, {}, {}).containers == {}
    assert must(pod_facts(replace(found, listed={"main": 0}), HOST, {}, {}).containers["main"]).exits[0].reason is Reason.UNKNOWN


def test_a_container_that_never_began_is_left_out() -> None:
    assert seen() is None
    assert must(seen(unit=Unit("activating", "start"))).attempt == 0


def test_a_running_one_has_its_own_id_and_time() -> None:
    made = must(seen(lines(ONE), {0: 1.0, 1: 3.0}, Unit("active", "running", "id-1", 5.0)))
    assert (made.id, made.started, made.attempt) == ("id-1", 5.0, 1)


@pytest.mark.parametrize(
    ("facts", "logs", "attempts", "reasons"),
    [
        pytest.param(b"", {0: 7.0}, 1, [Reason.UNKNOWN], id="the first"),
        pytest.param(lines(ONE), {0: 1.0, 1: 7.0}, 2, [Reason.ERROR, Reason.UNKNOWN], id="the second"),
        pytest.param(lines(ONE) + b'{"attempt":1,"id', {0: 1.0, 1: 7.0}, 2, [Reason.ERROR, Reason.UNKNOWN], id="while it wrote"),
        pytest.param(lines(ONE) + b"\0\0\0\0", {0: 1.0, 1: 7.0}, 2, [Reason.ERROR, Reason.UNKNOWN], id="zeros"),
        pytest.param(
            b'{"att\n' + lines(TWO), {0: 7.0, 1: 8.0}, 2, [Reason.UNKNOWN, Reason.ERROR], id="the torn one has a successor"
        ),
        pytest.param(b'{"att', {0: 6.0, 1: 7.0}, 2, [Reason.UNKNOWN, Reason.UNKNOWN], id="twice"),
        pytest.param(b"7\n", {0: 7.0}, 1, [Reason.UNKNOWN], id="no object"),
    ],
)
def test_an_attempt_that_a_power_cut_ended_is_lost_and_counts(
    facts: bytes, logs: dict[int, float], attempts: int, reasons: list[Reason]
) -> None:
    made = must(seen(facts, logs))
    assert (made.state, made.attempt) == (State.STOPPED, attempts - 1)
    assert [ended.reason for ended in made.exits] == reasons
    assert 7.0 in [ended.finished for ended in made.exits]


def test_a_line_that_is_being_written_is_no_end_yet() -> None:
    made = must(seen(lines(ONE) + b'{"attempt":1', {0: 1.0, 1: 7.0}, Unit("deactivating", "stop-post", "id-1")))
    assert (made.state, made.attempt, len(made.exits)) == (State.STOPPING, 1, 1)


def test_a_torn_line_counts_once_its_successor_runs() -> None:
    made = must(seen(lines(ONE) + b'{"attempt":1', {0: 1.0, 1: 7.0, 2: 9.0}, Unit("active", "running", "id-2", 9.0)))
    assert (made.attempt, [ended.reason for ended in made.exits]) == (2, [Reason.ERROR, Reason.UNKNOWN])


def test_what_a_host_has_of_a_pod() -> None:
    image = ImageFacts(ROOT, ImageState.PRESENT)
    (found,) = listing.found(printed(b"", "", json.dumps(RECORD).encode(), File(f"{paths.run(UID32)}/net", b"")))
    assert pod_facts(found, HOST, {}, {ROOT: image}) == PodFacts(found_uid(), HOST, "shop", "web", ("10.0.0.2",), {}, {ROOT: image})
    (bare,) = listing.found(printed())
    assert pod_facts(bare, HOST, {}, {}).addresses == ()


@pytest.mark.parametrize(
    ("marker", "since"),
    [(b"12.5\n", 12.5), (b"said by a tool\n12.5\n", 12.5), (None, inf)],
    ids=["made", "with words before it", "a reboot took it"],
)
def test_what_ended_before_the_network_was_made_ended_in_another_sandbox(marker: bytes | None, since: float) -> None:
    more = (File(f"{paths.run(UID32)}/net", marker),) if marker is not None else ()
    (found,) = listing.found(printed(b"", "", json.dumps(RECORD).encode(), *more))
    assert pod_facts(found, HOST, {}, {}).since == since


def found_uid() -> Uid:
    return paths.uid(UID32)


@dataclass
class Model:
    """A container on a host, as systemd, vktool and the sync script keep its files."""

    facts: list[str] = field(default_factory=list)
    torn: bool = False
    logs: dict[int, float] = field(default_factory=dict)
    unit: Unit | None = None
    now: float = 100.0

    def start(self) -> None:
        if self.unit is None or self.unit.sub == "auto-restart":
            if self.unit is None:
                self.repair()
            number = len(self.facts)
            self.logs[number] = self.now
            self.unit = Unit("active", "running", f"id-{number}", self.now)

    def repair(self) -> None:
        """What unit.sync does first of all."""
        self.torn = False
        lost = max(self.logs, default=-1)
        if lost >= len(self.facts):
            self.facts.append(json.dumps({"attempt": lost, "id": "", "started": None, "finished": None, "result": "lost"}))

    def end(self, code: int, again: bool) -> None:
        if self.unit is not None and self.unit.sub == "running":
            number = len(self.facts)
            self.facts.append(json.dumps(fact(number, status=str(code), finished=int(self.now * 1e9))))
            self.unit = Unit("activating", "auto-restart", f"id-{number}") if again else None

    def power_cut(self, torn: bool) -> None:
        if torn and self.unit is not None and self.unit.sub == "running":
            self.facts.append('{"attempt":')
            self.torn = True
        self.unit = None

    def data(self) -> bytes:
        text = "\n".join(self.facts)
        return (text if self.torn or not text else text + "\n").encode()

    def seen(self) -> PodFacts:
        names = "".join(f"var/lib/vknix/{UID32}/c/main/log/{number}.log {at}\n" for number, at in self.logs.items())
        (found,) = listing.found(printed(self.data(), names))
        return pod_facts(found, HOST, {UNIT: self.unit} if self.unit else {}, {})


steps = st.one_of(
    st.just(("start",)),
    st.tuples(st.just("end"), st.sampled_from([0, 1, 137]), st.booleans()),
    st.tuples(st.just("power_cut"), st.booleans()),
)


@given(st.lists(steps, max_size=14), st.sampled_from(["Always", "OnFailure", "Never"]))
def test_counts_and_attempts_never_go_back(history: list[tuple[Any, ...]], policy: str) -> None:
    model, of, attempt, count = Model(), pod(restart=policy), 0, 0
    for name, *arguments in history:
        getattr(model, name)(*arguments)
        model.now += 1
        facts = model.seen()
        main = facts.containers.get("main")
        if main is not None:
            assert main.attempt >= attempt
            assert main.attempt == max(model.logs)
            assert len(main.exits) <= 2
            assert main.streak <= len(model.facts) + 1
            attempt = main.attempt
        of = told(of, apply(of.status, patch(of.status, pod_status(of, view(facts, now=model.now)))))
        assert of.told("main").get("restartCount", 0) >= count
        count = of.told("main").get("restartCount", 0)


def test_a_streak_counts_all_ends_not_the_last_two() -> None:
    made = must(seen(lines(*(fact(number, status="1") for number in range(9))), dict.fromkeys(range(9), 1.0)))
    assert (made.streak, restart.delay_s(made.streak)) == (9, 300)
