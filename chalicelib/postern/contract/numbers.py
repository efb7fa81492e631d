"""Numbers of JSON with all of their digits, which Python's floats do not have: 12345678901234567.89."""

from __future__ import annotations

import json
import math
import re
import secrets
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

# So many digits a float always has (DBL_DIG of C), and most numbers no more.
_SURE = 15


def exact(text: str) -> float | Decimal:
    """A JSON number with a fraction or an exponent: a float, or a Decimal where a float would lose digits of it.

    Beyond a float's range it is inf or 0.0: int(Decimal("1e999999999")) would fill the memory of whoever tries.
    """
    if len(text) <= _SURE + 1 and "e" not in text and "E" not in text:
        return float(text)
    number = float(text)
    if number == 0 or math.isinf(number):
        return number
    digits = Decimal(text)
    return number if Decimal(repr(number)) == digits else digits


@dataclass(frozen=True, slots=True)
class Number:
    """A JSON number as it is written, for who shows it: `0.10`, `-0`, `1e5`."""

    text: str


def dumps(value: Any, **options: Any) -> str:
    """As json.dumps, with each Decimal and Number as the JSON number that it is."""
    mark = ""

    def marked(found: Any) -> str:
        nonlocal mark
        mark = mark or secrets.token_hex(16)  # nobody can have written it
        match found:
            case Number(text):
                return mark + text
            case Decimal() if found.is_finite():
                return mark + str(found)
            case Decimal():
                return str(found)
            case _:
                raise TypeError(f"{type(found).__name__} is not JSON.")

    text = json.dumps(value, default=marked, **options)
    return re.sub(rf'"{mark}([^"]+)"', r"\1", text) if mark else text
