"""Options: each is described, and values out of range are refused in one line."""

import math
from dataclasses import MISSING, fields, make_dataclass
from fractions import Fraction
from pathlib import Path

import pytest

from gan_nst.core import options
from gan_nst.core.errors import SettingsError
from gan_nst.core.options import (
    BYTES,
    DURATION,
    FRAME_RATE,
    MOMENT,
    PIXELS,
    Finish,
    TranslateOptions,
)

KINDS = [kind for kind in vars(options).values() if isinstance(kind, options.Kind)]
GROUPS = [
    group
    for group in vars(options).values()
    if isinstance(group, type) and issubclass(group, options.Options)
]


@pytest.mark.parametrize("group", GROUPS)
def test_every_default_is_a_valid_value(group):
    for one in fields(group):
        assert one.metadata["help"]
        if one.default is MISSING or one.default is None:
            continue
        known, kind = options.choices(one), one.metadata["kind"]
        assert not known or one.default in known
        if kind is not None and one.default != math.inf:
            assert kind.parse(kind.show(one.default)) == one.default
        if one.metadata["flag"] is not None:
            assert kind.allows(one.metadata["flag"])


def test_groups_are_passed_on_unchanged():
    given = TranslateOptions(strength=0.5, quality=80, scratch="there")
    assert isinstance(given, Finish)
    assert not given.is_plain
    assert TranslateOptions().is_plain
    assert given.scratch == Path("there")
    with pytest.raises(SettingsError, match=r"^--quality: expected a whole number from 1 to 100, got 0$"):
        TranslateOptions(quality=0)
    with pytest.raises(SettingsError, match=r"^--start 2, --end 1: the end must come after the start$"):
        TranslateOptions(start=2.0, end=1.0)


def read(kind, text):
    """The value that a text becomes for an option --value."""
    one = options.option(None, "help", kind)
    group = make_dataclass("Group", [("value", object, one)], bases=(options.Options,), frozen=True)
    return group(text).value


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (BYTES, "1.5GiB", 3 * 2**29),
        (BYTES, "2g", 2**31),
        (BYTES, "1500MB", 1_500_000_000),
        (PIXELS, "12000", 12_000),
        (PIXELS, "600M", 600_000_000),
        (MOMENT, "0", 0),
        (MOMENT, "1:30", 90),
        (MOMENT, "00:01:30.500", 90.5),
        (MOMENT, "2s", 2),
        (FRAME_RATE, "24000/1001", Fraction(24000, 1001)),
    ],
)
def test_values_are_read_as_people_write_them(kind, text, value):
    assert read(kind, text) == value


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not options.NAME_PART])
@pytest.mark.parametrize("text", ["", "x", "-1", "nan", "1/0", "1e999"])
def test_invalid_values_are_refused(kind, text):
    with pytest.raises(SettingsError, match=f"^--value: expected {kind.expected}, got {text!r}$"):
        read(kind, text)


@pytest.mark.parametrize(
    ("text", "value"), [("2s", 2), ("0.5", 0.5), ("1m", 60), (" 3 s ", 3), ("500ms", 0.5), (".25s", 0.25)]
)
def test_times_are_read_as_people_write_them(text, value):
    assert read(DURATION, text) == pytest.approx(value)


@pytest.mark.parametrize(
    "text", ["", "s", "0", "0s", "-1", "2h", "1,5", "nan", "inf", "2 s s", "1e3", "9" * 400]
)
def test_other_times_are_refused(text):
    with pytest.raises(SettingsError, match=r"expected a time above 0, for example 2s, 0\.5 or 1m, got "):
        read(DURATION, text)
