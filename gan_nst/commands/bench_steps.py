"""The steps that `gan-nst bench` times: the written-out reference's, ours, and that of a configured training."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gan_nst.bench.ceiling import DTYPES, fastest_float32
from gan_nst.bench.clock import Times, interleaved, waiting
from gan_nst.bench.memory import Build, Step, peak_mib
from gan_nst.bench.reference import Reference
from gan_nst.core.device import choose_precision
from gan_nst.methods import base
from gan_nst.runs.settings import RunSettings
from gan_nst.training.compilation import step_operations
from gan_nst.training.settings import TrainingSettings
from gan_nst.training.trainer import Trainer

BATCHES = (1, 2, 4, 8, 16, 32)

_UNPLANNED = 1000  # steps, where the settings leave them to the size of the data set
_SECONDS = {"cpu": 60.0, "cuda": 30.0, "mps": 30.0}  # after which a comparison takes no further round


@dataclass(frozen=True)
class Job:
    """A training to take a step of, as plain data that a process of its own can be handed."""

    method: base.MethodSettings
    training: TrainingSettings
    crop_size: int
    device: torch.device

    @property
    def last(self) -> int:
        """The last planned step: the one timed, as a warm-up is over by then."""
        return (self.training.steps or _UNPLANNED) - 1

    def build(self) -> base.Method:
        """The method, with the random weights of one seed."""
        torch.manual_seed(0)
        plan = base.Plan(self.last + 1, self.last + 1)
        return base.find(self.method.name)(self.method, plan)  # type: ignore[attr-defined]

    def operations(self) -> int:
        """Floating-point operations of the step. Raises SettingsError when the networks cannot take the crops."""
        one = step_operations(self.build(), self.last, self.training.batch_size, self.crop_size)
        return one * self.training.accumulation


@dataclass(frozen=True)
class Candidate:
    """One way to take a step. precision: of the ceiling it is measured against."""

    precision: str
    build: Build


def cyclegan_job(size: int, width: int, blocks: int, batch: int, device: torch.device) -> Job:
    """CycleGAN as published, with the networks of the reference. size: of the crops in pixels."""
    settings = base.find("cyclegan").Settings.model_validate(
        {
            "generator": {"width": width, "blocks": blocks, "upsampling": "transposed"},
            "discriminator": {"width": width},
        }
    )
    return Job(settings, TrainingSettings(batch_size=batch), size, device)


def configured_job(settings: RunSettings, device: torch.device) -> Job:
    """The step that a run with these settings takes, on random images."""
    method = base.find(settings.method_name).resolve(settings.method)
    return Job(method, settings.training, settings.data.crop_size, device)


def candidates(
    size: int, width: int, blocks: int, device: torch.device, compiled: bool
) -> dict[str, Candidate]:
    """What is compared at batch 1, by name; the first is what the others' ratios are to.

    compiled: whether our steps are also compared with their networks compiled.
    """
    job = cyclegan_job(size, width, blocks, 1, device)
    ours = {
        precision + ("_compiled" if choice else ""): Candidate(
            precision, partial(our_step, job, precision, choice)
        )
        for choice in ([False, True] if compiled else [False])
        for precision in DTYPES
    }
    return {"reference": Candidate("float32", partial(reference_step, size, width, blocks, device)), **ours}


def reference_step(size: int, width: int, blocks: int, device: torch.device) -> Step:
    """A step of the written-out loop at batch 1; on CUDA with cuDNN's trials and TF32 allowed."""
    torch.manual_seed(0)
    reference = Reference(width, blocks, discriminator_width=width)
    for network in (reference.ab, reference.ba, *reference.judges):
        network.to(device)
    images = [_random_images(1, size, device) for _ in range(2)]

    def step() -> None:
        with fastest_float32(device):
            reference.step(*images)

    return step


def our_step(job: Job, precision: str, compiled: bool = False) -> Step:
    """A step of the trainer on random images, moving average and all."""
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
    trainer.step = job.last
    micro_batches = [
        {
            key: _random_images(job.training.batch_size, job.crop_size, job.device)
            for key in trainer.method.streams
        }
        for _ in range(job.training.accumulation)
    ]
    return lambda: trainer.train_step([dict(batch) for batch in micro_batches])


def time_steps(builds: Mapping[str, Build], rounds: int, device: torch.device) -> Times:
    """The seconds of a step of each, taken in turns."""
    on_gpu = device.type != "cpu"
    return interleaved(
        {name: build() for name, build in builds.items()},
        rounds,
        warm=2 if on_gpu else 1,
        calls=10 if on_gpu else 1,
        budget=_SECONDS[device.type],
        wait=waiting(device),
    )


