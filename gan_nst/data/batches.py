"""Training batches as a function of the step: draws, augmentation and loader processes."""

import functools
import hashlib
import itertools
import logging
import math
import os
import random
import signal
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gan_nst.core.errors import DataError, SettingsError, listed, reason
from gan_nst.data.cache import Images
from gan_nst.data.domains import DataSettings, Folder, Stream
from gan_nst.images.arrays import ImageArray, resize_image, to_float, to_tensor
from gan_nst.images.files import read_image

log = logging.getLogger(__name__)

# Before the import of albumentations, which would look for a newer version.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

_DEATHS = 3  # of loader processes in a row, without a batch in between
_POLL = 1.0  # seconds after which a loader process that died is noticed
_LISTED = 4  # images named in a message


def mix(*parts: int | str) -> int:
    """A seed of 63 bits that depends on every part, the same on every machine."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def image_index(seed: int, stream: str, draw: int, count: int) -> int:
    """Which of `count` images a stream's draw is: every image once a round, in a new order every round."""
    return int(_order(seed, stream, draw // count, count)[draw % count])


@functools.lru_cache(maxsize=16)
def _order(seed: int, stream: str, round_number: int, count: int) -> NDArray[np.int32]:
    generator = torch.Generator().manual_seed(mix(seed, stream, round_number))
    # As an array: every loader process has its own, and a list would take eight times the memory.
    return torch.randperm(count, generator=generator).to(torch.int32).numpy()


class Augmentation:
    """Random crop, horizontal flip, then the transforms in the settings, by albumentations' own names."""

    def __init__(self, settings: DataSettings) -> None:
        import albumentations

        steps = [
            albumentations.RandomCrop(settings.crop_size, settings.crop_size),
            albumentations.HorizontalFlip(p=settings.flip),
        ]
        for number, entry in enumerate(settings.augmentations):
            where = f"data.augmentations[{number}]"
            options = dict(entry)
            name = options.pop("name", None)
            transform = getattr(albumentations, str(name), None)
            if not (isinstance(transform, type) and issubclass(transform, albumentations.BasicTransform)):
                raise SettingsError(
                    f"{where}: {name!r} is not an albumentations transform (name: ColorJitter, for example)"
                )
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")  # it merely warns about unknown options
                    steps.append(transform(**options))
            except Exception as error:  # of any kind, from its validators
                raise SettingsError(f"{where}: {name}: {' '.join(str(error).split())}") from None
        self._pipeline = albumentations.Compose(steps)
        self._crop_size = settings.crop_size

    def __call__(self, image: ImageArray, seed: int) -> ImageArray:
        """The augmented crop, a function of the image and the seed: RGB uint8 (crop_size, crop_size, 3)."""
        # One generator for all steps: with one each, seeded equally, every step's first draw would be the same number.
        self._pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
        try:
            result: ImageArray = self._pipeline(image=image)["image"]
        except Exception as error:  # of any kind, when a crop is larger than the image for example
            raise SettingsError(f"data.augmentations: {' '.join(str(error).split())}") from None
        if result.shape != (self._crop_size, self._crop_size, 3) or result.dtype != np.uint8:
            raise SettingsError(
                f"data.augmentations: they turn a crop of {self._crop_size} pixels into {result.dtype} {result.shape}"
            )
        return result


class Samples(Dataset[dict[str, Tensor]]):
    """Sample number `draw` of every stream, uint8 of shape (3, crop, crop)."""

    def __init__(
        self,
        images: Mapping[tuple[str, str], Images],
        streams: Mapping[str, Stream],
        settings: DataSettings,
        seed: int,
    ) -> None:
        """images: by (domain, view)."""
        self._images = images
        self._streams = streams
        self._augment = Augmentation(settings)
        self._seed = seed

    def __getitem__(self, draw: int) -> dict[str, Tensor]:
        sample = {}
        for key, stream in self._streams.items():
            leader = stream.tied_to or key
            images, index = self._drawn(key, draw)
            sample[key] = to_tensor(self._augment(images[index], mix(self._seed, leader, "augment", draw)))
        return sample

    def files(self, draw: int) -> dict[str, Path]:
        """The file that every stream's image of a draw comes from."""
        found = {}
        for key in self._streams:
            images, index = self._drawn(key, draw)
            found[key] = images.file(index)
        return found

    def _drawn(self, key: str, draw: int) -> tuple[Images, int]:
        """The images that a stream draws from, and the index of its draw among them."""
        stream = self._streams[key]
        images = self._images[stream.domain, stream.view]
        return images, image_index(self._seed, stream.tied_to or key, draw, len(images))


class Batches:
    """The training batches from any step on.

    A step takes `accumulation` micro-batches of `batch_size` samples in each of `processes` processes;
    together they are consecutive draws, so two processes with batches of 1 see what one process with batches
    of 2 sees.
    """

    def __init__(
        self,
        samples: Samples,
        batch_size: int,
        accumulation: int = 1,
        *,
        workers: int = 0,
        rank: int = 0,
        processes: int = 1,
        device: torch.device | None = None,
        timeout: float = 0.0,
    ) -> None:
        """timeout: seconds to wait for a batch from the loader processes; 0: no limit."""
        self._samples = samples
        self._batch_size = batch_size
        self._accumulation = accumulation
        self._workers = workers
        self._rank = rank
        self._processes = processes
        self._device = device or torch.device("cpu")
        self._timeout = timeout

    def __call__(self, step: int) -> Iterator[list[dict[str, Tensor]]]:
        """Endlessly, the micro-batches of step `step` and of the steps after it: float (n, 3, crop, crop) in
        [-1, 1].

        When a loader process dies, all are restarted at the same step. Raises DataError when that happens again and
        again, when a batch takes longer than the timeout, and for images that cannot be read.
        """
        deaths = 0
        while True:
            batches = None
            try:
                batches = self._start(step)
                while True:
                    yield [self._to_device(self._next(batches, step)) for _ in range(self._accumulation)]
                    step, deaths = step + 1, 0
            except (RuntimeError, ConnectionError, EOFError) as error:  # the last two break off a batch
                if isinstance(error, RuntimeError) and "DataLoader worker (pid" not in str(error):
                    raise
                deaths, line = deaths + 1, reason(error)
                if deaths == _DEATHS:
                    raise DataError(
                        f"step {step}: a loader process died {deaths} times in a row ({line}), loading "
                        f"{self._listed(step)}; resume, with fewer data.workers if memory is short"
                    ) from None
                log.warning(f"step {step}: {line}; restarting the loader processes; no batch changes")
            finally:
                if self._workers and batches is not None:  # else they live as long as an error's traceback
                    batches._shutdown_workers()  # type: ignore[attr-defined]

    def _start(self, step: int) -> Iterator[dict[str, Tensor]]:
        """Torch's loader from a step on."""
        loader = DataLoader(
            self._samples,
            batch_sampler=(
                self.draws(n, m) for n in itertools.count(step) for m in range(self._accumulation)
            ),
            num_workers=self._workers,
            pin_memory=self._device.type == "cuda",
            worker_init_fn=_ignore_ctrl_c,
            timeout=_POLL if self._workers else 0,
            generator=torch.Generator(),  # each start draws a seed; from the global one, resume would not be exact
        )
        handler = signal.getsignal(signal.SIGCHLD)
        batches = iter(loader)
        if signal.getsignal(signal.SIGCHLD) is not handler:
            signal.signal(signal.SIGCHLD, handler)  # torch's own raises in the middle of a step
        return batches

    def _next(self, batches: Iterator[dict[str, Tensor]], step: int) -> dict[str, Tensor]:
        """The next batch, or an error in one line that says why there is none."""
        until = time.monotonic() + (self._timeout or math.inf)
        while True:
            try:
                return next(batches)
            except (DataError, SettingsError) as error:  # of a loader process: the last line of its traceback
                line = str(error).strip().splitlines()[-1]
                raise type(error)(
                    line.removeprefix(f"gan_nst.core.errors.{type(error).__name__}: ")
                ) from None
            except RuntimeError as error:
                if "DataLoader timed out" not in str(error):
                    raise
                if time.monotonic() > until:
                    raise DataError(
                        f"step {step}: no batch within {self._timeout:g} s (data.timeout), loading "
                        f"{self._listed(step)}; check that the disk responds, and resume"
                    ) from None

    def _listed(self, step: int) -> str:
        """The images of a step, for a message."""
        files = dict.fromkeys(str(file) for stream in self.files(step).values() for file in stream)
        return listed(list(files), _LISTED)

    def _to_device(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        cuda = self._device.type == "cuda"
        return {key: to_float(x.to(self._device, non_blocking=cuda)) for key, x in batch.items()}

    def files(self, step: int) -> dict[str, list[Path]]:
        """The files of this process's images at a step, by stream, in the order of the draws."""
        drawn = [
            self._samples.files(draw)
            for micro_batch in range(self._accumulation)
            for draw in self.draws(step, micro_batch)
        ]
        return {key: [files[key] for files in drawn] for key in drawn[0]}

    def draws(self, step: int, micro_batch: int) -> list[int]:
        """The draw indices of one micro-batch of a step, in this process."""
        first = ((step * self._accumulation + micro_batch) * self._processes + self._rank) * self._batch_size
        return list(range(first, first + self._batch_size))


def _ignore_ctrl_c(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the main process alone decides when to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def fixed_images(folder: Folder, count: int, settings: DataSettings) -> Tensor:
    """At most `count` images, evenly spread over a folder: uint8 of shape (count, 3, crop, crop), centre crops at
    the training's scale.
    """
    crops = []
    files = folder.files
    for index in np.linspace(0, len(files) - 1, min(count, len(files))).round().astype(int):
        image = resize_image(read_image(files[index]), settings.load_size, settings.resize)
        if min(image.shape[:2]) < settings.crop_size:
            image = resize_image(image, settings.crop_size, "short_side")
        top, left = ((side - settings.crop_size) // 2 for side in image.shape[:2])
        crops.append(to_tensor(image[top : top + settings.crop_size, left : left + settings.crop_size]))
    return torch.stack(crops)
