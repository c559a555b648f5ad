"""Measures how a training starts on folders of very many images: python tests/campaigns/load.py [COUNT]

The listing, the stamps and the images are faked where the system is asked for them; all that is kept of them is real.
Memory is what Python and NumPy allocate, counted exactly (tracemalloc, which makes the stages several times slower).
The last line has the bytes that each file takes; the exit code is 1 if they exceed the bound.
"""

import json
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent)]

from gan_nst.data import cache  # noqa: E402
from gan_nst.data import domains as files  # noqa: E402
from gan_nst.data.batches import Batches, Samples  # noqa: E402
from gan_nst.data.domains import (  # noqa: E402
    DataSettings,
    Stream,
    fingerprint,
    locate,
)

NAME = "{:04d}/image-{:07d}.jpg"
IMAGE = np.zeros((8, 8, 3), np.uint8)

# Of a file: its path, three references to it, its entry's seven numbers and its place in the order of two rounds.
# At the peak a cache's entries are Python objects.
HELD = sys.getsizeof(NAME.format(0, 0)) + 3 * 8 + 7 * 8 + 2 * 4
PEAK = 3 * HELD


def measure(count: int) -> dict[str, float]:
    """Seconds of each stage, and the bytes allocated since the start: held in the end, and at the peak."""
    files.image_names = lambda folder, missed: (NAME.format(n // 1000, n) for n in range(count))
    cache._stamp = lambda file: (1000, 10**18)
    cache._decode = lambda file, settings, view: (IMAGE, 300)
    measured: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for domain in "AB":
            Path(folder, "x", f"train{domain}").mkdir(parents=True)
        settings = DataSettings(root=Path(folder), domain="x", load_size=8, crop_size=8)
        warm = Samples({("a", "image"): [IMAGE]}, {"real_a": Stream("a")}, settings, 0)
        next(Batches(warm, 1)(0))  # imports what only a first batch imports
        tracemalloc.start()
        began = time.perf_counter()

        def stage(name: str) -> None:
            nonlocal began
            measured[name], began = time.perf_counter() - began, time.perf_counter()

        data_set = locate(settings)
        stage("list and cut")
        fingerprint(data_set)
        stage("fingerprint")
        for name in ("decode", "open again"):
            images = {
                (domain, "image"): cache.open_images(folder, settings, domain)[0]
                for domain, folder in data_set.training.items()
            }
            stage(name)
        batches = Batches(Samples(images, {"real_a": Stream("a"), "real_b": Stream("b")}, settings, 0), 1)(0)
        for _ in range(100):
            next(batches)
        stage("first 100 batches")
        measured["held"], measured["peak"] = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return measured


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 250_000
    measured = measure(count)
    held, peak = measured["held"] / (2 * count), measured["peak"] / (2 * count)
    for name, value in measured.items():
        print(f"{name}: {value / 2**20:.0f} MiB" if name in ("held", "peak") else f"{name}: {value:.1f} s")
    print(json.dumps(measured))
    print(
        f"{2 * count:,} files: {held:.0f} bytes each held (bound {HELD:.0f}), {peak:.0f} at the peak ({PEAK:.0f})"
    )
    return int(held > HELD or peak > PEAK)


if __name__ == "__main__":
    sys.exit(main())
