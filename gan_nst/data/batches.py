"""The few images that sample grids and validations show, the same ones every time."""

import contextlib
import functools
import hashlib
import logging
import multiprocessing
import os
import random
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from gan_nst.core.device import read_proc
from gan_nst.core.errors import DataError, SettingsError
from gan_nst.data.cache import Images
from gan_nst.data.domains import DataSettings, Folder
from gan_nst.images.arrays import ImageArray, resize_image, to_float, to_tensor
from gan_nst.images.files import read_image

log = logging.getLogger(__name__)


def mix(*parts: int | str) -> int:
    """A seed of 63 bits that depends on every part, the same on every machine."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def image_index(seed: int, stream: str, draw: int, count: int) -> int:
    """Which of `count` images the stream's draw number `draw` is: each once a round, in a new order every
    round.
    """
    position = draw % count
    return int(_order(seed, stream, draw // count, count)[position])


@functools.lru_cache(maxsize=8)
def _order(seed: int, stream: str, round_number: int, count: int) -> NDArray[np.int32]:
    generator = torch.Generator().manual_seed(mix(seed, stream, round_number))
    # A list would take eight times the memory, of which every loader process has its own.
    return torch.randperm(count, generator=generator).to(torch.int32).numpy()


os.environ.setdefault(
    "NO_ALBUMENTATIONS_UPDATE", "1"
)  # before its import: it would ask a registry for its version


class Augmentation:
    """Random crop, horizontal flip, then whatever the settings add, by albumentations' own names."""

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
                    f"{where}: {name!r} is no albumentations transform (name: ColorJitter, for example)"
                )
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")  # it only warns of options it does not know
                    steps.append(transform(**options))
            except Exception as error:  # it raises what its validators raise
                raise SettingsError(f"{where}: {name}: {' '.join(str(error).split())}") from None
        self._pipeline = albumentations.Compose(steps)
        self._crop_size = settings.crop_size

    def __call__(self, image: ImageArray, seed: int) -> ImageArray:
        """The augmented crop, always the same for the same image and seed: RGB uint8 (crop_size, crop_size,
        3).
        """
        # One generator for all steps: seeded apart but alike, every step's first draw would be the same
        # number.
        self._pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
        try:
            result: ImageArray = self._pipeline(image=image)["image"]
        except (
            Exception
        ) as error:  # it raises what its transforms raise: a crop larger than the image, for example
            raise SettingsError(f"data.augmentations: {' '.join(str(error).split())}") from None
        if result.shape != (self._crop_size, self._crop_size, 3) or result.dtype != np.uint8:
            raise SettingsError(
                f"data.augmentations: they turn a crop of {self._crop_size} pixels into {result.dtype} {result.shape}"
            )
        return result


_LEAK = 1 << 30  # bytes of its own by which a process may grow after its first batches
_LOOKED_EVERY = 60.0  # seconds
_PATIENCE = 5.0  # seconds for a killed process to end; one that waits for its disk may not
_SHOWN = 4  # images named in a message


class Died(Exception):
    """A loader process died; the message says how, and at which images."""


class Drawn(Protocol):
    """Samples by their draw, and the files that each is made of."""

    def __getitem__(self, draw: int) -> dict[str, Tensor]: ...

    def files(self, draw: int) -> dict[str, Path]: ...


