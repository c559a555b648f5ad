"""`gan-nst bench`: how fast this machine trains, loads, translates and starts, beside what it could do at most."""

import contextlib
import logging
import math
import os
import platform
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gan_nst.bench.ceiling import DTYPES, convolution_rate, matrix_product_rate
from gan_nst.bench.clock import interleaved, waiting
from gan_nst.bench.loading import LoaderSizes, measure_loader
from gan_nst.bench.start import first_step_seconds, help_seconds
from gan_nst.bench.table import as_text
from gan_nst.commands.bench_steps import Job, configured_job, measure_configured, measure_cyclegan
from gan_nst.commands.evaluate import to_json
from gan_nst.core.device import autocast, choose_device, choose_precision, tune_convolutions
from gan_nst.core.errors import SettingsError, TrainingError
from gan_nst.core.files import check_writable, write_file
from gan_nst.core.options import BenchOptions
from gan_nst.core.version import __version__
from gan_nst.data.demo import make_demo
from gan_nst.images.arrays import to_float, to_tensor
from gan_nst.images.files import find_images, read_image
from gan_nst.inference.exported import Description, TrainingScale
from gan_nst.inference.folder import translate_folder
from gan_nst.inference.translator import Translator
from gan_nst.methods import base
from gan_nst.networks import build
from gan_nst.runs.settings import find_config, load_settings
from gan_nst.training.compilation import resolve_compile

log = logging.getLogger(__name__)

_BUSY = 0.5  # processes that wanted to run during the last minute


@dataclass(frozen=True)
class Sizes:
    """What is measured on. Sides are in pixels; width and blocks are the published generator's.

    step: side of the crops of CycleGAN's step. channels, side: of the ceiling's convolution. matrix: side of its
    matrices. translated, images: side and number of the translated images.
    """

    step: int = 128
    width: int = 64
    blocks: int = 9
    channels: int = 256
    side: int = 128
    matrix: int = 2048
    translated: int = 256
    images: int = 4
    loader: LoaderSizes = field(default_factory=LoaderSizes)


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
    """Measures this machine, logs a table, and returns what it writes to `json`; what was not measured is None.

    config, overrides: a training whose step is measured too, on random images. rounds: of the timed steps; slow ones
    take fewer, but at least three. compiled: whether steps of compiled networks are measured too, which takes minutes
    more; by default on CUDA. sizes: what is measured on, by default what suits the device. Raises GanNstError, one
    line, for every mistake in what was given, before it measures anything.
    """
    compiled, json = options.compiled, options.json
    on = choose_device(options.device)
    tune_convolutions(on)
    wanted = "always" if compiled else "auto" if compiled is None and on.type == "cuda" else "never"
    compiles = resolve_compile(wanted, on, math.inf) == "always"
    sizes = sizes or SIZES[on.type]
    check_writable(json)
    configured = _configured(config, overrides, options.device) if config or overrides else None
    try:
        with _room_for_graphs(compiles or (configured is not None and configured.compiled)):
            result = _measure(sizes, on, options.rounds, configured, compiles)
    except torch.OutOfMemoryError:
        raise TrainingError(
            f"out of memory on {on}; is another program using it? A configured step needs less with a smaller "
            "training.batch_size or data.crop_size"
        ) from None
    log.info(as_text(result))
    if json is not None:
        write_file(json, to_json(result))
    return result


def _room_for_graphs(needed: bool) -> contextlib.AbstractContextManager[object]:
    """Within it torch's compiler takes more than the eight graphs after which it gives up: a training has some five,
    and here come many trainings.
    """
    if not needed:
        return contextlib.nullcontext()  # the compiler's import alone takes a second
    import torch._dynamo

    room: contextlib.AbstractContextManager[object] = torch._dynamo.config.patch(recompile_limit=64)
    return room


@dataclass(frozen=True)
class _Configured:
    job: Job
    precision: str
    compiled: bool


