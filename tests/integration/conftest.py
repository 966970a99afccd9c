"""The real lab as fixtures. Tests that use them are marked `lab`; those on a virtual machine `vm`, and have a lab of their own.

The lab comes up before the first test, so that no test's timeout has to cover it, and goes after the last.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.integration.build import Space
from tests.lab import machine
from tests.lab.lab import Lab
from tests.lab.shell import LabError, wait_for
from tests.lab.vknixproc import Vknix

NAME = "test"
LAB = pytest.StashKey[Lab]()
WHY_NOT = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--lab-name", default=NAME, help=f"the lab to test on (default: {NAME})")
    parser.addoption("--keep-lab", action="store_true", help="leave the lab up after the tests")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Bring the lab up when a test is about to need it, with its progress on the terminal."""
    config = session.config
    if config.option.collectonly or not any(_stands_on(item, "lab", "vm") for item in session.items):
        return
    try:
        machine.require()
    except LabError as error:
        config.stash[WHY_NOT] = str(error)
        return
    if not any(_stands_on(item, "lab") for item in session.items):
        return
    with config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        try:
            config.stash[LAB] = Lab.up(config.getoption("--lab-name", NAME))
        except LabError as error:
            pytest.exit(f"no lab to test on: {error}", returncode=1)


def _stands_on(item: pytest.Item, *marks: str) -> bool:
    return any(item.get_closest_marker(mark) for mark in marks)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Where no lab can stand its tests are skipped, in CI they fail."""
    reason = item.config.stash.get(WHY_NOT, None)
    if reason is None or not _stands_on(item, "lab", "vm"):
        return
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Take the lab down, also after an interrupt."""
    lab = session.config.stash.get(LAB, None)
    if lab is not None and not session.config.getoption("--keep-lab", default=False):
        lab.down()


@pytest.fixture(scope="session")
def lab(pytestconfig: pytest.Config) -> Lab:
    """The lab: control plane and hosts up; vknix in whatever state the test before left it."""
    return pytestconfig.stash[LAB]


@pytest.fixture
def vknix(lab: Lab) -> Vknix:
    """vknix, running on its default configuration; a test may stop, kill or reconfigure it."""
    return started(lab)


@pytest.fixture
def namespace(lab: Lab) -> Iterator[str]:
    """A namespace of the test's own, in which Pods can be made; with all that is in it, it goes with the test."""
    with made_namespace(lab) as name:
        yield name


@pytest.fixture
def space(lab: Lab, vknix: Vknix, namespace: str) -> Space:
    """The test's own namespace on a running vknix."""
    return Space(lab, namespace)


@pytest.fixture(scope="module")
def shared(lab: Lab) -> Iterator[Space]:
    """A namespace for Pods that the tests of a module only look at, on a running vknix."""
    started(lab)
    with made_namespace(lab) as name:
        yield Space(lab, name)


def started(lab: Lab) -> Vknix:
    """vknix on its default configuration, and each host's cable plugged in."""
    for host in lab.hosts:
        host.heal()
    if not lab.vknix.has_default_config():
        lab.vknix.stop()
    lab.vknix.start()
    return lab.vknix


@contextmanager
def made_namespace(lab: Lab) -> Iterator[str]:
    """A namespace for as long as the block lasts. Its Pods are gone after it, where a vknix runs to say so."""
    name = f"test-{secrets.token_hex(4)}"
    lab.kubectl("create", "namespace", name)
    account = ("get", "serviceaccount", "default", f"--namespace={name}")
    wait_for(lambda: lab.kubectl(*account, check=False).returncode == 0, f"{name} has an account", timeout_s=30)
    yield name
    # Long grace periods are not what a test waits for at its end; and without vknix nobody confirms that a Pod is gone.
    waits = "--timeout=60s" if lab.vknix.pid else "--wait=false"
    lab.kubectl("delete", "pods", "--all", f"--namespace={name}", "--grace-period=1", waits)
    lab.kubectl("delete", "namespace", name, "--wait=false")