class Loading:
    """Batches of samples, made in `workers` processes, or here where that is 0.

    draws: of each batch. timeout: seconds that a batch may take; 0: any. `close` ends the processes, whatever they do.
    """

    def __init__(
        self, samples: Drawn, draws: Iterator[list[int]], workers: int, *, pin_memory: bool, timeout: float
    ) -> None:
        self._samples, self._workers, self._timeout = samples, workers, timeout
        self._noted = _Noted(samples, workers)
        loader = DataLoader(
            self._noted,
            batch_sampler=draws,
            num_workers=workers,
            pin_memory=pin_memory,
            worker_init_fn=self._noted.begin,
            timeout=timeout if workers else 0,
            generator=torch.Generator(),  # each start draws a seed; from the global one, resume would not be exact
        )
        before = set(multiprocessing.active_children())
        self._iterator: Iterator[dict[str, Tensor]] | None = iter(loader)
        self._processes = [child for child in multiprocessing.active_children() if child not in before]
        _let_deaths_wait()
        self._taken, self._looked, self._held = 0, 0.0, dict[int, int]()

    def batch(self) -> dict[str, Tensor]:
        """The next batch. Raises Died, and DataError or SettingsError for what cannot be loaded or does not come."""
        assert self._iterator is not None
        failure: Exception
        try:
            for process in self._processes:  # while nobody waited for a batch
                if not process.is_alive():
                    raise Died(self._how(process.exitcode, process.pid))
            with _deaths_told(), self._told_late():
                batch = next(self._iterator)
            self._taken += 1
            return batch
        except (DataError, SettingsError) as error:
            # A worker's error arrives with its traceback; its last line is the message.
            message = str(error).strip().splitlines()[-1]
            failure = type(error)(message.removeprefix(f"gan_nst.core.errors.{type(error).__name__}: "))
            error.__traceback__ = None  # its frames would keep the loader, whose processes then end late
        except RuntimeError as error:
            if "DataLoader timed out" in str(error):
                failure = DataError(
                    f"no batch came for {self._timeout:g} s (data.timeout), and the loader processes are at "
                    f"{self._images() or 'no image'}; see whether their disk answers, and resume"
                )
                self._kill_the_busy()
            elif "DataLoader worker (pid" in str(error):
                failure = Died(self._how_any())
            else:
                raise
            error.__traceback__ = None
        raise failure

    def leak(self) -> str | None:
        """What to say of a process that has come to hold more and more; None as long as none has."""
        now = time.monotonic()
        if self._taken < 2 * self._workers or now < self._looked + _LOOKED_EVERY:
            return None
        self._looked = now
        held = {
            p.pid: read_proc("status", "RssAnon", p.pid) or 0 for p in self._processes if p.pid is not None
        }
        self._held = self._held or held
        for pid, size in held.items():
            if size > self._held[pid] + _LEAK:
                grown = f"{self._held[pid] / 2**20:.0f} to {size / 2**20:.0f} MiB"
                return f"a loader process grew from {grown}: an augmentation may leak"
        return None

    def close(self) -> None:
        """Ends the processes: torch asks them to, and those that do not answer are killed."""
        self._iterator = None
        for process in self._processes:
            if process.is_alive():
                process.kill()
            process.join(_PATIENCE)

    def _images(self, pid: int | None = None) -> str:
        """What the processes, or that one, are at."""
        draws = [draw for process, draw in self._noted.at() if pid in (None, process)]
        files = [str(file) for draw in draws for file in dict.fromkeys(self._samples.files(draw).values())]
        more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
        return ", ".join(files[:_SHOWN]) + more

    def _how_any(self) -> str:
        """How the process died of which torch tells."""
        for _ in range(100):  # its end may be told before it can be waited for
            for process in self._processes:
                if not process.is_alive():
                    return self._how(process.exitcode, process.pid)
            time.sleep(0.01)
        return "it is gone"

    def _how(self, code: int | None, pid: int | None) -> str:
        how = f"exit code {code}"
        with contextlib.suppress(ValueError, TypeError):
            how = f"killed by {signal.Signals(-(code or 0)).name}"
        images = self._images(pid)
        return f"{how} at {images}" if images else how

    def _kill_the_busy(self) -> None:
        """Kills the processes within a sample; whoever is not is left to torch, as it may hold a lock."""
        for pid, _ in self._noted.at():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    @contextlib.contextmanager
    def _told_late(self) -> Iterator[None]:
        """Without processes nothing can end a batch that does not come; a warning says what it waits for."""
        if self._workers or not self._timeout:
            yield
            return
        timer = threading.Timer(self._timeout, self._warn)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _warn(self) -> None:
        log.warning(f"no batch came for {self._timeout:g} s (data.timeout); it waits for {self._images()}")


