"""Training batches as a function of the step: draws, augmentation and loader processes."""

import contextlib
import functools
import hashlib
import logging
import os
import random
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gan_nst.core.errors import DataError, SettingsError, listed
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
        # One generator for all steps: with one each, seeded alike, every step's first draw would be the same number.
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
        """timeout: seconds to wait for a batch; 0: no limit."""
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
            try:
                with self._loading(step) as loader:
                    while True:
                        yield [self._to_device(self._next(loader, step)) for _ in range(self._accumulation)]
                        step, deaths = step + 1, 0
            except _WorkerDied as error:
                deaths += 1
                if deaths == _DEATHS:
                    raise DataError(
                        f"step {step}: a loader process died {deaths} times in a row ({error}), loading "
                        f"{self._listed(step)}; resume, with fewer data.workers if memory is short"
                    ) from None
                log.warning(f"step {step}: {error}; restarting the loader processes, which changes no batch")

    @contextlib.contextmanager
    def _loading(self, step: int) -> Iterator[Iterator[dict[str, Tensor]]]:
        """Torch's loader from a step on; its processes end with the context."""
        loader = DataLoader(
            self._samples,
            batch_sampler=self._draws_from(step),
            num_workers=self._workers,
            pin_memory=self._device.type == "cuda",
            worker_init_fn=_ignore_ctrl_c,
            timeout=_POLL if self._workers else 0,
            generator=torch.Generator(),  # each start draws a seed; from the global one, resume would not be exact
        )
        handler = signal.getsignal(signal.SIGCHLD)
        try:
            with _worker_errors():
                batches = iter(loader)
        finally:  # torch's own handler would raise in the middle of a step, which then could not be repeated
            if signal.getsignal(signal.SIGCHLD) is not handler:
                signal.signal(signal.SIGCHLD, handler)
        try:
            yield batches
        finally:
            if self._workers:  # without this call they would live as long as the traceback of an error
                batches._shutdown_workers()  # type: ignore[attr-defined]

    def _next(self, batches: Iterator[dict[str, Tensor]], step: int) -> dict[str, Tensor]:
        """The next batch, or an error that says why there is none."""
        if not self._workers:
            with self._warning(step):
                return next(batches)
        began = time.monotonic()
        while not self._timeout or time.monotonic() < began + self._timeout:
            with contextlib.suppress(_StillWaiting), _worker_errors():
                return next(batches)
        raise DataError(
            f"step {step}: no batch within {self._timeout:g} s (data.timeout), loading {self._listed(step)}; "
            "check that the disk responds, and resume"
        )

    @contextlib.contextmanager
    def _warning(self, step: int) -> Iterator[None]:
        """Without loader processes a batch that takes too long cannot be ended; a warning names its images."""

        def warn() -> None:
            late = f"step {step}: no batch within {self._timeout:g} s (data.timeout)"
            log.warning(f"{late}; still loading {self._listed(step)}")

        timer = threading.Timer(self._timeout, warn)
        timer.daemon = True
        if self._timeout:
            timer.start()
        try:
            yield
        finally:
            timer.cancel()

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

    def _draws_from(self, step: int) -> Iterator[list[int]]:
        while True:
            for micro_batch in range(self._accumulation):
                yield self.draws(step, micro_batch)
            step += 1


class _WorkerDied(Exception):
    """A loader process died."""


class _StillWaiting(Exception):
    """No batch came for a moment, and all loader processes are alive."""


@contextlib.contextmanager
def _worker_errors() -> Iterator[None]:
    """Torch's errors of its loader processes by their kind, and those of the data as one line without a traceback."""
    try:
        yield
    except (DataError, SettingsError) as error:  # the message is the last line of the process's traceback
        message = str(error).strip().splitlines()[-1]
        raise type(error)(message.removeprefix(f"gan_nst.core.errors.{type(error).__name__}: ")) from None
    except RuntimeError as error:
        if "DataLoader timed out" in str(error):
            raise _StillWaiting from None
        if "DataLoader worker (pid" in str(error):
            raise _WorkerDied(str(error).splitlines()[0]) from None
        raise
    except (ConnectionError, EOFError) as error:  # a process died while it handed over a batch
        raise _WorkerDied(f"a DataLoader worker broke off ({error})") from None


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
