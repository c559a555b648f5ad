"""`gan-nst bench`: how fast this machine trains, loads and translates, next to a reference and its own peak rates."""

import logging
import math
import os
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.benchmark import Timer

from gan_nst.bench.steps import (
    Job,
    cyclegan_job,
    interleaved,
    peak_mib,
    reference_step,
    trainer_step,
)
from gan_nst.core.device import (
    choose_device,
    choose_precision,
    describe_machine,
    is_out_of_memory,
    tune_convolutions,
)
from gan_nst.core.errors import TrainingError
from gan_nst.core.files import check_writable, write_file
from gan_nst.core.options import BenchOptions
from gan_nst.core.threads import computing_with, training_threads
from gan_nst.data.batches import Batches, Samples
from gan_nst.data.cache import open_images
from gan_nst.data.demo import make_demo
from gan_nst.data.domains import DOMAINS, DataSettings, locate
from gan_nst.inference.exported import Description, TrainingScale
from gan_nst.inference.folder import translate_folder
from gan_nst.inference.translator import Translator
from gan_nst.methods import base
from gan_nst.methods.cyclegan import CycleGan
from gan_nst.networks import build
from gan_nst.runs.assessment import to_json
from gan_nst.runs.settings import find_config, load_settings
from gan_nst.training.compilation import resolve_compile

log = logging.getLogger(__name__)

# Seconds for the rounds of steps, which are the slowest part.
_STEP_BUDGET, _CONFIGURED_BUDGET = 90.0, 30.0

_AUGMENTATIONS = [
    {"name": "ColorJitter", "p": 0.5},
    {"name": "Rotate", "limit": 10, "p": 0.5},
    {"name": "GaussianBlur", "p": 0.2},
]
_LOADERS: dict[str, dict[str, Any]] = {
    "decoded": {"cache": "never"},
    "cached": {},
    "cached_and_augmented": {"augmentations": _AUGMENTATIONS},
}

# How values are printed; others follow their key.
_FORMATS = {
    "gan_nst": "gan_nst {}",
    "load": "load {:.1f}",
    "gflop": "{:,.4g} GFLOP",
    "gflops_per_second": "{:,.0f} GFLOP/s",
    "share_of_convolution": "{:.0%} of the convolution",
    "seconds": "{:.3g} s",
    "ratio": "{:.2f} x reference",
    "images_per_second": "{:.4g} images/s",
    "peak_mib": "{:.0f} MiB",
    "hours": "{:.2g} h for all steps",
    **{way: f"{way.replace('_', ' ')} {{:.4g}} images/s" for way in _LOADERS},
}


@dataclass(frozen=True)
class Sizes:
    """The sizes to measure with. Sides are in pixels; width and blocks are the published generator's.

    step: crops of CycleGAN's step. image, images: side and number of the loaded and translated images.
    """

    step: int = 128
    width: int = 64
    blocks: int = 9
    image: int = 256
    images: int = 4


SIZES = {"cpu": Sizes(), "cuda": Sizes(step=256, images=64), "mps": Sizes(step=256)}


def benchmark(
    config: Path | str | None = None,
    overrides: Sequence[str] = (),
    options: BenchOptions = BenchOptions(),
    sizes: Sizes | None = None,
) -> dict[str, Any]:
    """Measures this machine, logs each row of a table as it is found, and returns the rows, which it writes to
    `options.json`.

    config, overrides: a training whose step is measured too, on random images. sizes: by default what suits the device.
    What the processor cannot do natively is skipped. Raises GanNstError, one line, for every mistake in what was given,
    before it measures anything.
    """
    device = choose_device(options.device)
    tune_convolutions(device)
    choice = {None: "auto", True: "always", False: "never"}[options.compiled]
    compiled = resolve_compile(choice, device, math.inf) == "always"
    check_writable(options.json)
    configured = _configured(config, overrides, options.device) if config or overrides else None
    result: dict[str, Any] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="gan_nst-bench-") as folder:
            for name, values in _measure(
                sizes or SIZES[device.type], device, options.rounds, configured, compiled, Path(folder)
            ):
                result[name] = values
                log.info(as_text(name, values))
    except (MemoryError, RuntimeError, OSError) as error:
        # Linux kills the process that measures memory when none is left.
        if not is_out_of_memory(error) and not isinstance(error, BrokenProcessPool):
            raise
        raise TrainingError(
            f"out of memory on {device}; is another program using it? A configured step needs less with a smaller "
            "training.batch_size or data.crop_size"
        ) from None
    if options.json is not None:
        write_file(options.json, to_json(result))
    return result