def compare(
    of: Mapping[str, Candidate],
    seconds: Mapping[str, float],
    peaks: Mapping[str, float | None],
    operations: int,
    ceiling: Mapping[str, float],
) -> dict[str, dict[str, float | None]]:
    """What is told of each candidate. operations: of a step. ceiling: GFLOP/s of a convolution, by precision."""
    first = next(iter(of))
    return {
        name: {
            "seconds": seconds[name],
            "ratio": seconds[first] / seconds[name],
            "gflops_per_second": _rate(operations, seconds[name]),
            "share_of_ceiling": _rate(operations, seconds[name]) / ceiling[candidate.precision],
            "peak_mib": peaks[name],
        }
        for name, candidate in of.items()
    }


def measure_cyclegan(
    size: int,
    width: int,
    blocks: int,
    ceiling: Mapping[str, Any],
    rounds: int,
    device: torch.device,
    compiled: bool,
) -> dict[str, Any]:
    """CycleGAN's step, ours beside the reference's; on CUDA also at larger batches. Images per second are those of
    each domain, as a run logs them; the fastest is one of ours.

    ceiling: GFLOP/s of "convolution" and "matrix_product", each by precision. compiled: whether ours are also taken
    with compiled networks, the larger batches then with these alone.
    """
    of = candidates(size, width, blocks, device, compiled)
    peaks = {name: peak_mib(candidate.build, device) for name, candidate in of.items()}
    times = time_steps({name: candidate.build for name, candidate in of.items()}, rounds, device)
    seconds = times.seconds
    operations = cyclegan_job(size, width, blocks, 1, device).operations()
    series: dict[str, Any] | None = None
    if device.type == "cuda":
        rate = ceiling["matrix_product"]["bfloat16"]
        measure = partial(_at_batch, size, width, blocks, rate, rounds, device, compiled)
        series = until_out_of_memory(measure, BATCHES)
    return {
        "size": size,
        "width": width,
        "blocks": blocks,
        "batch": 1,
        "reference_is": "float32"
        + (", with cudnn.benchmark and TF32 allowed" if device.type == "cuda" else ""),
        "rounds": times.rounds,
        "operations": operations,
        **compare(of, seconds, peaks, operations, ceiling["convolution"]),
        "batches": series,
        "fastest_images_per_second": max(
            [1 / seconds[name] for name in of if name != "reference"]
            + [value["images_per_second"] for value in (series or {}).values()]
        ),
    }


def until_out_of_memory(
    measure: Callable[[int], dict[str, Any]], batches: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """What is measured at each batch size, by its text, up to the first that is too large for the device."""
    found: dict[str, dict[str, Any]] = {}
    for batch in batches:
        try:
            found[str(batch)] = measure(batch)
        except torch.OutOfMemoryError:
            break
    return found


def measure_configured(job: Job, precision: str, compiled: bool, rounds: int) -> dict[str, Any]:
    """The step of a configured training. Images per second are those of each domain, as a run logs them."""
    operations = job.operations()
    build = partial(our_step, job, choose_precision(precision, job.device), compiled)
    peak = peak_mib(build, job.device)
    seconds = time_steps({"": build}, rounds, job.device).seconds[""]
    training = job.training
    return {
        "method": job.method.name,  # type: ignore[attr-defined]
        "device": str(job.device),
        "precision": choose_precision(precision, job.device),
        "compiled": compiled,
        "crop_size": job.crop_size,
        "batch_size": training.batch_size,
        "accumulation": training.accumulation,
        "operations": operations,
        "seconds": seconds,
        "images_per_second": training.batch_size * training.accumulation / seconds,
        "steps": training.steps,
        "hours": None if training.steps is None else training.steps * seconds / 3600,
        "peak_mib": peak,
    }


def _at_batch(
    size: int,
    width: int,
    blocks: int,
    rate: float,
    rounds: int,
    device: torch.device,
    compiled: bool,
    batch: int,
) -> dict[str, Any]:
    """Our step in bfloat16 at a batch size. rate: GFLOP/s of a matrix product."""
    job = cyclegan_job(size, width, blocks, batch, device)
    build = partial(our_step, job, "bfloat16", compiled)
    peak = peak_mib(build, device)
    seconds = time_steps({"": build}, rounds, device).seconds[""]
    return {
        "seconds": seconds,
        "images_per_second": batch / seconds,
        "gflops_per_second": _rate(job.operations(), seconds),
        "share_of_matrix_product": _rate(job.operations(), seconds) / rate,
        "peak_mib": peak,
    }


def _rate(operations: int, seconds: float) -> float:
    """GFLOP/s."""
    return operations / seconds / 1e9


def _random_images(count: int, size: int, device: torch.device) -> torch.Tensor:
    return torch.rand(count, 3, size, size, device=device) * 2 - 1


def _no_batches(step: int) -> Any:
    raise AssertionError("a step is handed its images")
