"""How fast the loader delivers images, and whether its memory grows with the data set."""

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import torch

from gan_nst.bench.memory import anonymous_mib, apart
from gan_nst.data.batches import Batches, Samples, StreamLike
from gan_nst.data.cache import open_images
from gan_nst.data.demo import make_demo
from gan_nst.data.domains import DOMAINS, DataSettings, Folder, all_images

_LARGER = 4  # times as many images, to see whether memory grows with them
_WARM = 4  # batches
_AUGMENTATIONS: list[dict[str, Any]] = [
    {"name": "ColorJitter", "p": 0.5},
    {"name": "Rotate", "limit": 10, "p": 0.5},
    {"name": "GaussianBlur", "p": 0.2},
]


@dataclass(frozen=True)
class LoaderSizes:
    """stored, load, crop: sides in pixels of the files, the decoded images and the crops. count: images a domain.

    seconds: that each way to load is timed.
    """

    stored: int = 320
    load: int = 286
    crop: int = 256
    count: int = 32
    seconds: float = 2.0


def measure_loader(work: Path, streams: Mapping[str, StreamLike], sizes: LoaderSizes) -> dict[str, Any]:
    """Images per second on one core, by way to load, and the growth of memory in MiB, by images a domain.

    work: a folder for the drawn images. streams: of a method on domains a and b, by batch key.
    """
    make_demo(work / "drawn", sizes.stored, sizes.count, held_out=0)
    folders = {d: all_images(work / "drawn" / f"train{d.upper()}") for d in DOMAINS}
    plain = DataSettings(load_size=sizes.load, crop_size=sizes.crop, cache=str(work / "cache"))
    ways = {
        "decoding": plain.model_copy(update={"cache": "never"}),
        "cached": plain,
        "augmented": plain.model_copy(update={"augmentations": _AUGMENTATIONS}),
    }
    return {
        **{way: _rate(_batches(folders, streams, how), sizes.seconds) for way, how in ways.items()},
        "memory_mib": _memory(work, folders, streams, plain),
    }


def _rate(batches: Batches, seconds: float) -> float:
    """Images per second of one core."""
    with _one_core():
        stream = batches(0)
        for _ in range(_WARM):
            next(stream)
        images, began = 0, time.perf_counter()
        while (spent := time.perf_counter() - began) < seconds:
            images += sum(len(x) for batch in next(stream) for x in batch.values())
    return images / spent


def _memory(
    work: Path, folders: Mapping[str, Folder], streams: Mapping[str, StreamLike], settings: DataSettings
) -> dict[str, float | None]:
    """Growth in MiB by the number of images a domain; as many are read of the small set as of the large one."""
    larger = {}
    for domain, folder in folders.items():
        root = work / "larger" / domain
        root.mkdir(parents=True)
        for number in range(_LARGER):
            for file in folder.files:
                shutil.copyfile(file, root / f"{number}-{file.name}")
        larger[domain] = all_images(root)
    growth = {}
    for of in (folders, larger):
        _batches(of, streams, settings)  # decodes what is not decoded yet, here
        count = len(of["a"].files)
        growth[str(count)] = apart(partial(_growth, of, streams, settings, len(larger["a"].files)))
    return growth


def _growth(
    folders: Mapping[str, Folder], streams: Mapping[str, StreamLike], settings: DataSettings, steps: int
) -> float | None:
    """By how many MiB this process grows while it opens the images and reads so many batches."""
    before = most = anonymous_mib()
    if before is None:
        return None
    stream = _batches(folders, streams, settings)(0)
    for _ in range(steps):
        next(stream)
        most = max(most or 0.0, anonymous_mib() or 0.0)
    return (most or 0.0) - before


def _batches(
    folders: Mapping[str, Folder], streams: Mapping[str, StreamLike], settings: DataSettings
) -> Batches:
    views = {(d, "image"): open_images(folder, settings, d)[0] for d, folder in folders.items()}
    return Batches(Samples(views, streams, settings, seed=0), batch_size=1)


@contextmanager
def _one_core() -> Iterator[None]:
    """Within it neither torch nor OpenCV spreads its work over threads, as in a loader process."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
