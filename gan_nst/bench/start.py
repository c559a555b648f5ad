"""How long the program takes until it does what it was started for."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from gan_nst.data.demo import make_demo

log = logging.getLogger(__name__)

_PROGRAM = [sys.executable, "-m", "gan_nst"]
_PATIENCE = 300.0  # seconds; a training that has not begun by then never will


def help_seconds(repeats: int = 3) -> float:
    """Median seconds of `gan-nst --help`."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        subprocess.run([*_PROGRAM, "--help"], stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - began)
    return median(times)


def first_step_seconds(config: Path, work: Path, *, size: int = 64, count: int = 40) -> float | None:
    """Seconds from the start of `gan-nst train` on the CPU to the end of its first step; None, with a warning, when it
    ends before.

    work: a folder for its drawn images, `count` a domain of size x size pixels, and for the run.
    """
    make_demo(work / "datasets" / "photo2cartoon", size, count, held_out=8)
    run = work / "run"
    given = [
        "device=cpu",
        "data.domain=photo2cartoon",
        f"data.root={work / 'datasets'}",
        "training.stop_at=1",
    ]
    with open(work / "errors.txt", "w+b") as errors:
        began = time.perf_counter()
        process = subprocess.Popen(
            [*_PROGRAM, "--quiet", "train", str(config), *given, "--output", str(run)],
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
        try:
            while not _has_line(run / "metrics.jsonl"):
                if process.poll() is not None or time.perf_counter() - began > _PATIENCE:
                    errors.seek(0)
                    reason = errors.read().decode(errors="replace").strip().splitlines()[-1:]
                    log.warning(f"the first step was not measured: {''.join(reason) or 'the training hung'}")
                    return None
                time.sleep(0.005)
            return time.perf_counter() - began
        finally:  # what comes after the first step is not waited for
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _has_line(path: Path) -> bool:
    return path.exists() and b"\n" in path.read_bytes()
