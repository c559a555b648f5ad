"""Values of an evaluation.json, which may lack any of them, and numbers as people read them."""

import math
from collections.abc import Mapping
from typing import Any


def mapping(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The mapping under a key, empty where there is none."""
    value = parent.get(key)
    return value if isinstance(value, Mapping) else {}


def number(value: Any) -> float | None:
    """The value as a number, None for anything else. JSON has no nan: the file holds it as the text "nan"."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return float(value) if value in ("nan", "inf", "-inf") else None


def text(value: float, scale: float = 0.0) -> str:
    """The number with four significant digits, three below 0.1. With a scale that is larger than the number, it
    has those decimals that the scale would have.
    """
    if not math.isfinite(value):
        return "not finite"
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(max(abs(value), abs(scale))))
    digits = 4 if exponent >= -1 else 3
    text = f"{value:.{digits}g}" if exponent < -4 else f"{value:,.{max(0, digits - 1 - exponent)}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def large(number: float) -> str:
    """The number with three digits, in millions or billions where it is that large."""
    for unit, name in ((1e9, "billion"), (1e6, "million")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return f"{number:,.0f}"


def duration(seconds: float) -> str:
    """Like "1 h 5 min", "6 min 40 s" or "8.2 s"."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
