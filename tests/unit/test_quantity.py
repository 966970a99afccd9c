"""vknix.core.quantity: exact, as the API server reads quantities."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vknix.core import quantity

POWERS = {
    "": Fraction(1),
    **{suffix: Fraction(1, 1000**power) for power, suffix in enumerate("mun", start=1)},
    **{suffix: Fraction(1000**power) for power, suffix in enumerate("kMGTPE", start=1)},
    **{f"{suffix}i": Fraction(1024**power) for power, suffix in enumerate("KMGTPE", start=1)},
}
MOST = 2**63 - 1


@st.composite
def quantities(draw: st.DrawFn) -> tuple[str, Fraction]:
    digits = draw(st.text("0123456789", max_size=25))
    below = draw(st.text("0123456789", min_size=0 if digits else 1, max_size=25))
    point = "." if below or draw(st.booleans()) else ""
    sign = draw(st.sampled_from(["", "+", "-"]))
    number = Fraction(f"{sign}{digits or 0}.{below or 0}")
    if draw(st.booleans()):
        exponent = draw(st.integers(-30, 30))
        return f"{sign}{digits}{point}{below}{draw(st.sampled_from('eE'))}{exponent}", number * Fraction(10) ** exponent
    suffix = draw(st.sampled_from(sorted(POWERS)))
    return f"{sign}{digits}{point}{below}{suffix}", number * POWERS[suffix]


@given(quantities())
def test_a_quantity_is_its_rational(of: tuple[str, Fraction]) -> None:
    text, exact = of
    bounded = max(Fraction(-MOST), min(Fraction(MOST), exact))
    assert Fraction(quantity.parse(text)) == bounded
    assert quantity.whole(text) == math.ceil(bounded)
    assert quantity.milli(text) == math.ceil(bounded * 1000)


@pytest.mark.parametrize(
    ("text", "milli"),
    [
        ("500m", 500),
        ("0.5", 500),
        ("1", 1000),
        ("1n", 1),
        ("0", 0),
        (2, 2000),
        (0.5, 500),
        ("1e3", 1_000_000),
        (".5", 500),
        ("5.", 5000),
        ("9007199254740993.0000000000000000001", 9007199254740993001),
    ],
)
def test_cpu_in_thousandths_rounds_up(text: str | float, milli: int) -> None:
    assert quantity.milli(text) == milli


@pytest.mark.parametrize(
    ("text", "whole"), [("1Ki", 1024), ("1.5Gi", 3 << 29), ("1E", 10**18), ("1e2", 100), ("123456789", 123456789), ("1m", 1)]
)
def test_bytes_round_up(text: str, whole: int) -> None:
    assert quantity.whole(text) == whole


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " 1",
            "1 ",
            "1\n",
            "ten",
            "1mm",
            "1KI",
            "1K",
            "--1",
            "1e",
            "1e3m",
            "0x10",
            "\u0661",
            "1,5",
            "Infinity",
            "NaN",
            "1_000",
        ),
        *("1e999999999", "1e-999999999", "9" * 400, "0." + "1" * 300),
    ],
)
def test_what_is_no_quantity_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="quantity"):
        quantity.parse(text)


@pytest.mark.parametrize("text", ["1e100", "9223372036854775808", "8Ei", "9999999999E"])
def test_more_than_an_int64_is_the_most_there_is(text: str) -> None:
    assert quantity.whole(text) == MOST
