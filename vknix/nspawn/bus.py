"""systemd of one host over D-Bus, on a channel of its SSH connection: which units there are, and what changes.

dbus-fast 5.2 takes a full socket for the end of the connection; `_Patient` puts that right, and a test pins what it touches.
"""

import asyncio
import logging
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
from dbus_fast import Message, MessageType
from dbus_fast.aio import MessageBus
from dbus_fast.auth import UID_NOT_SPECIFIED, AuthExternal

from vknix.errors import Unreachable
from vknix.nspawn.ssh import Link, said
from vknix.nspawn.unit_state import Unit, merge

log = logging.getLogger(__name__)

_SYSTEMD = "org.freedesktop.systemd1"
_MANAGER = "org.freedesktop.systemd1.Manager"
_OBJECT = "/org/freedesktop/systemd1"
_UNIT_PATH = f"{_OBJECT}/unit/"
_SOCKET = "/run/dbus/system_bus_socket"
_CALL_S = 20.0


class _Patient:
    """A socket whose send() says that nothing was sent where it would block, so that dbus-fast waits instead of giving up."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self.sendmsg = sock.sendmsg

    def send(self, data: bytes) -> int:
        try:
            return int(self._sock.send(data))
        except BlockingIOError:
            return 0


class Bus:
    """Made by `connect`. `changes` are all changes since `subscribe`, in order, several of one unit as one."""

    def __init__(self, bus: MessageBus, prefix: str) -> None:
        self._bus = bus
        self._prefix = prefix
        self._escaped = _UNIT_PATH + escape(prefix)
        self._pending: dict[str, dict[str, Any] | None] = {}
        self._woken = asyncio.Event()
        bus.add_message_handler(self._heard)

    def _heard(self, message: Message) -> None:
        if message.message_type is not MessageType.SIGNAL:
            return
        path = message.path or ""
        if message.member == "PropertiesChanged" and path.startswith(self._escaped):
            name = unescape(path[len(_UNIT_PATH) :])
            before = self._pending.get(name) or {}
            self._pending[name] = before | {key: variant.value for key, variant in message.body[1].items()}
            self._woken.set()
        elif message.member == "UnitRemoved" and message.body[0].startswith(self._prefix):
            self._pending[message.body[0]] = None
            self._woken.set()

    async def _call(
        self, member: str, signature: str = "", *body: Any, to: tuple[str, str, str] = (_SYSTEMD, _OBJECT, _MANAGER)
    ) -> list[Any]:
        destination, path, interface = to
        call = Message(destination=destination, path=path, interface=interface, member=member, signature=signature, body=list(body))
        try:
            async with asyncio.timeout(_CALL_S):
                reply = await self._bus.call(call)
        except (EOFError, OSError, TimeoutError) as error:
            raise Unreachable(f"systemd's bus: {said(error)}") from error
        if reply.message_type is MessageType.ERROR:
            raise Unreachable(f"systemd's bus: {reply.error_name}: {reply.body}")
        return list(reply.body)

    async def subscribe(self) -> None:
        """From here on changes are kept; what was before is for `units` to tell."""
        daemon = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
        for rule in (
            f"type='signal',sender='{_SYSTEMD}',interface='org.freedesktop.DBus.Properties',path_namespace='{_OBJECT}/unit'",
            f"type='signal',sender='{_SYSTEMD}',interface='{_MANAGER}',member='UnitRemoved'",
        ):
            await self._call("AddMatch", "s", rule, to=daemon)
        await self._call("Subscribe")

    async def units(self, names: Collection[str] = ()) -> dict[str, Unit]:
        """Those of these names, or all whose name begins with the prefix, with what they have been since."""
        (rows,) = await self._call("ListUnitsByPatterns", "asas", [], list(names) or [f"{self._prefix}*"])
        units = {}
        async with asyncio.TaskGroup() as tasks:  # 64 calls at a time: a bus daemon bounds what is outstanding
            places = asyncio.Semaphore(64)
            reads = {row[0]: tasks.create_task(self._read(row[6], places)) for row in rows if row[0].endswith(".service")}
        for row in rows:
            if row[0] in reads:
                known = reads[row[0]].result()
                units[row[0]] = Unit(row[3], row[4], known.id, known.since, known.image)
        return units

    async def _read(self, path: str, places: asyncio.Semaphore) -> Unit:
        async with places:
            (all_of,) = await self._call("GetAll", "s", f"{_SYSTEMD}.Unit", to=(_SYSTEMD, path, "org.freedesktop.DBus.Properties"))
        return merge(None, {key: variant.value for key, variant in all_of.items()})

    async def changes(self) -> dict[str, dict[str, Any] | None]:
        """Waits for the next: units by name with the properties that changed; None: the unit is gone. `lost` tells the end."""
        await self._woken.wait()
        self._woken.clear()
        pending, self._pending = self._pending, {}
        return pending

    async def lost(self) -> None:
        """Returns once the bus is gone."""
        try:
            await self._bus.wait_for_disconnect()  # type: ignore[no-untyped-call]  # not annotated there
        except (EOFError, OSError) as error:
            log.debug("bus: %s", said(error))


def escape(name: str) -> str:
    """As systemd makes object paths of unit names."""
    return "".join(char if char.isascii() and char.isalnum() else f"_{ord(char):02x}" for char in name)


def unescape(path: str) -> str:
    return re.sub(r"_([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), path)


@asynccontextmanager
async def connect(link: Link, prefix: str) -> AsyncIterator[Bus]:
    """Unreachable where the host lets no bus be reached."""
    folder = Path(tempfile.mkdtemp(prefix="vknix-bus-"))  # 0700: whoever can open the socket is root on the host
    try:
        try:
            async with asyncio.timeout(_CALL_S):
                listener = await link.control.forward_local_path(str(folder / "bus"), _SOCKET)
                bus = await MessageBus(bus_address=f"unix:path={folder / 'bus'}", auth=AuthExternal(UID_NOT_SPECIFIED)).connect()
        except (EOFError, OSError, TimeoutError, asyncssh.Error) as error:
            raise Unreachable(f"host {link.to.name}: systemd's bus can't be reached: {said(error)}") from error
        assert bus._writer is not None
        bus._writer.sock = _Patient(bus._sock)  # type: ignore[assignment]  # it is used as far as _Patient goes
        try:
            yield Bus(bus, prefix)
        finally:
            bus.disconnect()
            listener.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