class _Noted(Dataset[dict[str, Tensor]]):
    """Samples, and which of them each process is at."""

    def __init__(self, samples: Drawn, workers: int) -> None:
        self._samples = samples
        self._pids: Sequence[int] = RawArray("q", max(1, workers))
        self._draws: Any = RawArray("q", [-1] * max(1, workers))

    def __getitem__(self, draw: int) -> dict[str, Tensor]:
        told = get_worker_info()
        worker = 0 if told is None else told.id
        self._draws[worker] = draw
        sample = self._samples[draw]
        self._draws[worker] = -1
        return sample

    def begin(self, worker: int) -> None:
        """What a process begins with. Ctrl-C and a supervisor's SIGTERM reach every process of a group; the main one
        alone decides when to stop.
        """
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self._pids[worker] = os.getpid()  # type: ignore[index]

    def at(self) -> list[tuple[int, int]]:
        """(process, draw) of those within a sample."""
        return [(pid, draw) for pid, draw in zip(self._pids, self._draws, strict=True) if draw >= 0]


class _Deaths:
    """Torch's handler of SIGCHLD raises wherever the main process is, in the middle of a step too, which then cannot
    be gone on with. This one calls it only while a batch is waited for; `Loading.batch` looks for other deaths itself.
    """

    waited_for = False

    def __init__(self, handler: Callable[[int, FrameType | None], Any]) -> None:
        self._handler = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if _Deaths.waited_for:
            self._handler(number, frame)


def _let_deaths_wait() -> None:
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        return
    handler = signal.getsignal(signal.SIGCHLD)
    if callable(handler) and not isinstance(handler, _Deaths):
        signal.signal(signal.SIGCHLD, _Deaths(handler))


@contextlib.contextmanager
def _deaths_told() -> Iterator[None]:
    _Deaths.waited_for = True
    try:
        yield
    finally:
        _Deaths.waited_for = False


_DEATHS = 3  # of loader processes one after the other, without a batch between them


class StreamLike(Protocol):
    """What the loader must know of a method's stream (`gan_nst.methods.base.Stream`)."""

    @property
    def domain(self) -> str: ...
    @property
    def view(self) -> str: ...
    @property
    def tied_to(self) -> str | None: ...


class Samples(Dataset[dict[str, Tensor]]):
    """Sample number `draw` of every stream, uint8 of shape (3, crop, crop)."""

    def __init__(
        self,
        images: Mapping[tuple[str, str], Images],
        streams: Mapping[str, StreamLike],
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
        """timeout: seconds after which a batch that does not come is told; 0: never."""
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

        Loader processes that die or leak are started anew, with a warning. Raises DataError when they die again and
        again, when a batch takes longer than the timeout, and for images that cannot be read.
        """
        deaths = 0
        while True:
            loading = Loading(
                self._samples,
                self._draws_from(step),
                self._workers,
                pin_memory=self._device.type == "cuda",
                timeout=self._timeout,
            )
            again = (
                None  # why the processes are started once more; at the same step they make the same batches
            )
            try:
                while again is None:
                    yield [self._to_device(loading.batch()) for _ in range(self._accumulation)]
                    step, deaths = step + 1, 0
                    again = loading.leak()
            except Died as error:
                again, deaths = f"a loader process died ({error})", deaths + 1
            finally:
                loading.close()
            if deaths == _DEATHS:
                raise DataError(f"{again}; resume, with fewer data.workers if memory is short")
            log.warning(
                f"{again}; step {step}: the loader's processes are started anew, which changes no batch"
            )

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


def died(error: RuntimeError) -> DataError | None:
    """What to say of torch's error when it tells of a loader process that died as it started; None for any other."""
    if "DataLoader worker (pid" not in str(error):
        return None
    reason = str(error).splitlines()[0]
    return DataError(f"a loader process died ({reason}); resume, with fewer data.workers if memory is short")


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
