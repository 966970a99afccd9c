"""The status of one container: states, last state, restart count, in the kubelet's words."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from vknix.core import restart, rounds, spec_status, storage, user
from vknix.core.container import Container
from vknix.core.decide import Row, initialised, never_ran, row
from vknix.core.facts import ContainerFacts, Exit, ImageState, PodFacts, Reason, State
from vknix.core.handlers import DEFAULT
from vknix.core.pod import Kind, Member, Pod
from vknix.core.resize import Resize
from vknix.errors import Refused

RUNTIME = "systemd-nspawn"
_MESSAGES_BYTES = 12 << 10
_LOST_MESSAGE = "The container could not be located when the pod was {}"


@dataclass(frozen=True, slots=True)
class View:
    """What a status is made from, beside the Pod. `lost` is a sentence: why its host can't be asked; None: it can.

    `refused`: the whole Pod can't be had, for good. `held`: containers that wait for something to be put right.
    """

    facts: PodFacts | None
    now: float
    lost: str | None = None
    refused: Refused | None = None
    held: Mapping[str, Refused] = field(default_factory=dict)
    host_ips: tuple[str, ...] = ()
    pod_ips: tuple[str, ...] = ()
    placed: bool = False
    resizing: Resize | None = None

    def initialised(self, pod: Pod) -> bool:
        return not pod.spec.init_containers or initialised(pod, self.facts)


@dataclass(frozen=True, slots=True)
class ContainerView:
    pod: Pod
    member: Member
    view: View

    @property
    def container(self) -> Container:
        return self.member.container

    @property
    def path(self) -> str:
        return self.member.path

    @property
    def seen(self) -> ContainerFacts | None:
        return self.view.facts.containers.get(self.container.name) if self.view.facts is not None else None

    @property
    def told(self) -> dict[str, Any]:
        return self.pod.told(self.container.name)

    @property
    def unreadable(self) -> Refused | None:
        return storage.unreadable(self.pod, self.path, self.container)

    @property
    def message_bytes(self) -> int:
        """A container's share of what termination messages of a Pod may take together."""
        spec = self.pod.spec
        return _MESSAGES_BYTES // sum(len(of or ()) for of in (spec.containers, spec.init_containers, spec.ephemeral_containers))

    @property
    def round_is_over(self) -> bool:
        return row(self.pod, self.view.now) is Row.WANTED and rounds.is_over(self.pod, self.view.facts)

    @property
    def comes_again(self) -> bool:
        """Whether it has ended (or is lost) and is to be started again, or is about to."""
        if row(self.pod, self.view.now) is not Row.WANTED:
            return False
        seen = self.seen
        if seen is None and rounds.waits(self.told):
            return True
        if seen is None or seen.last_exit is None:
            return restart.may_restart(self.member, 137)
        if seen.state is State.STOPPED:
            return restart.again(self.member, seen, seen.last_exit)
        return seen.state is State.PREPARING


def container_status(of: ContainerView) -> dict[str, Any]:
    seen = of.seen
    states = _known(of, seen) if seen is not None else _unknown(of)
    up = seen is not None and "running" in states["state"] and seen.up
    container = of.container
    return {
        "name": container.name,
        "image": container.image,
        "imageID": _image_id(of) if states.get("containerID") else of.told.get("imageID", ""),
        "containerID": "",
        "lastState": {},
        **states,
        "restartCount": max(states.get("restartCount", 0), of.told.get("restartCount", 0)),  # also where a host lost its facts
        "ready": _ready(of, states, up=up),
        **({"started": up} if of.member.kind is not Kind.EPHEMERAL else {}),
        **spec_status.stop_signal(container),
        **spec_status.resources(container),
        **spec_status.mounts(container),
        **(_user(of) if states.get("containerID") and of.unreadable is None else {}),
    }


def _user(of: ContainerView) -> dict[str, Any]:
    """As it was told where the image's accounts are not known (yet)."""
    facts, image = of.view.facts, of.pod.image(of.path, of.container)
    fetched = facts.images.get(image.path) if facts is not None else None
    accounts = user.known(image, facts.handler if facts is not None else DEFAULT, fetched.accounts if fetched is not None else None)
    if accounts is None or facts is None:
        return {"user": of.told["user"]} if of.told.get("user") else {}
    return {"user": user.status(of.pod, of.path, of.container, accounts)}


