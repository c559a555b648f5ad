"""How many threads compute on the CPU, and how they wait for each other. Torch is imported only where it computes."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")

# Floating-point operations of a training pass for which one more thread is worth its waiting.
_OPERATIONS_PER_THREAD = 1e10

# How often a waiting thread of GNU OpenMP polls before it sleeps. The default of 300,000 takes the core from the thread
# that is waited for as soon as something else runs; 0 makes small operations slow (experiments/README.md, Threads).
_SPIN_COUNT = "1000"


def cpus() -> int:
    """How many CPUs this process may use, by its affinity and its control group's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(count, int(_quota() or count)))


def configure_threads() -> None:
    """Sets how the threads of torch, which must not be imported yet, wait for each other, and, under a control group's
    quota, how many there are, unless the environment already sets them.

    For the program only: importing the package leaves the environment alone. Results do not depend on how threads wait.
    """
    if "torch" in sys.modules:  # OpenMP reads its environment when torch loads it
        return
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = _SPIN_COUNT
    if _quota() is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(cpus()))


def training_threads(operations: float) -> int:
    """The number of threads to train with, for a pass of that many floating-point operations: at most as many as torch
    would use (OMP_NUM_THREADS, or one a core).

    Sums are split by thread, so the number changes results by rounding: it must not depend on what else runs.
    """
    import torch

    return max(1, min(round(operations / _OPERATIONS_PER_THREAD), torch.get_num_threads(), cpus()))


@contextlib.contextmanager
def computing_with(count: int) -> Iterator[None]:
    """Lets torch compute with that many threads in the context."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _quota() -> float | None:
    """The CPUs' worth of time that the control group grants; None without a limit."""
    for files in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):  # versions 2 and 1
        with contextlib.suppress(OSError, ValueError):
            granted, period = " ".join((_CGROUP / file).read_text() for file in files).split()
            return float(granted) / float(period) if granted not in ("max", "-1") else None
    return None
