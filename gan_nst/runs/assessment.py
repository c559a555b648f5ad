"""Scores on the test split, and what an evaluation leaves in a run: evaluation.json, report.html, sheets of samples and
all translated images.
"""

import io
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gan_nst.core.device import choose_device, describe_machine
from gan_nst.core.errors import DataError, writing
from gan_nst.core.files import write_file
from gan_nst.core.terminal import stop_on_signals, track
from gan_nst.data.cache import Images
from gan_nst.diagnosis.curves import History, read_run
from gan_nst.diagnosis.rules import describe, diagnose
from gan_nst.evaluation.comparison import FEWEST, Comparison, Metrics, ReferenceSet
from gan_nst.evaluation.paired import colour_statistics, map_colours
from gan_nst.evaluation.report import SHEETS_BY, Sheet, as_text, render
from gan_nst.images.arrays import ImageArray, resize_image
from gan_nst.images.files import write_image
from gan_nst.inference.folder import translate_stream
from gan_nst.runs.folder import evaluating_in
from gan_nst.runs.subjects import HeldOut, Subject
from gan_nst.training.samples import image_grid

log = logging.getLogger(__name__)

_MOST_FITTED = 1000  # training images of a domain that the colour map is fitted on
_ROWS = 4  # images of a sheet
_SIDE = 256  # pixels that images on a sheet have at most

_SCALES = {
    "short_side": "shorter side {size} pixels, as in training",
    "squash": "squashed to {size}x{size} pixels, as in training",
    "none": "at their own size, as in training",
}


def evaluate_run(
    run: Path, subjects: Mapping[str, Subject], split: HeldOut, metrics: Metrics
) -> dict[str, Any]:
    """Evaluates a run's translations, and replaces the previous results once all new ones are complete."""
    with evaluating_in(run) as staged:
        evaluation, sheets = evaluate_subjects(subjects, split, metrics, staged / "translated")
        findings = _write_report(run, staged, evaluation, sheets)
        with stop_on_signals() as stopped, writing(run):
            shutil.rmtree(run / "translated", ignore_errors=True)
            (run / "samples").mkdir(exist_ok=True)
            for path in [*(staged / "samples").iterdir(), *staged.iterdir()]:
                if path.name != "samples":
                    os.replace(path, run / path.relative_to(staged))
        if stopped:
            raise KeyboardInterrupt
    if findings:
        log.info(findings)
    return evaluation


def evaluate_subjects(
    subjects: Mapping[str, Subject], split: HeldOut, metrics: Metrics, output: Path | None = None
) -> tuple[dict[str, Any], dict[str, Sheet]]:
    """The scores of all translations as plain data, and sheets of samples by the name of their file.

    output: a folder for the translated images; without one there are no sheets either. Raises DataError for images
    that cannot be used.
    """
    images = f"{_SCALES[split.resize].format(size=split.load_size)}; as pixels or PNG, never as JPEG"
    result: dict[str, Any] = {"split": "test", "protocol": {**metrics.describe(), "images": images}}
    sheets: dict[str, Sheet] = {}
    for name, subject in subjects.items():
        result[name], found = _assess(name, subject, split, metrics, output and output / name)
        sheets |= found
        log_scores(name, result[name], metrics, result[name])
    log.info("* exported. In brackets: 95 % of the sampling noise. Noise floor: halves of the real images.")
    for warning in dict.fromkeys(warning for name in subjects for warning in result[name]["warnings"]):
        log.warning(warning)
    subject = next(iter(subjects.values()))
    translator = subject.translators[subject.exported]
    size = translator.description.training_scale.crop_size
    result["generator"] = generator_cost(translator.generator, translator, size)
    return result, sheets


def log_scores(name: str, result: Mapping[str, Any], metrics: Metrics, rows: Mapping[str, Any]) -> None:
    """Logs how many images were compared, and a table of their scores."""
    paired = f" ({result['pairs']} pairs)" if result.get("pairs") else ""
    counts = f"{result['generated']} images against {result['real']} real ones{paired}"
    log.info(f"{name}: {counts}; features: {metrics.features.name}, {metrics.protocol}")
    log.info(as_text(rows))


