"""Kubernetes quantities (500m, 1Gi, 1e3) -> exact numbers. Rule: apimachinery's resource.Quantity; results round up."""

import re
from decimal import ROUND_CEILING, Clamped, Context, Decimal, Inexact, InvalidOperation, Overflow

_SUFFIX = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate(("k", "M", "G", "T", "P", "E"), start=1)},
    **{unit: Decimal(1024) ** power for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)},
}
_MOST = Decimal(2**63 - 1)
_EXACT = Context(prec=200, Emax=199, Emin=-199, traps=[Clamped, Inexact, InvalidOperation, Overflow])
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei))?", re.ASCII)


def parse(text: str | int | float) -> Decimal:
    """Exact, and no more than 2^63 - 1, as the API server has it. Raises ValueError where `text` is no quantity."""
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        raise ValueError(f"{text!r} is no quantity, such as 500m or 1Gi")
    number, exponent, suffix = match.groups()
    try:
        amount = _EXACT.multiply(_EXACT.create_decimal(number + (exponent or "")), _SUFFIX[suffix or ""])
    except ArithmeticError as error:
        raise ValueError(f"{str(text)[:40]!r} has too many digits for a quantity") from error
    return max(-_MOST, min(_MOST, amount))


def milli(text: str | int | float) -> int:
    return ceil(_EXACT.multiply(parse(text), Decimal(1000)))


def whole(text: str | int | float) -> int:
    return ceil(parse(text))


def text(amount: int, *, binary: bool) -> str:
    """As the API server writes it: whole, with the largest suffix that leaves it so."""
    step, suffixes = (1024, ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")) if binary else (1000, ("", "k", "M", "G", "T", "P", "E"))
    power = 0
    while amount and amount % step == 0 and power < len(suffixes) - 1:
        amount, power = amount // step, power + 1
    return f"{amount}{suffixes[power]}"


def ceil(number: Decimal) -> int:
    return int(number.to_integral_value(ROUND_CEILING))