def _ready(of: ContainerView, states: dict[str, Any], *, up: bool) -> bool:
    """An init container once it is done; an ephemeral one never is."""
    if of.member.kind is Kind.INIT:
        return _done(states)
    return of.member.kind is not Kind.EPHEMERAL and up and of.seen is not None and of.seen.ready


def _done(states: dict[str, Any]) -> bool:
    end = states["state"].get("terminated")
    return end is not None and end["exitCode"] == 0


def _began(of: ContainerView, seen: ContainerFacts, own_id: str) -> str:
    """A unit that stops no longer says since when it ran: that was told while it did."""
    if seen.started is not None:
        return stamp(seen.started)
    before = of.told.get("state", {}).get("running", {}).get("startedAt") if of.told.get("containerID") == own_id else None
    return str(before or stamp(of.view.now))


def _had_begun(of: ContainerView, ended: Exit) -> str | None:
    """As it was told while it ran: what its own end says of it is a moment earlier."""
    states = (of.told.get("state", {}), of.told.get("lastState") or {})
    ends = [state["terminated"] for state in states if state.get("terminated")]
    running = states[0].get("running")
    told = [{**running, "containerID": of.told.get("containerID")}] if running else []
    known = next((each.get("startedAt") for each in (*told, *ends) if each.get("containerID") == _id(ended.id)), None)
    if known:
        return min(str(known), stamp(ended.finished))
    return stamp(ended.started) if ended.started is not None else None


def mark_lost(told: dict[str, Any]) -> dict[str, Any]:
    return {**told, "ready": False}


def _image_id(of: ContainerView) -> str:
    if of.unreadable is not None:
        return str(of.told.get("imageID", ""))
    return f"nix:0{of.pod.image(of.path, of.container).path}"


def _told_end(of: ContainerView) -> dict[str, Any] | None:
    """The end that was told last stays, whatever its host knows of it by now."""
    told = of.told
    if not told.get("state", {}).get("terminated"):
        return None
    return {key: told[key] for key in ("state", "lastState", "restartCount", "containerID") if key in told}


def _known(of: ContainerView, seen: ContainerFacts) -> dict[str, Any]:
    ended = seen.last_exit
    if ended is not None and ended.reason is Reason.UNKNOWN and seen.state is State.STOPPED:
        told = _told_end(of)  # its host was being cleaned when it was listed
        if told is not None and told.get("restartCount", 0) >= seen.attempt:
            return told
    if ended is not None and of.member.kind is not Kind.EPHEMERAL and of.round_is_over:
        return _past(of, seen, ended)
    if ended is None and seen.state is State.PREPARING:  # not told before it runs, which is a moment later
        return {"state": {"waiting": _waiting(of)}}
    states: dict[str, Any] = {"restartCount": seen.attempt, "containerID": _id(seen.id or (ended.id if ended else ""))}
    if ended is not None and seen.state is State.PREPARING and rounds.is_of_past(of.told, ended):
        return {"restartCount": seen.attempt, "state": {"waiting": _waiting(of)}, "lastState": of.told["lastState"]}
    if ended is not None and seen.state is State.PREPARING:  # the attempt before is shown until the next one runs
        states = {"restartCount": seen.attempt - 1, "containerID": _id(ended.id)}
    if seen.state in (State.RUNNING, State.STOPPING) and seen.hooking:
        return {**states, "state": {"waiting": _waiting(of)}, "lastState": _terminated(of, ended) if ended else {}}
    if seen.state in (State.RUNNING, State.STOPPING):
        state = {"running": {"startedAt": _began(of, seen, states["containerID"])}}
        return {**states, "state": state, "lastState": _terminated(of, ended) if ended else {}}
    if ended is None:
        return {"state": {"waiting": _waiting(of)}}
    waits = of.comes_again
    if waits and seen.state is State.STOPPED and seen.hook_error:
        waiting = {"reason": "PostStartHookError", "message": seen.hook_error}
        return {**states, "state": {"waiting": waiting}, "lastState": _terminated(of, ended)}
    # The API server refuses that what it was told to have ended for good runs again.
    for_good = of.member.kind is not Kind.INIT and not restart.may_restart(of.member, ended.code)
    if (for_good and seen.state is State.PREPARING) or (of.comes_again and (for_good or of.unreadable is not None)):
        return {**states, "state": {"waiting": _waiting(of)}, "lastState": _terminated(of, ended)}
    if waits and restart.due(seen, ended) > ended.finished:
        return {**states, "state": {"waiting": _crash_loop(of, seen)}, "lastState": _terminated(of, ended)}
    before = seen.exits[-2] if len(seen.exits) > 1 else None
    return {**states, "state": _terminated(of, ended), "lastState": _terminated(of, before) if before else {}}


