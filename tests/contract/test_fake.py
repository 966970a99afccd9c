"""The backend in memory keeps the contract."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count

import pytest

from vknix.core.facts import HostName, Uid
from vknix.fake.host import FakeHost
from vknix.fake.provider import FakeProvider
from vknix.testing.bench import Bench
from vknix.testing.contract import CHECKS, Check, check_provider, run_check

PRESENT = f"nix:0/nix/store/{'0' * 32}-busybox"
MISSING = f"/nix/store/{'1' * 32}-nowhere"


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    hosts = {HostName(name): FakeHost(name, missing=(MISSING,)) for name in ("red", "blue")}

    async def lose(name: HostName) -> None:
        hosts[name].lose()

    async def heal(name: HostName) -> None:
        hosts[name].heal()

    yield Bench(
        provider=lambda: FakeProvider(*hosts.values()),
        image=PRESENT,
        missing=MISSING,
        pod_cidrs=("10.1.0.0/16",),
        lose=lose,
        heal=heal,
        within_s=5.0,
    )


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_fake_keeps_the_contract(check: Check) -> None:
    async with bench() as of:
        await run_check(check, of)


async def test_check_provider_runs_all_checks() -> None:
    made = count(1)

    @asynccontextmanager
    async def counted() -> AsyncIterator[Bench]:
        next(made)
        async with bench() as of:
            yield of

    await check_provider(counted)
    assert next(made) == len(CHECKS) + 1


class Forgetful(FakeProvider):
    """Says that it has cleaned, and has not."""

    async def clean(self, uid: Uid, host: HostName) -> None:
        pass


async def test_check_provider_names_the_check_that_fails() -> None:
    @asynccontextmanager
    async def forgetful() -> AsyncIterator[Bench]:
        host = FakeHost("red")
        async with bench() as of:
            yield replace(of, provider=lambda: Forgetful(host), within_s=0.1)

    with pytest.raises(AssertionError, match="is gone") as raised:
        await check_provider(forgetful)
    assert raised.value.__notes__ == ["in check container_runs_where_it_was_placed"]
