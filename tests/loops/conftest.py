from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.cluster import connected
from tests.loops.world import MISSING, World
from vknix.fake.host import FakeHost


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Two hosts, red and blue, whose waits are short."""
    hosts = {name: FakeHost(name, missing=(MISSING,), ladder_s=(0.3,), retry_s=0.05, fetch_s=0.01) for name in ("blue", "red")}
    async with connected(tmp_path) as (cluster, client):
        yield World(cluster, client, hosts)
