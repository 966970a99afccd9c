"""Kubernetes quantities (500m, 1Gi, 1e3) -> exact numbers. Rule: apimachinery's resource.Quantity; results round up."""

import re
from decimal import ROUND_CEILING, Decimal

_SUFFIX = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate(("k", "M", "G", "T", "P", "E"), start=1)},
    **{unit: Decimal(1024) ** power for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)},
}
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei))?")


def parse(text: str | int) -> Decimal:
    """Raises ValueError where `text` is no quantity."""
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        raise ValueError(f"{text!r} is no quantity, such as 500m or 1Gi")
    number, exponent, suffix = match.groups()
    return Decimal(number + (exponent or "")) * _SUFFIX[suffix or ""]


def milli(text: str | int) -> int:
    return ceil(parse(text) * 1000)


def whole(text: str | int) -> int:
    return ceil(parse(text))


def ceil(number: Decimal) -> int:
    return int(number.to_integral_value(ROUND_CEILING))
