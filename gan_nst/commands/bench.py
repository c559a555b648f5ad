"""`gan-nst bench`: how fast this machine trains, loads, translates and starts, compared with its peak rates."""

import logging
import math
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.benchmark import Timer

from gan_nst.bench.steps import (
    Job,
    Step,
    cyclegan_job,
    fastest_float32,
    interleaved,
    peak_mib,
    reference_step,
    trainer_step,
)
from gan_nst.core.device import (
    autocast,
    choose_device,
    choose_precision,
    tune_convolutions,
)
from gan_nst.core.errors import SettingsError, TrainingError, counted
from gan_nst.core.files import check_writable, write_file
from gan_nst.core.options import BenchOptions
from gan_nst.core.threads import computing_with, training_threads
from gan_nst.core.version import __version__
from gan_nst.data.batches import Batches, Samples
from gan_nst.data.cache import open_images
from gan_nst.data.demo import make_demo
from gan_nst.data.domains import DOMAINS, DataSettings, locate
from gan_nst.images.arrays import to_float, to_tensor
from gan_nst.images.files import find_images, read_image
from gan_nst.inference.exported import Description, TrainingScale
from gan_nst.inference.folder import translate_folder
from gan_nst.inference.translator import Translator
from gan_nst.methods import base
from gan_nst.networks import build
from gan_nst.runs.assessment import to_json
from gan_nst.runs.settings import find_config, load_settings
from gan_nst.training.compilation import resolve_compile

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

_BUSY = 0.5  # processes that wanted to run during the last minute
_STEP_BUDGET = 90.0  # seconds for the comparison of steps, which are the slowest part
_START_PATIENCE = 60.0  # seconds to wait for a training's first step
_AUGMENTATIONS: list[dict[str, Any]] = [
    {"name": "ColorJitter", "p": 0.5},
    {"name": "Rotate", "limit": 10, "p": 0.5},
    {"name": "GaussianBlur", "p": 0.2},
]


@dataclass(frozen=True)
class Sizes:
    """What is measured on. Sides are in pixels; width and blocks are the published generator's.

    step: crops of CycleGAN's step. channels, side: of the ceiling's convolution. matrix: of its matrices. image,
    images: side and number of the loaded and translated images. seconds: for which the loader is watched.
    """

    step: int = 128
    width: int = 64
    blocks: int = 9
    channels: int = 256
    side: int = 128
    matrix: int = 2048
    image: int = 256
    images: int = 4
    seconds: float = 2.0


SIZES = {
    "cpu": Sizes(),
    "cuda": Sizes(step=256, matrix=8192, images=64),
    "mps": Sizes(step=256, matrix=4096),
}


def benchmark(
    config: Path | str | None = None,
    overrides: Sequence[str] = (),
    options: BenchOptions = BenchOptions(),
    sizes: Sizes | None = None,
) -> dict[str, Any]:
    """Measures this machine, logs each figure as it is found, and returns what it writes to
    `options.json`.

    config, overrides: a training whose step is measured too, on random images. sizes: by default what suits the device.
    What the processor cannot do natively is None. Raises GanNstError, one line, for every mistake in what was given,
    before it measures anything.
    """
    compiled, json = options.compiled, options.json
    on = choose_device(options.device)
    tune_convolutions(on)
    wanted = "always" if compiled else "auto" if compiled is None and on.type == "cuda" else "never"
    compiles = resolve_compile(wanted, on, math.inf) == "always"
    check_writable(json)
    configured = _configured(config, overrides, options.device) if config or overrides else None
    if compiles or (configured is not None and configured.compiled):
        from torch._dynamo import config as dynamo  # takes a second

        dynamo.recompile_limit = 64  # a training has five graphs, and many trainings come here
    result: dict[str, Any] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="gan_nst-bench-") as folder:
            for part, found in _measure(
                sizes or SIZES[on.type], on, options.rounds, configured, compiles, Path(folder)
            ):
                result[part] = found
                log.info(as_text({part: found}))
    except torch.OutOfMemoryError:
        raise TrainingError(
            f"out of memory on {on}; is another program using it? A configured step needs less with a smaller "
            "training.batch_size or data.crop_size"
        ) from None
    if json is not None:
        write_file(json, to_json(result))
    return result


