"""Training steps on random images, to be timed: the reference loop's and the trainer's."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from gan_nst.bench.reference import Reference
from gan_nst.core.device import process_peak_memory
from gan_nst.methods import base
from gan_nst.training.compilation import step_operations
from gan_nst.training.settings import TrainingSettings
from gan_nst.training.trainer import Trainer

Step = Callable[[], object]

_UNPLANNED = 1000  # steps, where the settings derive them from the size of the data set


@dataclass(frozen=True)
class Job:
    """A training to take one step of. crop_size: of the random images, in pixels."""

    method: base.MethodSettings
    training: TrainingSettings
    crop_size: int
    device: torch.device
    threads: int | Literal["auto"] = "auto"

    @property
    def step(self) -> int:
        """The last planned step: the one timed, since any warm-up is over by then."""
        return (self.training.steps or _UNPLANNED) - 1

    @property
    def images(self) -> int:
        """Images of each domain in a step."""
        return self.training.batch_size * self.training.accumulation

    def build(self) -> base.Method:
        """The method, with the random weights of one seed."""
        torch.manual_seed(0)
        plan = base.Plan(self.step + 1, self.step + 1)
        return base.find(self.method.name)(self.method, plan)  # type: ignore[attr-defined]

    def operations(self) -> int:
        """Floating-point operations of the step. Raises SettingsError when the networks cannot take the crops."""
        one = step_operations(self.build(), self.step, self.training.batch_size, self.crop_size)
        return one * self.training.accumulation


def cyclegan_job(size: int, width: int, blocks: int, batch: int, device: torch.device) -> Job:
    """CycleGAN as published, with the reference's networks. size: of the crops in pixels."""
    settings = base.find("cyclegan").Settings.model_validate(
        {
            "generator": {"width": width, "blocks": blocks, "upsampling": "transposed"},
            "discriminator": {"width": width},
        }
    )
    return Job(settings, TrainingSettings(batch_size=batch), size, device)


def reference_step(size: int, width: int, blocks: int, device: torch.device) -> Step:
    """A step of the reference loop at batch 1; on CUDA cuDNN may choose algorithms by trial and use TF32."""
    torch.manual_seed(0)
    reference = Reference(width, blocks, discriminator_width=width)
    for network in (reference.ab, reference.ba, *reference.judges):
        network.to(device)
    images = [_random_images(1, size, device) for _ in range(2)]

    def step() -> None:
        with fastest_float32(device):
            reference.step(*images)

    return step


def trainer_step(job: Job, precision: str, compiled: bool = False) -> Step:
    """A step of the trainer, moving average included."""
    trainer = Trainer(
        job.build(),
        job.training,
        _no_batches,
        device=job.device,
        precision=precision,
        checkpoints=Path(),
        header={},
        compiled=compiled,
    )
    trainer.step = job.step
    streams = trainer.method.streams
    batches = [
        {key: _random_images(job.training.batch_size, job.crop_size, job.device) for key in streams}
        for _ in range(job.training.accumulation)
    ]
    return lambda: trainer.train_step([dict(batch) for batch in batches])


def interleaved(
    candidates: Mapping[str, Step],
    device: torch.device,
    *,
    rounds: int,
    budget: float = float("inf"),
    calls: int = 1,
) -> dict[str, float]:
    """The median seconds of each candidate, taken in turns so that a passing load slows them all.

    One round first that does not count. calls: in one turn. budget: seconds after which no further round begins.
    """
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    began = time.perf_counter()
    for number in range(-1, rounds):
        if number > 0 and time.perf_counter() - began > budget:
            break
        for name, candidate in candidates.items():
            wait_for(device)
            start = time.perf_counter()
            for _ in range(calls):
                candidate()
            wait_for(device)
            if number >= 0:
                taken[name].append((time.perf_counter() - start) / calls)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def peak_mib(builder: Callable[[], Step], device: torch.device) -> float | None:
    """The most memory, in MiB, that a step and what it needs take; None where it is unknown.

    On CUDA it is torch's own count. On the CPU a fresh process calls the builder, which must be picklable.
    """
    if device.type == "cpu":
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            peak: float = pool.submit(_peak_here, builder).result()
            return peak
    if device.type != "cuda":
        return None
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    step = builder()
    for _ in range(2):  # until an optimizer has its moments, and cuDNN has chosen its algorithms
        step()
    torch.cuda.reset_peak_memory_stats(device)
    step()
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def _peak_here(builder: Callable[[], Step]) -> float:
    before = process_peak_memory()
    step = builder()
    for _ in range(2):  # an optimizer has its moments only after its first step
        step()
    return (process_peak_memory() - before) / 2**20


def wait_for(device: torch.device) -> None:
    """Returns when a device has finished what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextmanager
def fastest_float32(device: torch.device) -> Iterator[None]:
    """Lets CUDA choose convolution algorithms by trial and compute float32 in TF32."""
    if device.type != "cuda":
        yield
        return
    cudnn, matmul = torch.backends.cudnn, torch.get_float32_matmul_precision()
    before = cudnn.benchmark, cudnn.allow_tf32
    cudnn.benchmark, cudnn.allow_tf32 = True, True
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.allow_tf32 = before
        torch.set_float32_matmul_precision(matmul)


def _random_images(count: int, size: int, device: torch.device) -> Tensor:
    return torch.rand(count, 3, size, size, device=device) * 2 - 1


def _no_batches(step: int) -> Any:
    raise AssertionError("a timed step is given its images")