def as_text(name: str, values: Mapping[str, Any]) -> str:
    """A row of the table, which may take several lines."""
    texts = [
        _FORMATS.get(key, key.replace("_", " ") + " {}").format(value)
        for key, value in values.items()
        if value is not None
    ]
    return textwrap.fill(f"{name:<22}{', '.join(texts)}", 120, subsequent_indent=" " * 22)


def _configured(config: Path | str | None, overrides: Sequence[str], device: str) -> Job:
    """The step of the settings, or of the method's default recipe where only overrides are given."""
    given = dict(text.partition("=")[::2] for text in overrides)
    path = Path(config) if config else find_config("default", given.get("method.name", "cyclegan"))
    settings, on, small = load_settings(
        path, [*([] if device == "auto" else [f"device={device}"]), *overrides]
    )
    if small:
        log.info(f"no GPU: the configured step is that of the on_cpu block of {path}")
    method, training = base.find(settings.method_name).resolve(settings.method), settings.training
    job = Job(method, training, settings.data.crop_size, on, choose_precision(settings.precision, on))
    operations = job.operations()
    compiled = resolve_compile(settings.compile, on, operations * (job.step + 1)) == "always"
    auto = training_threads(operations / training.accumulation)
    threads = auto if settings.threads == "auto" else settings.threads
    return replace(job, compiled=compiled, threads=threads)