@dataclass(frozen=True)
class _Configured:
    job: Job
    precision: str
    compiled: bool


def _configured(config: Path | str | None, overrides: Sequence[str], device: str) -> _Configured:
    """The step of the settings, or of the method's default recipe where only overrides are given."""
    given = dict(text.partition("=")[::2] for text in overrides)
    path = Path(config) if config else find_config("default", given.get("method.name", "cyclegan"))
    settings, on, small = load_settings(
        path, [*([] if device == "auto" else [f"device={device}"]), *overrides]
    )
    if small:
        log.info(f"no GPU: the configured step is that of the on_cpu block of {path}")
    method = base.find(settings.method_name).resolve(settings.method)
    job = Job(method, settings.training, settings.data.crop_size, on, settings.threads)
    compiled = resolve_compile(settings.compile, on, job.operations() * (job.step + 1)) == "always"
    return _Configured(job, choose_precision(settings.precision, on), compiled)


def _measure(
    sizes: Sizes,
    device: torch.device,
    rounds: int,
    configured: _Configured | None,
    compiled: bool,
    work: Path,
) -> Iterator[tuple[str, Any]]:
    """Each part by its name, as soon as it is measured. work: an empty folder for images and runs."""
    machine = _machine(device)
    yield "machine", machine
    if (machine["load"] or 0.0) > _BUSY:
        log.warning(
            f"other work is running (load {machine['load']:.1f}); times will be longer than on a quiet machine"
        )
    precisions = ["float32"] + ["bfloat16"] * (device.type != "cpu" or machine["bfloat16_native"])
    ceiling = {
        "convolution": {p: convolution_rate(p, device, sizes.channels, sizes.side) for p in precisions},
        "matrix_product": {p: matrix_product_rate(p, device, sizes.matrix) for p in precisions},
    }
    yield "ceiling", ceiling
    step = _cyclegan_step(sizes, device, ceiling, precisions, rounds, compiled)
    yield "cyclegan_step", step
    if configured is not None:
        yield "configured_step", _configured_step(configured, rounds)
    loader = _loader(sizes, work)
    streams = len(base.find("cyclegan").streams)
    consumed = streams * step["fastest_images_per_second"]
    yield "loader", loader | {"times_what_the_step_consumes": loader["cached"] / consumed}
    yield "translate", _translate(sizes, device, min(rounds, 3), work)
    yield "start", {"help_seconds": _help_seconds(), "first_step_seconds": _first_step_seconds(work)}


def _machine(device: torch.device) -> dict[str, Any]:
    name = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        found = None
    return {
        "processor": found[1] if found else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "device": f"{device}{name}",
        "bfloat16_native": choose_precision("auto", device) == "bfloat16",
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "gan_nst": __version__,
    }


@torch.inference_mode()
def convolution_rate(
    precision: str, device: torch.device, channels: int, side: int, largest_batch: int = 64
) -> float:
    """GFLOP/s of a 3x3 convolution, forward, in its better layout and at its best batch.

    channels: in and out. side: of the image in pixels.
    """
    kind, operations, best = DTYPES[precision], 2 * 9 * channels**2 * side**2, 0.0
    for layout in (torch.contiguous_format, torch.channels_last):
        weight = torch.randn(channels, channels, 3, 3, dtype=kind, device=device).to(memory_format=layout)
        batch, seconds = 1, 0.0
        while batch <= largest_batch and seconds < 0.1:  # a larger batch is no faster
            x = torch.randn(batch, channels, side, side, dtype=kind, device=device).to(memory_format=layout)
            seconds = _seconds(partial(F.conv2d, x, weight, padding=1), device)
            best = max(best, batch * operations / seconds / 1e9)
            batch *= 2
    return best


@torch.inference_mode()
def matrix_product_rate(precision: str, device: torch.device, side: int) -> float:
    """GFLOP/s of the product of two square matrices."""
    x, y = (torch.randn(side, side, dtype=DTYPES[precision], device=device) for _ in range(2))
    return 2 * side**3 / _seconds(partial(torch.matmul, x, y), device) / 1e9


def _seconds(operation: Callable[[], object], device: torch.device) -> float:
    """The median of as many calls as fit into a fifth of a second."""
    timer = Timer("operation()", globals={"operation": operation}, num_threads=torch.get_num_threads())
    with fastest_float32(device):
        return float(timer.blocked_autorange(min_run_time=0.2).median)


