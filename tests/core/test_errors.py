"""Formatters that messages and reports share."""

import math

import pytest

from gan_nst.core.errors import format_duration, format_large, format_number, listed


@pytest.mark.parametrize(
    ("value", "scale", "text"),
    [
        *(
            (12.3456, 0, "12.35"),
            (0.12345, 0, "0.1235"),
            (0.012345, 0, "0.0123"),
            (1234567.8, 0, "1,234,568"),
        ),
        *(
            (0, 0, "0"),
            (-0.00123, 0, "-0.00123"),
            (0.0000123, 0, "1.23e-05"),
            (2, 1000, "2"),
            (2, 10, "2.00"),
        ),
        *((math.nan, 0, "not finite"), (math.inf, 0, "not finite"), (5.0, 0.1, "5.000")),
    ],
)
def test_a_number_has_the_decimals_of_the_larger_one(value, scale, text):
    assert format_number(value, scale) == text


@pytest.mark.parametrize(
    ("value", "text"), [(88092, "88,092"), (67592448, "67.6 million"), (56.84e9, "56.8 billion")]
)
def test_a_large_number_is_rounded(value, text):
    assert format_large(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0.1234, "0.123 s"), (45, "45 s"), (59.97, "60 s"), (100, "1 min 40 s"), (400.2, "6 min 40 s")),
        *((720, "12 min"), (7200, "2 h"), (3599.6, "1 h"), (12000, "3 h 20 min"), (190800, "2 d 5 h")),
    ],
)
def test_a_duration_has_two_units(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("texts", "separator", "text"),
    [
        (["a"], ", ", "a"),
        (["a", "b"], ", ", "a, b"),
        (["a", "b", "c"], ", ", "a, b and 1 more"),
        (["a", "b", "c", "d"], "; ", "a; b; and 2 more"),
    ],
)
def test_a_long_list_ends_with_the_number_of_the_others(texts, separator, text):
    assert listed(texts, 2, separator) == text
