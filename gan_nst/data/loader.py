"""From pictures to batches: every batch is a function of the step, so a resumed run sees what it would have
seen.
"""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from gan_nst.core.errors import DataError
from gan_nst.data.augment import Augmentation
from gan_nst.data.pictures import Pictures
from gan_nst.data.sampling import mix, picture_index
from gan_nst.data.settings import DataSettings
from gan_nst.data.workers import Died, Loading
from gan_nst.images.files import to_float, to_tensor

log = logging.getLogger(__name__)

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
        pictures: Mapping[tuple[str, str], Pictures],
        streams: Mapping[str, StreamLike],
        settings: DataSettings,
        seed: int,
    ) -> None:
        """pictures: by (domain, view)."""
        self._pictures = pictures
        self._streams = streams
        self._augment = Augmentation(settings)
        self._seed = seed

    def __getitem__(self, draw: int) -> dict[str, Tensor]:
        sample = {}
        for key, stream in self._streams.items():
            leader = stream.tied_to or key
            pictures, index = self._drawn(key, draw)
            sample[key] = to_tensor(self._augment(pictures[index], mix(self._seed, leader, "augment", draw)))
        return sample

    def files(self, draw: int) -> dict[str, Path]:
        """The file that every stream's picture of a draw comes from."""
        found = {}
        for key in self._streams:
            pictures, index = self._drawn(key, draw)
            found[key] = pictures.file(index)
        return found

    def _drawn(self, key: str, draw: int) -> tuple[Pictures, int]:
        """The pictures that a stream draws from, and the index of its draw among them."""
        stream = self._streams[key]
        pictures = self._pictures[stream.domain, stream.view]
        return pictures, picture_index(self._seed, stream.tied_to or key, draw, len(pictures))


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
        again, when a batch takes longer than the timeout, and for pictures that cannot be read.
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
        """The files of this process's pictures at a step, by stream, in the order of the draws."""
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