def _cyclegan_step(
    sizes: Sizes,
    device: torch.device,
    ceiling: Mapping[str, Mapping[str, float]],
    precisions: Sequence[str],
    rounds: int,
    compiled: bool,
) -> dict[str, Any]:
    """CycleGAN's step, ours and the reference's at batch 1; on CUDA also at larger batches."""
    shape = sizes.step, sizes.width, sizes.blocks
    job = cyclegan_job(*shape, 1, device)
    builds: dict[str, Callable[[], Step]] = {"reference": partial(reference_step, *shape, device)}
    for choice in (False, True) if compiled else (False,):
        for precision in precisions:
            builds[precision + "_compiled" * choice] = partial(trainer_step, job, precision, choice)
    peaks = {name: peak_mib(builder, device) for name, builder in builds.items()}
    calls = 10 if device.type == "cuda" else 1
    seconds = interleaved(
        {name: builder() for name, builder in builds.items()},
        device,
        rounds=rounds,
        budget=_STEP_BUDGET,
        calls=calls,
    )
    operations = job.operations()
    result: dict[str, Any] = {
        "size": sizes.step,
        "width": sizes.width,
        "blocks": sizes.blocks,
        "batch": 1,
        "operations": operations,
        **{f"{p}{c}": None for p in DTYPES for c in ("", "_compiled")},
    }
    for name in builds:
        rate = operations / seconds[name] / 1e9
        result[name] = {
            "seconds": seconds[name],
            "ratio": seconds["reference"] / seconds[name],
            "gflops_per_second": rate,
            "share_of_ceiling": rate
            / ceiling["convolution"]["bfloat16" if "bfloat16" in name else "float32"],
            "peak_mib": peaks[name],
        }
    fastest = [1 / seconds[name] for name in builds if name != "reference"]
    result["batches"] = None
    if device.type == "cuda":
        result["batches"] = _larger_batches(
            shape, device, ceiling["matrix_product"]["bfloat16"], rounds, compiled
        )
        fastest += [value["images_per_second"] for value in result["batches"].values()]
    return result | {"fastest_images_per_second": max(fastest)}


def _larger_batches(
    shape: tuple[int, int, int], device: torch.device, ceiling: float, rounds: int, compiled: bool
) -> dict[str, dict[str, Any]]:
    """Our step in bfloat16 by batch size, up to the first that is too large for the device."""
    found: dict[str, dict[str, Any]] = {}
    for batch in (1, 2, 4, 8, 16, 32):
        job = cyclegan_job(*shape, batch, device)
        try:
            found[str(batch)] = value = _timed(job, "bfloat16", compiled, rounds)
        except torch.OutOfMemoryError:
            break
        value["share_of_matrix_product"] = job.operations() / value["seconds"] / 1e9 / ceiling
    return found


def _configured_step(configured: _Configured, rounds: int) -> dict[str, Any]:
    job, training = configured.job, configured.job.training
    per_pass = job.operations() / training.accumulation
    threads = training_threads(per_pass) if job.threads == "auto" else job.threads
    with computing_with(threads):
        timed = _timed(job, configured.precision, configured.compiled, rounds)
    return {
        "method": job.method.name,  # type: ignore[attr-defined]
        "device": str(job.device),
        "precision": configured.precision,
        "compiled": configured.compiled,
        "threads": threads,
        "crop_size": job.crop_size,
        "batch_size": training.batch_size,
        "accumulation": training.accumulation,
        "steps": training.steps,
        "hours": None if training.steps is None else training.steps * timed["seconds"] / 3600,
        **timed,
    }


def _timed(job: Job, precision: str, compiled: bool, rounds: int) -> dict[str, Any]:
    """A step's time, and the images of each domain that it takes a second, as a run logs them."""
    builder = partial(trainer_step, job, precision, compiled)
    peak = peak_mib(builder, job.device)
    seconds = interleaved({"": builder()}, job.device, rounds=rounds, budget=_STEP_BUDGET / 3)[""]
    return {"seconds": seconds, "images_per_second": job.images / seconds, "peak_mib": peak}