def _measure(
    sizes: Sizes,
    device: torch.device,
    rounds: int,
    configured: Job | None,
    compiled: bool,
    work: Path,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows by name, as soon as they are measured. work: an empty folder for images."""
    native = choose_precision("auto", device)
    here = {"threads": torch.get_num_threads(), "load": os.getloadavg()[0], "native_precision": native}
    yield "machine", describe_machine(device) | here
    convolution = {}
    for precision in sorted({"float32", native}, reverse=True):
        convolution[precision] = convolution_rate(precision, device, 4 * sizes.width, sizes.step)
        yield f"convolution, {precision}", {"gflops_per_second": convolution[precision]}
    job = cyclegan_job(sizes.step, sizes.width, sizes.blocks, 1, device)
    shape = {"crop_size": sizes.step, "width": sizes.width, "blocks": sizes.blocks, "batch_size": 1}
    yield "CycleGAN's step", {**shape, "gflop": job.operations() / 1e9}
    jobs = {"reference": job}
    for precision in convolution:
        jobs[precision] = replace(job, precision=precision)
        if compiled:
            jobs[f"{precision}, compiled"] = replace(job, precision=precision, compiled=True)
    for name, values in _timed(jobs, rounds, _STEP_BUDGET).items():
        share = values["gflops_per_second"] / convolution[jobs[name].precision]
        yield name, values | {"share_of_convolution": share}
    if configured is not None:
        yield "configured step", _configured_step(configured, rounds)
    yield "loader, on one core", _loader(sizes, work)
    yield "translate a folder", _translate(sizes, device, min(rounds, 3), work)


@torch.inference_mode()
def convolution_rate(precision: str, device: torch.device, channels: int, side: int) -> float:
    """GFLOP/s of a 3x3 convolution of one image, forward, in its faster layout.

    channels: in and out. side: of the image in pixels.
    """
    kind = getattr(torch, precision)
    x = torch.randn(1, channels, side, side, dtype=kind, device=device)
    weight = torch.randn(channels, channels, 3, 3, dtype=kind, device=device)
    seconds = [
        _seconds(partial(F.conv2d, x.to(memory_format=layout), weight.to(memory_format=layout), padding=1))
        for layout in (torch.contiguous_format, torch.channels_last)
    ]
    return 2 * 9 * channels**2 * side**2 / min(seconds) / 1e9


def _seconds(operation: Callable[[], object], threads: int | None = None) -> float:
    """The median of as many calls as fit into half a second. threads: None for torch's default."""
    timer = Timer(
        "operation()", globals={"operation": operation}, num_threads=threads or torch.get_num_threads()
    )
    return float(timer.blocked_autorange(min_run_time=0.5).median)


def _timed(jobs: Mapping[str, Job], rounds: int, budget: float) -> dict[str, dict[str, Any]]:
    """The speed and memory of jobs on one device; the steps are taken in turns.

    The job named "reference", if there is one, is taken by the reference loop. budget: seconds after which no further
    round begins.
    """
    device = next(iter(jobs.values())).device
    builders = {
        name: partial(reference_step if name == "reference" else trainer_step, job)
        for name, job in jobs.items()
    }
    peaks = {name: peak_mib(builder, device) for name, builder in builders.items()}
    steps = {name: builder() for name, builder in builders.items()}
    calls = 10 if device.type == "cuda" else 1
    seconds = interleaved(steps, device, rounds=rounds, budget=budget, calls=calls)
    return {
        name: {
            "seconds": seconds[name],
            "ratio": seconds["reference"] / seconds[name] if "reference" in jobs else None,
            "images_per_second": job.images / seconds[name],
            "gflops_per_second": job.operations() / seconds[name] / 1e9,
            "peak_mib": peaks[name],
        }
        for name, job in jobs.items()
    }


def _configured_step(job: Job, rounds: int) -> dict[str, Any]:
    training = job.training
    with computing_with(job.threads):
        values = _timed({"": job}, rounds, _CONFIGURED_BUDGET)[""]
    return {
        "method": job.method.name,  # type: ignore[attr-defined]
        "device": str(job.device),
        "precision": job.precision,
        "compiled": job.compiled,
        "threads": job.threads,
        "crop_size": job.crop_size,
        "batch_size": training.batch_size,
        "accumulation": training.accumulation,
        "steps": training.steps,
        "hours": training.steps and training.steps * values["seconds"] / 3600,
        **values,
    }


def _loader(sizes: Sizes, work: Path) -> dict[str, float]:
    """Images a second on one core, by the way to load them."""
    make_demo(work / "loaded", round(1.25 * sizes.image), 8 * sizes.images, held_out=2)
    plain = DataSettings(
        root=work,
        domain="loaded",
        load_size=round(1.12 * sizes.image),
        crop_size=sizes.image,
        cache=str(work / "cache"),
        upscale=True,
    )
    found = {}
    for way, change in _LOADERS.items():
        settings = plain.model_copy(update=change)
        training, streams = locate(settings).training, CycleGan.streams
        views = {(d, "image"): open_images(training[d], settings, d)[0] for d in DOMAINS}
        batches = Batches(Samples(views, streams, settings, seed=0), batch_size=1)(0)
        found[way] = len(streams) / _seconds(partial(next, batches), threads=1)
    return found


def _translate(sizes: Sizes, device: torch.device, rounds: int, work: Path) -> dict[str, Any]:
    size, source = sizes.image, work / "translated" / "trainA"
    make_demo(source.parent, size, sizes.images, held_out=0)
    network = {"name": "resnet", "width": sizes.width, "blocks": sizes.blocks, "upsampling": "transposed"}
    scale = TrainingScale(load_size=size, crop_size=size)
    description = Description(network=network, translation="ab", training_scale=scale, method="cyclegan")
    translator = Translator(build(network), description, str(device))
    folder = partial(translate_folder, translator, source, work / "out")
    seconds = interleaved({"": folder}, device, rounds=rounds)[""]
    return {
        "images": sizes.images,
        "size": size,
        "precision": translator.precision,
        "images_per_second": sizes.images / seconds,
    }
