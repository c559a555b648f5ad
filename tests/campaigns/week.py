"""Measures the logs of a week-long run and how quickly they are read: python tests/campaigns/week.py [LINES]

The last line reports whether everything was read; the exit code is 1 if not, or if reading took over a minute.
"""

import math
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent)]

from gan_nst.core.settings import dump_yaml  # noqa: E402
from gan_nst.diagnosis.curves import read_run  # noqa: E402
from gan_nst.diagnosis.figure import draw  # noqa: E402
from gan_nst.diagnosis.rules import diagnose  # noqa: E402
from gan_nst.images.arrays import ImageArray  # noqa: E402
from gan_nst.training.monitor import Monitor, is_selected  # noqa: E402

EVERY, GRID_EVERY = 50, 10  # steps a line, lines a grid
LONGEST = 60.0  # seconds of reading, each time
SPIKE = 100.0

TERMS = [
    f"{term}_{of}" for term, of in zip(("adversarial", "cycle", "identity"), ("ab", "a", "b"), strict=True)
]
KEYS = [f"generator/{term}" for term in TERMS] + [f"discriminator/discriminator_{of}" for of in "ab"]
KEYS += [f"gradient_norm/{role}" for role in ("generator", "discriminator")]


def write(run: Path, lines: int) -> None:
    """A run's files, with a loss spike in the middle."""
    rng = np.random.default_rng(0)
    steps = lines * EVERY
    (run / "settings.yaml").write_text(dump_yaml({"training": {"steps": steps}}))
    grid: ImageArray = rng.integers(0, 255, (256, 512, 3), np.uint8)
    monitor = Monitor(run, 0, steps)
    for line, row in enumerate(0.3 * np.exp(rng.normal(0, 0.1, (lines, len(KEYS)))), 1):
        values = dict(zip(KEYS, row.tolist(), strict=True))
        if line == lines // 2:
            values[KEYS[0]] *= SPIKE
        monitor.log(line * EVERY, values)
        if line % GRID_EVERY == 0 and is_selected(line // GRID_EVERY):
            monitor.image(line * EVERY, "samples", grid)
    monitor.close()


def read_events(run: Path) -> tuple[int, int]:
    """How many steps of a value and how many grids TensorBoard finds."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run), {"scalars": 0, "images": 0})
    found.Reload()
    return len(found.Scalars(KEYS[0])), len(found.Images("samples"))


def main() -> int:
    lines = int(sys.argv[1]) if len(sys.argv) > 1 else 120_000
    seconds_by_stage: dict[str, float] = {}
    began = time.perf_counter()

    def stage(name: str) -> None:
        nonlocal began
        seconds_by_stage[name], began = time.perf_counter() - began, time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        write(run, lines)
        stage("write")
        history = read_run(run)
        stage("read")
        kinds = {finding.kind for finding in diagnose(history)}
        stage("diagnose")
        image = draw([history], format="png")
        stage("draw")
        events, grids = read_events(run)
        stage("read events")
        (size,) = (path.stat().st_size for path in run.glob("events.*"))
    for name, seconds in seconds_by_stage.items():
        print(f"{name}: {seconds:.1f} s")
    print(f"events: {size / 1e6:.0f} MB with {grids} grids; figure: {len(image) / 1e6:.1f} MB")
    there = len(history.series[KEYS[0]].steps) == events == lines and "loss spike" in kinds
    there &= 0 < grids < 64 * math.log2(lines)
    slow = [name for name in ("read", "diagnose", "draw", "read events") if seconds_by_stage[name] > LONGEST]
    how = f"too slow: {', '.join(slow)}" if slow else "quick"
    print(f"{lines:,} lines: {'all there' if there else 'not all there'}, {how}")
    return int(bool(slow) or not there)


if __name__ == "__main__":
    sys.exit(main())