def _loader(sizes: Sizes, work: Path) -> dict[str, float]:
    """Images a second on one core, by the way to load them."""
    make_demo(work / "loaded", round(1.25 * sizes.image), 8 * sizes.images, held_out=2)
    load = round(1.12 * sizes.image)
    plain = DataSettings(
        root=work,
        domain="loaded",
        load_size=load,
        crop_size=sizes.image,
        cache=str(work / "cache"),
        upscale=True,
    )
    ways = {
        "decoding": plain.model_copy(update={"cache": "never"}),
        "cached": plain,
        "augmented": plain.model_copy(update={"augmentations": _AUGMENTATIONS}),
    }
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {way: _loaded_per_second(settings, sizes.seconds) for way, settings in ways.items()}
    finally:
        torch.set_num_threads(before)


def _loaded_per_second(settings: DataSettings, seconds: float) -> float:
    training = locate(settings).training
    views = {(d, "image"): open_images(training[d], settings, d)[0] for d in DOMAINS}
    stream = Batches(Samples(views, base.find("cyclegan").streams, settings, seed=0), batch_size=1)(0)
    for _ in range(4):
        next(stream)
    images, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds:
        images += sum(len(x) for batch in next(stream) for x in batch.values())
    return images / spent


def _translate(sizes: Sizes, device: torch.device, rounds: int, work: Path) -> dict[str, Any]:
    """A folder of images, and the bare network on the same images, in turns."""
    size, source = sizes.image, work / "translated" / "trainA"
    make_demo(source.parent, size, sizes.images, held_out=0)
    network = {"name": "resnet", "width": sizes.width, "blocks": sizes.blocks, "upsampling": "transposed"}
    scale = TrainingScale(load_size=size, crop_size=size)
    description = Description(network=network, translation="ab", training_scale=scale, method="cyclegan")
    translator = Translator(build(network), description, str(device))
    images = [to_tensor(read_image(file)) for file in find_images(source)]
    batches = torch.stack(images).split(translator.fits(size, size))

    @torch.inference_mode()
    def bare() -> None:
        for batch in batches:
            with autocast(translator.precision, device):
                translator.generator(to_float(batch.to(device)))

    folder = partial(translate_folder, translator, source, work / "out")
    seconds = interleaved({"folder": folder, "network": bare}, device, rounds=rounds)
    return {
        "size": size,
        "images": len(images),
        "precision": translator.precision,
        "images_per_second": len(images) / seconds["folder"],
        "network_images_per_second": len(images) / seconds["network"],
        "share": seconds["network"] / seconds["folder"],
    }


def _help_seconds() -> float:
    program = partial(
        subprocess.run, [sys.executable, "-m", "gan_nst", "--help"], stdout=subprocess.DEVNULL, check=True
    )
    return interleaved({"": program}, torch.device("cpu"), rounds=3)[""]


def _first_step_seconds(work: Path) -> float | None:
    """Seconds from the start of `gan-nst train` on the CPU to its first step; None, with a warning, if it fails."""
    try:
        config = find_config("photo2cartoon", "cyclegan")
    except SettingsError as error:
        log.warning(f"the first step was not measured: {error}")
        return None
    make_demo(work / "photo2cartoon", 64, 40, held_out=8)
    run = work / "run"
    overrides = ["device=cpu", "data.domain=photo2cartoon", f"data.root={work}", "training.stop_at=1"]
    command = [
        sys.executable,
        "-m",
        "gan_nst",
        "--quiet",
        "train",
        str(config),
        *overrides,
        "--output",
        str(run),
    ]
    with open(work / "errors.txt", "w+") as errors:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        try:
            while not ((metrics := run / "metrics.jsonl").exists() and "\n" in metrics.read_text()):
                if process.poll() is not None or time.perf_counter() - began > _START_PATIENCE:
                    errors.seek(0)
                    reason = (errors.read().splitlines() or ["it hung"])[-1]
                    log.warning(f"the first step was not measured: {reason}")
                    return None
                time.sleep(0.005)
            return time.perf_counter() - began
        finally:  # what follows the first step is of no interest
            process.kill()
            process.wait()


def as_text(result: Mapping[str, Any]) -> str:
    """The rows of a table for those parts that a result has."""
    rows = [row for part, found in result.items() for row in _ROWS[part](found)]
    return "\n".join(f"{name:<22}{text}" for name, text in rows)


