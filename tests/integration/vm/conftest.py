"""A lab of its own, whose one host is a virtual machine: it has a kernel of its own, and cgroups with all controllers."""

from collections.abc import Iterator

import pytest

from tests.lab.lab import Lab


@pytest.fixture(scope="package")
def virtual(pytestconfig: pytest.Config) -> Iterator[Lab]:
    """The lab; vknix in whatever state the test before left it."""
    lab = Lab.up(f"{pytestconfig.getoption('--lab-name')}-vm", hosts=1, shape="vm")
    try:
        yield lab
    finally:
        if not pytestconfig.getoption("--keep-lab"):
            lab.down()
