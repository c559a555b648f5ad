"""Formatters that messages share."""

import pytest

from gan_nst.core.errors import format_duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(45, "45 s"), (100, "2 min"), (7199, "2 h 0 min"), (12000, "3 h 20 min"), (190800, "2 d 5 h")],
)
def test_a_duration_is_rounded_to_what_matters(seconds, text):
    assert format_duration(seconds) == text
