"""Memory is seen where it is taken, and a measuring process that fails measures nothing."""

import os
import subprocess
import sys
from functools import partial

import pytest
import torch

from gan_nst.bench.memory import apart, peak_mib

CPU = torch.device("cpu")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")


def test_the_peak_sees_what_is_taken_and_given_back():
    def allocating(mib):
        return partial(
            partial, torch.ones, mib * 2**18
        )  # builds a step that makes such a tensor and drops it

    large, small = peak_mib(allocating(200), CPU), peak_mib(allocating(1), CPU)
    assert 200 <= large <= 260
    assert large - small == pytest.approx(199, abs=10)


def test_what_this_process_holds_does_not_count():
    held = torch.ones(300 * 2**18)
    assert peak_mib(partial(partial, torch.ones, 2**18), CPU) < 100
    del held


@on_linux
def test_own_memory_grows_with_what_is_allocated():
    lines = (
        "import torch",
        "from gan_nst.bench.memory import anonymous_mib",
        "before = anonymous_mib()",
        "held = torch.ones(100 * 2**18)",
        "print(anonymous_mib() - before)",
    )
    # In a process of its own: this one may give back at any time what earlier tests left.
    printed = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True
    )
    assert float(printed.stdout) == pytest.approx(100, abs=10)


@pytest.mark.parametrize(
    ("function", "told"),
    [(partial(int, "none"), "invalid literal"), (partial(os._exit, 3), "ended with code 3")],
)
def test_a_measuring_process_that_fails_measures_nothing(caplog, function, told):
    assert apart(function) is None
    assert told in caplog.text


def test_what_the_process_prints_is_no_answer():
    assert apart(partial(list, map(print, ["noise"]))) == [None]
