"""The ConfigMaps and Secrets that running Pods refer to, each by a watch of its own: which Pods are to be told that one changed.

A node's identity may watch those that its Pods name, each by its name. Data is not kept: who is told reads again.
"""

import asyncio
from collections.abc import Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass, field

import msgspec

from vknix.core.facts import Uid
from vknix.core.fetched import ObjectKey
from vknix.kube import api, watch
from vknix.kube.client import Client

Ref = tuple[str, ObjectKey]  # in a namespace


class _Meta(msgspec.Struct):
    uid: str = ""
    resourceVersion: str = ""  # noqa: N815  # the API's word


class _Object(msgspec.Struct):
    metadata: _Meta


ABSENT = "absent"


@dataclass(slots=True)
class _Followed:
    """`version`: what its Pods were made from, or have been told of; empty: not known."""

    task: asyncio.Task[None]
    pods: set[Uid] = field(default_factory=set)
    version: str = ""


class Following:
    """`tasks` run the watches, and end with whoever made them. `tell` gets each Pod once for all that has changed meanwhile."""

    def __init__(self, client: Client, tasks: asyncio.TaskGroup, tell: Callable[[Uid], None]) -> None:
        self._client = client
        self._tasks = tasks
        self._tell = tell
        self._followed: dict[Ref, _Followed] = {}
        self._of: dict[Uid, frozenset[Ref]] = {}

    def follow(self, uid: Uid, namespace: str, keys: Collection[ObjectKey]) -> None:
        """From now on a change of one of these, and no others, is told to the Pod."""
        refs = frozenset((namespace, key) for key in keys)
        for ref in self._of.get(uid, frozenset()) - refs:
            self._drop(uid, ref)
        for ref in refs:
            if ref not in self._followed:
                self._followed[ref] = _Followed(self._tasks.create_task(self._watch(ref), name=f"watch of {ref[1].kind} {ref}"))
            self._followed[ref].pods.add(uid)
        self._of[uid] = refs

    def forget(self, uid: Uid) -> None:
        for ref in self._of.pop(uid, ()):
            self._drop(uid, ref)

    def read(self, ref: Ref, now: str) -> None:
        """What somebody has just read of it: no news when the watch says the same."""
        of = self._followed.get(ref)
        if of is not None and not of.version:
            of.version = now

    def _drop(self, uid: Uid, ref: Ref) -> None:
        of = self._followed[ref]
        of.pods.discard(uid)
        if not of.pods:
            of.task.cancel()
            del self._followed[ref]

    async def _watch(self, ref: Ref) -> None:
        namespace, key = ref
        of = (api.config_map_itself if key.kind == "ConfigMap" else api.secret_itself)(namespace, key.name)
        async with aclosing(watch.follow(self._client, of.path, query=of.query, decode=version)) as events:
            async for event in events:
                match event:
                    case watch.Listed(items):
                        self._saw(ref, items[0] if items else ABSENT)
                    case watch.Changed(now):
                        self._saw(ref, now)
                    case watch.Gone():
                        self._saw(ref, ABSENT)
                    case watch.Lost():
                        pass  # it is asked again

    def _saw(self, ref: Ref, now: str) -> None:
        of = self._followed.get(ref)
        if of is None or of.version == now:
            return
        of.version = now
        for uid in tuple(of.pods):
            self._tell(uid)


def version(raw: bytes) -> str:
    """Of an object: another one whenever it is another."""
    of = msgspec.json.decode(raw, type=_Object).metadata
    return f"{of.uid}/{of.resourceVersion}"