Rows = Iterator[tuple[str, str]]


def _machine_rows(machine: Mapping[str, Any]) -> Rows:
    yield "machine", f"{machine['processor']}, {machine['cores']} cores; device {machine['device']}"
    yield (
        "versions",
        f"gan_nst {machine['gan_nst']}, torch {machine['torch']}, {machine['torch_threads']} threads",
    )
    yield "bfloat16 native", "yes" if machine["bfloat16_native"] else "no (on a CPU it is then not measured)"


def _ceiling_rows(ceiling: Mapping[str, Mapping[str, float]]) -> Rows:
    for name, what in {"convolution": "3x3 convolution", "matrix_product": "matrix product"}.items():
        yield what, ", ".join(f"{precision} {_rate(rate)}" for precision, rate in ceiling[name].items())


def _cyclegan_rows(step: Mapping[str, Any]) -> Rows:
    shape = f"{step['size']} pixels, width {step['width']}, {step['blocks']} blocks, batch {step['batch']}"
    yield "CycleGAN's step", f"{shape}; {step['operations'] / 1e9:.4g} GFLOP"
    for name, value in step.items():
        if isinstance(value, Mapping) and "ratio" in value:
            speed = f"{value['seconds']:.3g} s, {value['ratio']:.2f} x reference, {_rate(value['gflops_per_second'])}"
            share = f"{value['share_of_ceiling']:.0%} of the convolution"
            yield f"  {name.replace('_', ' ')}", f"{speed}, {share}, {_mib(value['peak_mib'])}"
    for batch, value in (step["batches"] or {}).items():
        share = f"{value['share_of_matrix_product']:.0%} of the matrix product"
        yield f"  bfloat16, batch {batch}", f"{_speed(value)}, {share}"


def _configured_rows(step: Mapping[str, Any]) -> Rows:
    batch = f"{step['batch_size']}" + (f" x {step['accumulation']}" if step["accumulation"] > 1 else "")
    compiled = ", compiled" if step["compiled"] else ""
    how = f"{step['precision']}{compiled} on {step['device']}, {counted(step['threads'], 'thread')}"
    yield "configured step", f"{step['method']}, {step['crop_size']} pixels, batch {batch}, {how}"
    length = "" if step["hours"] is None else f"; {step['hours']:.2g} h for {step['steps']} steps"
    yield "", _speed(step) + length


def _loader_rows(loader: Mapping[str, float]) -> Rows:
    times = f"{loader['times_what_the_step_consumes']:,.0f} times what the fastest step consumes"
    rates = ", ".join(f"{way} {loader[way]:.4g}" for way in ("decoding", "cached", "augmented"))
    yield "loader, on one core", f"images/s: {rates}; cached, {times}"


def _translate_rows(translate: Mapping[str, Any]) -> Rows:
    ours, bare = translate["images_per_second"], translate["network_images_per_second"]
    shape = f"{translate['images']} of {translate['size']} pixels, {translate['precision']}"
    yield (
        "translate a folder",
        f"{ours:.3g} images/s, {ours / bare:.0%} of the bare network's {bare:.3g} ({shape})",
    )


def _start_rows(start: Mapping[str, Any]) -> Rows:
    first = start["first_step_seconds"]
    shown = "not measured" if first is None else f"{first:.2g} s"
    yield "start", f"first step on the CPU {shown}; --help {start['help_seconds']:.2g} s"


def _speed(value: Mapping[str, Any]) -> str:
    images = f"{value['images_per_second']:.3g} images/s of each domain"
    return f"{value['seconds']:.3g} s, {images}, {_mib(value['peak_mib'])}"


def _rate(gflops: float) -> str:
    return f"{gflops:.0f} GFLOP/s" if gflops < 10_000 else f"{gflops / 1000:.1f} TFLOP/s"


def _mib(mib: float | None) -> str:
    return "memory not measured" if mib is None else f"{mib:.0f} MiB"


_ROWS: dict[str, Callable[[Any], Rows]] = {
    "machine": _machine_rows,
    "ceiling": _ceiling_rows,
    "cyclegan_step": _cyclegan_rows,
    "configured_step": _configured_rows,
    "loader": _loader_rows,
    "translate": _translate_rows,
    "start": _start_rows,
}
