"""`gan-nst export`: a generator in a file that other programs run, verified against `translate`."""

import copy
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from gan_nst.core.errors import CheckpointError, DataError, GanNstError, SettingsError, writing
from gan_nst.core.files import atomic_write, check_writable, remove_temporaries
from gan_nst.core.options import ExportFormat, ExportOptions, ExportPrecision
from gan_nst.data.demo import draw_cartoon, draw_photograph, make_scene
from gan_nst.data.domains import DataSettings, locate
from gan_nst.images.arrays import ImageArray, resize_image, to_image, to_tensor
from gan_nst.images.files import LOOKED_FOR, find_images, read_image
from gan_nst.inference.exported import (
    Description,
    PortableDescription,
    TrainingScale,
    load_exported,
    serialize,
)
from gan_nst.inference.portable.check import Agreement, compare
from gan_nst.inference.portable.onnx import ImageModel, OnnxGenerator, require_packages, write_onnx
from gan_nst.inference.portable.program import run_program, write_program
from gan_nst.inference.translator import Translator
from gan_nst.runs.folder import find_run
from gan_nst.runs.generators import load_generator
from gan_nst.runs.subjects import saved_settings
from gan_nst.tiling.segments import fuse_upsampling
from gan_nst.training import checkpoint

log = logging.getLogger(__name__)

PRECISIONS: dict[ExportFormat, tuple[ExportPrecision, ...]] = {
    "onnx": ("float32", "float16", "int8"),
    "pt2": ("float32", "float16"),
    "safetensors": ("float32", "float16"),
}

_LARGEST_DIFFERENCE = 1.0  # of 255, between a float32 file and the translator
_LOWEST_PSNR = {"float16": 35.0, "int8": 20.0}  # dB, of other precisions
_COMPARED, _CALIBRATED = 4, 32  # images
_LARGEST_SIDE = 512  # pixels of their shorter side


def export(
    source: Path | str,
    output: Path | str,
    options: ExportOptions,
) -> Agreement:
    """Writes a generator to a file, runs that file, and returns how far its images are from the translator's.

    source: a run, a checkpoint, or a generator's file.
    Raises GanNstError, one line, for every mistake in what was given, and where float32 differs by more than 1/255, or
    the PSNR of another precision is too low; then no file is written, and an older one is kept.
    """
    source, output = Path(source), Path(output)
    to, precision, pixels = options.format, options.precision, options.pixels
    _check_options(source, output, options)
    generator, description = load_generator(source, options.direction)
    if not hasattr(generator, "spec"):
        raise CheckpointError(
            f"{source}: cannot be exported again; give the run or the file that it was made from"
        )
    plain = Description(**description.model_dump(include=set(Description.model_fields)))
    described = PortableDescription(**plain.model_dump(), pixels=pixels, precision=precision)
    (data, domain), scale = _training_data(source, plain), plain.training_scale
    examples: list[ImageArray] = []
    if precision == "int8" and options.calibrate is not None:
        examples = _folder_images(options.calibrate, scale, _CALIBRATED)
    elif precision == "int8":
        examples = _domain_images(data, "training", domain, scale, _CALIBRATED)
    translator = Translator(fuse_upsampling(copy.deepcopy(generator)), plain, "cpu", "float32")
    real = _domain_images(data, "test", domain, scale, _COMPARED)
    remove_temporaries(output.parent, {output.name})
    with writing(output), atomic_write(output, sync=True) as unfinished:
        run = _write(generator, plain, described, to, unfinished, examples)
        try:
            agreement = compare(run, translator, real, pixels)
            if to == "onnx" and precision == "float16":
                # onnxruntime computes in float32 on a CPU; torch overflows where a GPU would.
                half = ImageModel(copy.deepcopy(generator).half(), pixels, torch.float16)
                agreement = min(agreement, compare(half, translator, real, pixels), key=lambda a: a.psnr)
        except CheckpointError as error:
            raise CheckpointError(f"{output}: not written, as the file does not work: it {error}") from None
        if precision == "float32" and agreement.largest > _LARGEST_DIFFERENCE:
            raise CheckpointError(
                f"{output}: not written, as it does not agree with the translator: {agreement}"
            )
        if precision != "float32" and not agreement.psnr >= _LOWEST_PSNR[precision]:
            raise CheckpointError(
                f"{output}: not written, as {precision} is too inaccurate for this generator: {agreement}, below the "
                f"minimum of {_LOWEST_PSNR[precision]:.0f} dB; use float32"
            )
        size = unfinished.stat().st_size
    log.info(f"{output}: {size / 1e6:.1f} MB, {precision}; compared with the translator: {agreement}")
    return agreement


