"""How much memory something takes, measured where nothing else takes any: in a process of its own."""

import gc
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch

from gan_nst.core.device import process_peak_memory, read_proc

log = logging.getLogger(__name__)

T = TypeVar("T")

Step = Callable[[], object]
Build = Callable[[], Step]
"""Builds what takes the memory, networks and images; what it returns uses them once."""

_STEPS = 2  # an optimizer's moments are there only after its first step


def peak_mib(build: Build, device: torch.device) -> float | None:
    """The most memory, in MiB, that a step and what it needs take beside the libraries; None where it is not known.

    On the CPU `build` must be picklable: a fresh process calls it. On CUDA torch's own count is taken.
    """
    if device.type == "cpu":
        return apart(partial(_peak_here, build))
    if device.type == "cuda":
        return _peak_on_cuda(build, device)
    return None


def apart(function: Callable[[], T | None]) -> T | None:
    """What a picklable function returns in a fresh process; None, with a warning, when the process fails.

    The process has a session of its own, so that Ctrl-C reaches this one alone, which then ends it.
    """
    done = subprocess.run(
        [sys.executable, "-c", "from gan_nst.bench.memory import serve; serve()"],
        input=pickle.dumps(function),
        capture_output=True,
        start_new_session=True,
        check=False,
    )
    if done.returncode == 0:
        result: T = pickle.loads(done.stdout)
        return result
    reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it was killed"]
    log.warning(f"not measured, as the measuring process ended with code {done.returncode}: {reason[0]}")
    return None


def serve() -> None:
    """The other end of `apart`: a function on standard input, its result on standard output."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever is printed meanwhile is no answer
    result = pickle.loads(sys.stdin.buffer.read())()
    with answers:
        pickle.dump(result, answers)


def anonymous_mib() -> float | None:
    """This process's own memory in MiB, without the files it maps, whose pages go when others need the room; None where
    the system does not tell.
    """
    own = read_proc("smaps_rollup", "Anonymous")
    return None if own is None else own / 2**20


def _peak_here(build: Build) -> float | None:
    before = read_proc("status", "VmRSS") or process_peak_memory()
    step = build()
    for _ in range(_STEPS):
        step()
    return (process_peak_memory() - before) / 2**20


def _peak_on_cuda(build: Build, device: torch.device) -> float:
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    step = build()
    for _ in range(_STEPS):  # cuDNN then has chosen its algorithms, which takes more memory than using them
        step()
    torch.cuda.reset_peak_memory_stats(device)
    step()
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20
