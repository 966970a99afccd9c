"""A link's windows against a real SSH server on loopback: what nobody reads stays with who sends it."""

import asyncio
from pathlib import Path

import asyncssh

from vknix.nspawn.ssh import Address, Link

PIECE = bytes(32 * 1024)
READ = 256 * 1024
READS = 48
TURNS = 20  # of the event loop after each read, so that the server sends what it may
MOST = 8 << 20  # the channel's window of 2 MiB, and what stands in buffers and sockets on both sides


class Pouring:
    """A command that writes for ever."""

    def __init__(self) -> None:
        self.sent = 0

    async def __call__(self, process: "asyncssh.SSHServerProcess[bytes]") -> None:
        while True:
            process.stdout.write(PIECE)
            await process.stdout.drain()
            self.sent += len(PIECE)


async def test_a_slow_reader_holds_the_sender_up(tmp_path: Path) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    public = key.export_public_key().decode()
    key_file = tmp_path / "key"
    key.write_private_key(key_file)
    pouring = Pouring()
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[key],
        authorized_client_keys=asyncssh.import_authorized_keys(public),
        process_factory=pouring,
        encoding=None,
    )
    async with server:
        to = Address("red", "127.0.0.1", server.get_port(), "root", key_file, (public,))
        async with Link.open(to) as link, link.stream("pour") as process:
            taken, ahead = 0, 0
            for _ in range(READS):
                taken += len(await process.stdout.readexactly(READ))
                for _ in range(TURNS):
                    await asyncio.sleep(0)
                ahead = max(ahead, pouring.sent - taken)
    assert READ < ahead <= MOST