class Repeatable:
    """An iterable that can be iterated more than once."""

    def __init__(self, make: Callable[[], Iterator[ImageArray]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[ImageArray]:
        return self._make()


def _assess(
    name: str, subject: Subject, split: HeldOut, metrics: Metrics, output: Path | None
) -> tuple[dict[str, Any], dict[str, Sheet]]:
    """The scores of a translation, and sheets of its best, median and worst images.

    The untouched input and the best per-channel colour map are scored as well, as baselines.
    """
    source, target = subject.source, subject.target
    split = _usable(split, source, target)
    reference_set = ReferenceSet(metrics, Repeatable(lambda: (image for _, image in split.stream(target))))

    def compared(images: Iterable[tuple[Path, ImageArray]]) -> Comparison:
        truth = (lambda path: split.counterpart(target, path)) if split.paired else None
        return reference_set.compare(images, lambda path: split.read(source, path), truth)

    found: dict[int, Comparison] = {}  # by translator: best and last may be the same
    exported = subject.translators[subject.exported]
    for which, translator in subject.translators.items():
        if id(translator) not in found:
            stream = track(list(split.files(source)), f"evaluating {name}, {which}")
            outputs = translate_stream(translator, ((path, split.read(source, path)) for path in stream))
            found[id(translator)] = compared(_kept(outputs, output if translator is exported else None))
    count = len(split.folders[source].files)
    result: dict[str, Any] = {
        "generated": count,
        "real": len(split.folders[target].files),
        "pairs": count if split.paired else 0,
        "exported": subject.exported,
    }
    for which, translator in subject.translators.items():
        step = {"step": subject.steps[which]} if which in subject.steps else {}
        result[which] = step | found[id(translator)].plain()
    result["untouched"] = compared(split.stream(source)).plain()
    if split.training:
        maps = [colour_statistics(_spread(split.training[domain])) for domain in (source, target)]
        mapped = ((path, map_colours(image, *maps)) for path, image in split.stream(source))
        result["colour_map"] = compared(mapped).plain()
    result["noise_floor"] = reference_set.noise_floor
    result["warnings"] = reference_set.warnings(count)
    return result, {} if output is None else _sheets(name, subject, split, found[id(exported)])


def _usable(split: HeldOut, source: str, target: str) -> HeldOut:
    """The split, as unpaired when an image differs in size from its namesake. Raises DataError for too few."""
    for domain in (source, target):
        folder = split.folders[domain]
        if len(folder.files) < FEWEST:
            raise DataError(f"{folder.root}: {len(folder.files)} test images; at least {FEWEST} are needed")
    for path, image in split.stream(source) if split.paired else ():
        if image.shape != split.counterpart(target, path).shape:
            log.warning(
                f"{split.folders[source].root / path}: its proportions differ from its namesake's; treating the test "
                "images as unpaired"
            )
            return replace(split, paired=False)
    return split


def _kept(
    stream: Iterable[tuple[Path, ImageArray]], output: Path | None
) -> Iterator[tuple[Path, ImageArray]]:
    """The images, each written to the folder as it passes, if there is one."""
    taken: set[Path] = set()
    for path, image in stream:
        if output is not None:
            plain = path.with_suffix(".png")
            plain = path.with_name(path.name + ".png") if plain in taken else plain  # a.jpg next to a.png
            taken.add(plain)
            write_image(image, output / plain)
        yield path, image


def _spread(images: Images) -> Iterator[ImageArray]:
    count = min(len(images), _MOST_FITTED)
    for index in np.unique(np.linspace(0, len(images) - 1, count).round().astype(int)):
        yield images[int(index)]


def _sheets(name: str, subject: Subject, split: HeldOut, comparison: Comparison) -> dict[str, Sheet]:
    """The best, the median and the worst images: by LPIPS to the input, or by the error, or by the change."""
    scores = comparison.images
    key = next(key for key in SHEETS_BY if key in next(iter(scores.values())))
    ranked = sorted(scores, key=lambda path: (scores[path].get(key, 0.0), path))
    count = min(_ROWS, len(ranked))
    middle = (len(ranked) - count) // 2
    chosen = {
        "": ("the first by name", sorted(scores)[:_ROWS]),
        "_lowest": (f"lowest {SHEETS_BY[key]}", ranked[:count]),
        "_median": (f"median {SHEETS_BY[key]}", ranked[middle : middle + count]),
        "_highest": (f"highest {SHEETS_BY[key]}", ranked[-count:]),
    }
    sheets = {}
    for suffix, (caption, paths) in chosen.items():
        columns = {"input": [split.read(subject.source, path) for path in paths]}
        columns["translated"] = [subject.translators[subject.exported](image) for image in columns["input"]]
        if split.paired:
            columns["truth"] = [split.counterpart(subject.target, path) for path in paths]
        columns = {word: [_shrunk(image) for image in column] for word, column in columns.items()}
        side = max(max(image.shape[:2]) for column in columns.values() for image in column)
        grid = image_grid([(word, [_square(x, side) for x in column]) for word, column in columns.items()])
        png = io.BytesIO()
        Image.fromarray(grid).save(png, "PNG")
        sheets[f"test_{name}{suffix}"] = Sheet(f"{name}: {caption}", png.getvalue())
    return sheets


def _shrunk(image: ImageArray) -> ImageArray:
    longer = max(image.shape[:2])
    if longer <= _SIDE:
        return image
    shorter = max(1, round(min(image.shape[:2]) * _SIDE / longer))
    return resize_image(image, shorter, "short_side")[:_SIDE, :_SIDE]


def _square(image: ImageArray, side: int) -> ImageArray:
    """The image in the corner of a white square."""
    height, width, _ = image.shape
    return np.pad(image, ((0, side - height), (0, side - width), (0, 0)), constant_values=255)


def _write_report(run: Path, staged: Path, evaluation: Mapping[str, Any], sheets: Mapping[str, Sheet]) -> str:
    """Writes evaluation.json, report.html and the sheets to the staging folder; returns what the curves show."""
    # With matplotlib, most of a second that a training need not wait for.
    from gan_nst.diagnosis import figure

    history: History | None = None
    try:
        history = read_run(run)
    except DataError as error:  # a run can be evaluated without its curves
        log.warning(f"no curves in the report: {error}")
    findings = [] if history is None else diagnose(history)
    training = {} if history is None else {"training": _training_time(history)}
    content = {**evaluation, **training, "environment": describe_machine(choose_device("auto"))}
    settings = {} if history is None else history.settings
    title = [
        settings.get("data", {}).get("domain"),
        settings.get("method", {}).get("name"),
        run.resolve().name,
    ]
    settings_file = run / "settings.yaml"
    page = render(
        title=" / ".join(str(part) for part in title if part),
        evaluation=content,
        score=None if history is None else history.score,
        findings=findings,
        curves=None if history is None else figure.draw([history], format="svg"),
        sheets=list(sheets.values()),
        settings=settings_file.read_text(encoding="utf-8") if settings_file.exists() else "",
    )
    for name, sheet in sheets.items():
        write_file(staged / "samples" / f"{name}.png", sheet.png)
    write_file(staged / "report.html", page)
    write_file(staged / "evaluation.json", to_json(content))
    return "" if history is None else describe(findings, history)


def to_json(result: Mapping[str, Any]) -> str:
    """The text of a file of results."""
    return json.dumps(result, indent=2, default=str, ensure_ascii=False) + "\n"


def _training_time(history: History) -> dict[str, float]:
    """How long the run took, and the validations' share of it, by what it logged."""
    speed = history.series.get("speed/steps_per_second")
    spent = history.series.get("speed/validation_seconds")
    if speed is None or not len(speed.steps):
        return {}
    steps = np.diff(speed.steps, prepend=0)
    training = sum(count / rate for count, rate in zip(steps, speed.values, strict=True) if rate > 0)
    validation = 0.0 if spent is None else float(sum(spent.values))
    return {
        "steps": int(speed.steps[-1]),
        "seconds": float(training + validation),
        "validation_seconds": validation,
        "validation_share": float(validation / (training + validation)),
    }


@torch.inference_mode()
def generator_cost(
    generator: nn.Module, translate: Callable[[ImageArray], ImageArray], size: int, repeats: int = 7
) -> dict[str, float]:
    """The number of parameters, and the multiply-adds and milliseconds for one image of size x size pixels.

    translate: from an image to its translation; its median time over `repeats` runs is taken.
    """
    device = next(generator.parameters()).device
    counter = FlopCounterMode(display=False)
    with counter:
        generator(torch.zeros(1, 3, size, size, device=device))
    image: ImageArray = np.full((size, size, 3), 128, np.uint8)
    translate(image)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        translate(image)
        times.append(time.perf_counter() - start)
    parameters = sum(p.numel() for p in generator.parameters())
    return {
        "parameters": parameters,
        "multiply_adds": counter.get_total_flops() // 2,
        "milliseconds": median(times) * 1000,
        "size": size,
    }
