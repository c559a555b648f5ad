"""Training steps on random images, to be timed: the reference loop's and the trainer's."""

import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor

from gan_nst.bench.reference import Reference
from gan_nst.core.device import peak_memory, process_peak_memory
from gan_nst.methods import base
from gan_nst.methods.cyclegan import CycleGanSettings
from gan_nst.training.compilation import step_operations
from gan_nst.training.settings import TrainingSettings
from gan_nst.training.trainer import Trainer

Step = Callable[[], object]

_UNPLANNED = 1000  # steps, where the settings derive them from the size of the data set


@dataclass(frozen=True)
class Job:
    """A training to take one step of.

    crop_size: of the random images, in pixels.
    """

    method: base.MethodSettings
    training: TrainingSettings
    crop_size: int
    device: torch.device
    precision: str = "float32"
    compiled: bool = False
    threads: int = field(default_factory=torch.get_num_threads)

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


def cyclegan_job(
    size: int, width: int, blocks: int, batch: int, device: torch.device, precision: str = "float32"
) -> Job:
    """CycleGAN as published, with the reference's networks. size: of the crops in pixels."""
    settings = CycleGanSettings.model_validate(
        {
            "generator": {"width": width, "blocks": blocks, "upsampling": "transposed"},
            "discriminator": {"width": width},
        }
    )
    return Job(settings, TrainingSettings(batch_size=batch), size, device, precision)


def reference_step(job: Job) -> Step:
    """A step of the reference loop with the networks of a `cyclegan_job`, at its batch size, in float32."""
    assert isinstance(job.method, CycleGanSettings)
    torch.manual_seed(0)
    width, blocks = job.method.generator.width, job.method.generator.blocks
    reference = Reference(width, blocks, discriminator_width=job.method.discriminator.width).to(job.device)
    real_a, real_b = _random_images(job), _random_images(job)
    return lambda: reference.step(real_a, real_b)


def trainer_step(job: Job) -> Step:
    """A step of the trainer, moving average included."""
    if job.compiled:
        torch._dynamo.config.recompile_limit = (
            64  # a training has five graphs, and several trainings come here
        )
    trainer = Trainer(
        job.build(),
        job.training,
        lambda step: iter(()),
        device=job.device,
        precision=job.precision,
        checkpoints=Path(),
        header={},
        compiled=job.compiled,
    )
    trainer.step = job.step
    batches = [
        {key: _random_images(job) for key in trainer.method.streams} for _ in range(job.training.accumulation)
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
    for number in range(rounds + 1):
        for name, candidate in candidates.items():
            start = time.perf_counter()
            for _ in range(calls):
                candidate()
            wait_for(device)
            taken[name].append((time.perf_counter() - start) / calls)
        if number > 0 and time.perf_counter() - began > budget:
            break
    return {name: statistics.median(seconds[1:]) for name, seconds in taken.items()}


def wait_for(device: torch.device) -> None:
    """Returns when a device has finished what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def peak_mib(builder: Callable[[], Step], device: torch.device) -> float | None:
    """The most memory, in MiB, that a step and what it needs take; None where it is unknown.

    On CUDA it is torch's own count. On the CPU a fresh process calls the builder, which must be picklable.
    """
    if device.type == "cpu":
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(_peak_here, builder, device).result()
    return _peak_here(builder, device) if device.type == "cuda" else None


def _peak_here(builder: Callable[[], Step], device: torch.device) -> float:
    on_cuda = device.type == "cuda"
    before = torch.cuda.memory_allocated(device) if on_cuda else process_peak_memory()
    step = builder()
    for _ in range(2):  # until an optimizer has its moments, and cuDNN has chosen its algorithms
        step()
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(device)
        step()
    return (peak_memory(device) - before) / 2**20


def _random_images(job: Job) -> Tensor:
    side = job.crop_size
    return torch.rand(job.training.batch_size, 3, side, side, device=job.device) * 2 - 1