def _configured(config: Path | str | None, overrides: Sequence[str], device: str) -> _Configured:
    """The step of the settings, with those of the method's default file where there are overrides alone."""
    given = dict(text.partition("=")[::2] for text in overrides)
    path = Path(config) if config else find_config("default", given.get("method.name", "cyclegan"))
    settings, on, small = load_settings(
        path, [*([] if device == "auto" else [f"device={device}"]), *overrides]
    )
    if small:
        log.info(f"on the CPU: the small job of {path}'s on_cpu block")
    job = configured_job(settings, on)
    # What the networks and the compiler cannot do, they shall say now.
    compiled = resolve_compile(settings.compile, on, job.operations() * (job.last + 1))
    return _Configured(job, settings.precision, compiled == "always")


def _measure(
    sizes: Sizes, device: torch.device, rounds: int, configured: _Configured | None, compiled: bool
) -> dict[str, Any]:
    """Everything, in the order of the table."""
    with tempfile.TemporaryDirectory(prefix="gan_nst-bench-") as folder:
        work = Path(folder)
        result: dict[str, Any] = {"machine": _machine(device)}
        if (load := result["machine"]["load"] or 0.0) > _BUSY:
            log.warning(f"other work is running (load {load:.1f}): the times will not be the machine's own")
        log.info("measuring the ceiling")
        result["ceiling"] = {
            "convolution": {
                p: convolution_rate(p, device, channels=sizes.channels, side=sizes.side) for p in DTYPES
            },
            "matrix_product": {p: matrix_product_rate(p, device, side=sizes.matrix) for p in DTYPES},
        }
        log.info("measuring CycleGAN's step, which takes most of the time")
        result["cyclegan_step"] = measure_cyclegan(
            sizes.step, sizes.width, sizes.blocks, result["ceiling"], rounds, device, compiled
        )
        if configured is not None:
            log.info("measuring the configured step")
            result["configured_step"] = measure_configured(
                configured.job, configured.precision, configured.compiled, rounds
            )
        log.info("measuring loading, translating and starting")
        streams = base.find("cyclegan").streams
        loader = measure_loader(work, streams, sizes.loader)
        consumed = len(streams) * result["cyclegan_step"]["fastest_images_per_second"]
        result["loader"] = loader | {"times_what_the_step_consumes": loader["cached"] / consumed}
        result["translate"] = _translate(sizes, device, min(rounds, 3), work)
        result["start"] = {"first_step_seconds": _first_step(work), "help_seconds": help_seconds()}
    return result


def _machine(device: torch.device) -> dict[str, Any]:
    name = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "device": f"{device}{name}",
        "bfloat16_native": choose_precision("auto", device) == "bfloat16",
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "gan_nst": __version__,
    }


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _translate(sizes: Sizes, device: torch.device, rounds: int, work: Path) -> dict[str, Any]:
    """A folder of images beside the bare network on the same images, in turns."""
    size, source = sizes.translated, work / "photographs" / "trainA"
    make_demo(source.parent, size, sizes.images, held_out=0)
    network = {"name": "resnet", "width": sizes.width, "blocks": sizes.blocks, "upsampling": "transposed"}
    description = Description(
        network=network,
        translation="ab",
        training_scale=TrainingScale(load_size=size, crop_size=size),
        method="cyclegan",
    )
    translator = Translator(build(network), description, str(device))
    images = [to_tensor(read_image(file)) for file in find_images(source)]
    batches = torch.stack(images).split(translator.fits(size, size))

    @torch.inference_mode()
    def bare() -> None:
        for batch in batches:
            with autocast(translator.precision, device):
                translator.generator(to_float(batch.to(device)))

    seconds = interleaved(
        {"folder": lambda: translate_folder(translator, source, work / "translated"), "network": bare},
        rounds,
        wait=waiting(device),
    ).seconds
    return {
        "size": size,
        "images": len(images),
        "precision": translator.precision,
        "images_per_second": len(images) / seconds["folder"],
        "network_images_per_second": len(images) / seconds["network"],
        "share": seconds["network"] / seconds["folder"],
    }


def _first_step(work: Path) -> float | None:
    try:
        config = find_config("photo2cartoon", "cyclegan")
    except SettingsError as error:
        log.warning(f"the first step was not measured: {error}")
        return None
    return first_step_seconds(config, work)
