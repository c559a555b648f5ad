"""What may stand for one argument: text in, value out, or a line that says what was expected."""

import argparse
import re
from fractions import Fraction


def positive(text: str) -> int:
    return whole(text, 1)


def natural(text: str) -> int:
    return whole(text, 0)


def percent(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to 100, got {text!r}")
    return int(text)


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return value


def part(text: str) -> float:
    if (value := share(text)) == 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0 and up to 1, got {text!r}")
    return value


def count(text: str) -> int:
    """12000, 600M: pixels, decimal."""
    found = re.fullmatch(r"(\d{1,15}(?:\.\d+)?)\s*([kmg]?)", text, re.I)
    if found is None or (count := int(float(found[1]) * 1000 ** " KMG".index(found[2].upper() or " "))) < 1:
        raise argparse.ArgumentTypeError(f"expected a number such as 600M, got {text!r}")
    return count


def size(text: str) -> int:
    """1.5GiB, 800M and 2g are binary, 1500MB is decimal."""
    found = re.fullmatch(r"(\d{1,15}(?:\.\d+)?)\s*([kmgt])(i?b)?", text, re.I)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected a size such as 1.5GiB or 800M, got {text!r}")
    unit = 1000 if (found[3] or "").lower() == "b" else 1024
    return int(float(found[1]) * unit ** " KMGT".index(found[2].upper()))


def moment(text: str) -> float:
    from gan_nst.images.video import moment

    try:
        return moment(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def rate(text: str) -> Fraction:
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= 1000:
        raise argparse.ArgumentTypeError(
            f"expected frames a second, 25 or 24000/1001, for example, got {text!r}"
        )
    return rate


def seconds(text: str) -> float:
    from gan_nst.images.video import seconds

    try:
        return seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def whole(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text!r}")
    return int(text)