def _past(of: ContainerView, seen: ContainerFacts, ended: Exit) -> dict[str, Any]:
    """Its round is over: however it ended, it counts as if it had not run."""
    waiting = {"reason": rounds.REASON, "message": rounds.MESSAGE}
    end = {**_terminated(of, ended)["terminated"], "exitCode": 137, **waiting}
    end.pop("signal", None)
    return {"restartCount": seen.attempt + 1, "state": {"waiting": waiting}, "lastState": {"terminated": end}}


def _unknown(of: ContainerView) -> dict[str, Any]:
    """Its host has nothing of it: it never ran, or what ran is lost, or was in a round that is over."""
    if rounds.waits(of.told):
        return {"state": {"waiting": _waiting(of)}, "lastState": of.told["lastState"]}
    if never_ran(of.pod, of.container.name):
        return {"state": {"waiting": _waiting(of)}}
    told, known = of.told, _told_end(of)
    if known is not None:
        return known
    end = {
        "terminated": {
            "exitCode": 137,
            "reason": Reason.UNKNOWN.value,
            "message": _LOST_MESSAGE.format("deleted" if of.pod.leaving else "terminated"),
            "startedAt": None,
            "finishedAt": None,
        }
    }
    if told.get("lastState", {}).get("terminated", {}).get("reason") == Reason.UNKNOWN.value and "waiting" in told.get("state", {}):
        return {"state": {"waiting": _waiting(of)}, "lastState": told["lastState"], "restartCount": told.get("restartCount", 0)}
    if of.comes_again:
        return {"state": {"waiting": _waiting(of)}, "lastState": end, "restartCount": told.get("restartCount", 0) + 1}
    return {"state": end, "restartCount": told.get("restartCount", 0), "containerID": told.get("containerID", "")}


def _waiting(of: ContainerView) -> dict[str, Any]:
    held = of.view.held.get(of.container.name) or of.unreadable
    if held is not None:
        return {"reason": held.reason, "message": str(held)}
    images = of.view.facts.images if of.view.facts is not None else {}
    needed = ((name, images.get(root)) for name, root in storage.roots(of.pod, of.path, of.container).items())
    name, fetched = next(((name, each) for name, each in needed if each and each.state is ImageState.FAILED), ("", None))
    if fetched is None:
        return {"reason": "PodInitializing" if of.pod.spec.init_containers else "ContainerCreating"}
    first = of.told.get("state", {}).get("waiting", {}).get("reason") not in ("ErrImagePull", "ImagePullBackOff")
    if first:
        return {"reason": "ErrImagePull", "message": fetched.message}
    return {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{name}": {fetched.message}'}


def _crash_loop(of: ContainerView, seen: ContainerFacts) -> dict[str, Any]:
    pod = of.pod
    wait = restart.delay_s(seen.streak)
    what = f"container={of.container.name} pod={pod.name}_{pod.namespace}({pod.uid})"
    return {"reason": "CrashLoopBackOff", "message": f"back-off {_go_duration(wait)} restarting failed {what}"}


def _go_duration(seconds: int) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _terminated(of: ContainerView, ended: Exit) -> dict[str, Any]:
    if rounds.is_of_past(of.told, ended):
        return dict(of.told["lastState"])
    state: dict[str, Any] = {
        "exitCode": ended.code,
        "reason": ended.reason.value,
        "startedAt": _had_begun(of, ended),
        "finishedAt": stamp(ended.finished),
        "containerID": _id(ended.id),
    }
    if ended.signal:
        state["signal"] = ended.signal
    if ended.message:
        state["message"] = ended.message.encode()[: of.message_bytes].decode(errors="ignore")
    return {"terminated": state}


def _id(invocation: str) -> str:
    return f"{RUNTIME}://{invocation}" if invocation else ""


def stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
