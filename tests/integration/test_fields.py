"""The Pod fields of the lab's own API server, all of which core/fields.py must know."""

import pytest

from tests import podspec
from tests.lab.lab import Lab
from tests.unit.test_podspec import unaccounted

pytestmark = pytest.mark.lab


def test_each_field_of_this_api_server_has_a_verdict(lab: Lab) -> None:
    assert unaccounted(podspec.of_lab(lab)) == []


def test_what_is_recorded_is_what_the_api_server_has(lab: Lab) -> None:
    assert podspec.of_lab(lab) == podspec.recorded(), "run scripts/golden --podspec, and look at what is new"