def _check_options(source: Path, output: Path, options: ExportOptions) -> None:
    to, precision = options.format, options.precision
    if precision not in PRECISIONS[to]:
        known = "; ".join(f"{name}: {', '.join(kinds)}" for name, kinds in PRECISIONS.items())
        raise SettingsError(f"--format {to} --precision {precision}: not available; choose one of {known}")
    if output.suffix != f".{to}":
        raise SettingsError(f"{output}: --format {to} writes a .{to} file; give it that suffix")
    if options.pixels == "float" and to == "safetensors":
        raise SettingsError("--pixels: a safetensors file holds only weights; omit it")
    if options.calibrate is not None and precision != "int8":
        raise SettingsError(f"--calibrate: only int8 is calibrated, not {precision}; omit it")
    if output.is_dir():
        raise SettingsError(f"{output}: is a folder; give a file's name")
    check_writable(output)
    if output.exists() and source.exists() and output.samefile(source):
        raise SettingsError(f"{output}: is the source itself; give another name")
    if to == "onnx":
        require_packages(to_write=True)


def _write(
    generator: nn.Module,
    description: Description,
    described: PortableDescription,
    to: str,
    path: Path,
    examples: Sequence[ImageArray],
) -> Callable[[Tensor], Tensor]:
    """Writes the file; returns a function that runs it."""
    if to == "onnx":
        write_onnx(generator, described, path, examples)
        return OnnxGenerator(path).run
    if to == "pt2":
        write_program(generator, described, path)
        return run_program(path)
    path.write_bytes(serialize(generator, description, getattr(torch, described.precision)))
    translator = Translator(load_exported(path)[0], description, "cpu", "float32")

    def run(batch: Tensor) -> Tensor:
        found = translator.translate([to_image(image) for image in batch])
        return torch.stack([to_tensor(image) for image in found])

    return run


def _training_data(source: Path, description: Description) -> tuple[DataSettings | None, str]:
    """The settings of the data that a generator was trained on, if its run can be read, and its input domain."""
    domain = description.translation[0]
    try:
        if source.suffix == ".pt":
            payload = checkpoint.load(source)
        else:
            run = find_run(source.parent if source.is_file() else source)
            payload = checkpoint.load_newest(run / "checkpoints")[1]
        domain = payload["translations"].get(description.translation, {}).get("source", domain)
        return saved_settings(payload, source).data, domain
    except CheckpointError:  # the generator is available all the same
        return None, domain


def _domain_images(
    data: DataSettings | None, split: str, domain: str, scale: TrainingScale, count: int
) -> list[ImageArray]:
    """Images of a split of the run's data or, where there are none, of the demo world."""
    found: list[ImageArray] = []
    if data is not None:
        with suppress(GanNstError, KeyError):  # the run's data may be gone
            found = _read(getattr(locate(data), split)[domain].files, scale, count)
    if split == "training":
        log.info(f"calibrating on {'the training' if found else 'demo'} images")
    if found:
        return found
    size = min(max(scale.load_size, 32), _LARGEST_SIDE)
    scenes = [make_scene(0, f"train-{domain}" if split == "training" else split, n) for n in range(count)]
    if domain == "a":
        return [draw_photograph(scene, size, number) for number, scene in enumerate(scenes)]
    return [draw_cartoon(scene, size) for scene in scenes]


def _folder_images(folder: Path, scale: TrainingScale, count: int) -> list[ImageArray]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    found = _read(find_images(folder), scale, count)
    if not found:
        raise DataError(f"{folder}: no readable images (looked for {LOOKED_FOR})")
    return found


def _read(files: Sequence[Path], scale: TrainingScale, count: int) -> list[ImageArray]:
    """Up to `count` images, spread over the files, at the scale of the training."""
    found = []
    for file in files[:: max(1, len(files) // count)][:count]:
        try:
            image = read_image(file)
        except DataError as error:
            log.warning(f"{error}; skipped")
            continue
        size = min(scale.load_size, _LARGEST_SIDE, *image.shape[:2])
        found.append(resize_image(image, size, "short_side"))
    return found
