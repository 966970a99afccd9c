"""The nspawn backend keeps the contract of vknix/provider.py, on real hosts."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.lab.lab import Lab
from vknix import config as configs
from vknix.core.facts import HostName
from vknix.node import host_specs
from vknix.nspawn.host import HostSettings
from vknix.nspawn.provider import NspawnProvider
from vknix.testing.bench import Bench
from vknix.testing.contract import CHECKS, Check, run_check

pytestmark = pytest.mark.lab

MISSING = f"/nix/store/{'1' * 32}-nowhere"


@pytest.fixture(scope="module")
def bench(lab: Lab) -> Iterator[Bench]:
    """The lab's hosts without its vknix, under the epoch that they obey now: so the next vknix can lead them again."""
    lab.vknix.stop()
    for host in lab.hosts:
        host.heal()
    epoch = max(int(host.run("cat /run/vknix/epoch 2>/dev/null || echo 1")) for host in lab.hosts)
    config = configs.parse(_yaml(lab), lab.vknix.config_file.parent)
    specs = host_specs(config.nodes[0])

    async def lose(name: HostName) -> None:
        await asyncio.to_thread(lab.host(name).cut)

    async def heal(name: HostName) -> None:
        await asyncio.to_thread(lab.host(name).heal)

    yield Bench(
        provider=lambda: NspawnProvider(specs, HostSettings(epoch, seccomp_default=False, cluster_cidrs=())),
        image=lab.image_busybox,
        missing=MISSING,
        pod_cidrs=("10.233.0.0/16",),
        lose=lose,
        heal=heal,
        within_s=45.0,
    )
    for host in lab.hosts:
        host.heal()


def _yaml(lab: Lab) -> str:
    lab.vknix.write_config()
    return lab.vknix.config_file.read_text()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_nspawn_keeps_the_contract(bench: Bench, check: Check) -> None:
    await run_check(check, bench)
