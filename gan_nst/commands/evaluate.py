"""`gan-nst evaluate`: how good a run, an exported generator or a folder of images is, and by what protocol."""

import io
import json
import logging
import os
import platform
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gan_nst.core.device import choose_device
from gan_nst.core.errors import CheckpointError, DataError, SettingsError, writing
from gan_nst.core.files import check_writable, write_file
from gan_nst.core.options import EvaluateOptions
from gan_nst.core.terminal import track
from gan_nst.core.version import __version__
from gan_nst.data.cache import Images
from gan_nst.diagnosis.curves import History, read_run
from gan_nst.diagnosis.rules import Finding, describe, diagnose
from gan_nst.evaluation import report
from gan_nst.evaluation.comparison import FEWEST, Comparison, Metrics, ReferenceSet
from gan_nst.evaluation.paired import ColourStatistics, colour_statistics, map_colours
from gan_nst.evaluation.report import SHEETS_BY, as_text
from gan_nst.images.arrays import ImageArray, resize_image
from gan_nst.images.files import LOOKED_FOR, find_images, read_image, write_image
from gan_nst.inference.folder import translate_stream
from gan_nst.runs.folder import evaluating_in, feature_cache, find_run
from gan_nst.runs.subjects import (
    HeldOut,
    Subject,
    exported_subject,
    given_subject,
    settings_of,
    split_of,
    subjects_of,
)
from gan_nst.training import checkpoint
from gan_nst.training.samples import image_grid

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cost:
    """parameters: their number. multiply_adds and milliseconds: for one image of size x size pixels."""

    parameters: int
    multiply_adds: int
    milliseconds: float
    size: int


@torch.inference_mode()
def generator_cost(
    generator: nn.Module, translate: Callable[[ImageArray], ImageArray], size: int, repeats: int = 7
) -> Cost:
    """The cost of one image of size x size pixels.

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
    return Cost(parameters, counter.get_total_flops() // 2, median(times) * 1000, size)


_MOST_FITTED = 1000  # training images of a domain that the colour map is fitted on
_ROWS = 4  # images of a sheet
_SIDE = 256  # pixels that images on a sheet have at most


@dataclass(frozen=True)
class Sheet:
    """A grid of images, the name of its file, and what it shows."""

    name: str
    caption: str
    image: ImageArray


def assess(
    name: str, subject: Subject, split: HeldOut, metrics: Metrics, output: Path | None
) -> tuple[dict[str, Any], list[Sheet]]:
    """The scores of a translation as plain data, and sheets of its best, median and worst images.

    Judged beside it, as what it must beat: the untouched input, and the best per-channel colour map. output: an empty
    folder for the translated images; without it there are no sheets either. Raises DataError for images that
    cannot be used.
    """
    source, target = subject.source, subject.target
    split = _usable(split, source, target)
    reference_set = ReferenceSet(metrics, Again(lambda: (image for _, image in split.stream(target))))

    def judged(images: Iterable[tuple[Path, ImageArray]]) -> Comparison:
        return reference_set.compare(
            images,
            lambda path: split.read(source, path),
            (lambda path: split.counterpart(target, path)) if split.paired else None,
        )

    found: dict[int, Comparison] = {}  # by translator: best and last may be the same
    exported = subject.translators[subject.exported]
    for which, translator in subject.translators.items():
        if id(translator) not in found:
            stream = track(list(split.files(source)), f"evaluating {name}, {which}")
            outputs = translate_stream(translator, ((path, split.read(source, path)) for path in stream))
            found[id(translator)] = judged(_kept(outputs, output if translator is exported else None))
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
    result["untouched"] = judged(split.stream(source)).plain()
    if split.training:
        maps = [colour_statistics(_spread(split.training[domain])) for domain in (source, target)]
        result["colour_map"] = judged(_mapped(split.stream(source), *maps)).plain()
    result["noise_floor"] = reference_set.noise_floor
    result["warnings"] = reference_set.warnings(count)
    sheets = [] if output is None else _sheets(name, subject, split, found[id(exported)])
    return result, sheets


class Again:
    """An iterable that can be gone through more than once, made anew each time."""

    def __init__(self, make: Callable[[], Iterator[ImageArray]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[ImageArray]:
        return self._make()


def _usable(split: HeldOut, source: str, target: str) -> HeldOut:
    """The split, taken for unpaired when an image has not the size of its namesake. Raises DataError for too few."""
    for domain in (source, target):
        folder = split.folders[domain]
        if len(folder.files) < FEWEST:
            raise DataError(f"{folder.root}: {len(folder.files)} test images; at least {FEWEST} are needed")
    for path, image in split.stream(source) if split.paired else ():
        if image.shape != split.counterpart(target, path).shape:
            log.warning(
                f"{split.folders[source].root / path}: not of the same proportions as its namesake; the test images "
                "are taken for unpaired"
            )
            return replace(split, paired=False)
    return split


def _kept(
    stream: Iterable[tuple[Path, ImageArray]], output: Path | None
) -> Iterator[tuple[Path, ImageArray]]:
    """The images, each written into the folder as it passes, if there is one."""
    taken: set[Path] = set()
    for path, image in stream:
        if output is not None:
            plain = path.with_suffix(".png")
            plain = path.with_name(path.name + ".png") if plain in taken else plain  # a.jpg beside a.png
            taken.add(plain)
            write_image(image, output / plain)
        yield path, image


def _mapped(
    stream: Iterable[tuple[Path, ImageArray]], source: ColourStatistics, target: ColourStatistics
) -> Iterator[tuple[Path, ImageArray]]:
    for path, image in stream:
        yield path, map_colours(image, source, target)


def _spread(images: Images) -> Iterator[ImageArray]:
    """At most so many images, evenly spread."""
    count = min(len(images), _MOST_FITTED)
    for index in np.unique(np.linspace(0, len(images) - 1, count).round().astype(int)):
        yield images[int(index)]


def _sheets(name: str, subject: Subject, split: HeldOut, shown: Comparison) -> list[Sheet]:
    """The best, the median and the worst images: by LPIPS to the input, else by the error, else by the change."""
    first = next(iter(shown.images.values()))
    key = next(key for key in SHEETS_BY if key in first)
    ranked = sorted(shown.images, key=lambda path: (shown.images[path].get(key, 0.0), path))
    count = min(_ROWS, len(ranked))
    middle = (len(ranked) - count) // 2
    chosen = {
        "": ("the first by name", sorted(shown.images)[:_ROWS]),
        "_lowest": (f"lowest {SHEETS_BY[key]}", ranked[:count]),
        "_median": (f"median {SHEETS_BY[key]}", ranked[middle : middle + count]),
        "_highest": (f"highest {SHEETS_BY[key]}", ranked[-count:]),
    }
    sheets = []
    for suffix, (caption, paths) in chosen.items():
        columns = {"input": [split.read(subject.source, path) for path in paths]}
        columns["translated"] = [subject.translators[subject.exported](image) for image in columns["input"]]
        if split.paired:
            columns["truth"] = [split.counterpart(subject.target, path) for path in paths]
        sizes = _same_size([image for column in columns.values() for image in column])
        fitted = {word: [sizes.pop(0) for _ in column] for word, column in columns.items()}
        sheets.append(Sheet(f"test_{name}{suffix}", f"{name}: {caption}", image_grid(list(fitted.items()))))
    return sheets


def _same_size(images: list[ImageArray]) -> list[ImageArray]:
    """The images shrunk to a sheet's size and set on white squares."""
    fitted = []
    for image in images:
        longer = max(image.shape[:2])
        if longer > _SIDE:
            shorter = max(1, round(min(image.shape[:2]) * _SIDE / longer))
            image = resize_image(image, shorter, "short_side")[:_SIDE, :_SIDE]
        fitted.append(image)
    side = max(max(image.shape[:2]) for image in fitted)
    squares = []
    for image in fitted:
        square = np.full((side, side, 3), 255, np.uint8)
        square[: image.shape[0], : image.shape[1]] = image
        squares.append(square)
    return squares


def record(run: Path, staged: Path, evaluation: Mapping[str, Any], sheets: Sequence[Sheet]) -> None:
    """Completes a folder of translated images to all that an evaluation leaves, and moves it into the run.

    staged: holds `translated/` and lies in the run. Ctrl-C waits while the old is replaced by the new.
    """
    page, told, findings = _compose(run, evaluation, sheets)
    for sheet in sheets:
        write_image(sheet.image, staged / "samples" / f"{sheet.name}.png")
    write_file(staged / "report.html", page)
    write_file(staged / "evaluation.json", told)
    with _uninterrupted(), writing(run):
        shutil.rmtree(run / "translated", ignore_errors=True)
        os.replace(staged / "translated", run / "translated")
        (run / "samples").mkdir(exist_ok=True)
        for path in (staged / "samples").iterdir():
            os.replace(path, run / "samples" / path.name)
        for name in ("report.html", "evaluation.json"):
            os.replace(staged / name, run / name)
    if findings:
        log.info(findings)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Holds Ctrl-C back until the end of the context."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = []
    before = signal.signal(signal.SIGINT, lambda *_: asked.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt


def _compose(run: Path, evaluation: Mapping[str, Any], sheets: Sequence[Sheet]) -> tuple[str, str, str]:
    """The texts of report.html and evaluation.json, and what the curves say."""
    from gan_nst.diagnosis import (
        figure,  # with matplotlib, most of a second that a training need not wait for
    )

    history = _history(run)
    findings: list[Finding] = [] if history is None else diagnose(history)
    told = {
        **evaluation,
        **({} if history is None else {"training": _training(history)}),
        "environment": _environment(),
    }
    settings = run / "settings.yaml"
    page = report.render(
        report.Report(
            title=_title(run, history),
            evaluation=told,
            score=None if history is None else history.score,
            findings=findings,
            curves=None if history is None else figure.draw([history], format="svg"),
            sheets=[report.Sheet(sheet.caption, _png(sheet.image)) for sheet in sheets],
            settings=settings.read_text(encoding="utf-8") if settings.exists() else "",
        )
    )
    return page, to_json(told), "" if history is None else describe(findings, history)


def to_json(result: Mapping[str, Any]) -> str:
    """The text of a result's file."""
    return json.dumps(result, indent=2, default=str, ensure_ascii=False) + "\n"


def _title(run: Path, history: History | None) -> str:
    settings = {} if history is None else history.settings
    parts = [
        settings.get("data", {}).get("domain"),
        settings.get("method", {}).get("name"),
        run.resolve().name,
    ]
    return " / ".join(str(part) for part in parts if part)


def _history(run: Path) -> History | None:
    try:
        return read_run(run)
    except DataError as error:  # a run may be judged without its curves
        log.warning(f"no curves in the report: {error}")
        return None


def _training(history: History) -> dict[str, float]:
    """How long the run took, and the validations' share of it, from what it logged as it went."""
    speed, spent = (
        history.series.get("speed/steps_per_second"),
        history.series.get("speed/validation_seconds"),
    )
    if speed is None or not len(speed.steps):
        return {}
    logged = speed.steps
    before = [0, *logged[:-1]]
    training = sum(
        (step - last) / value
        for step, last, value in zip(logged, before, speed.values, strict=True)
        if value > 0
    )
    validation = 0.0 if spent is None else float(sum(spent.values))
    return {
        "steps": int(logged[-1]),
        "seconds": float(training + validation),
        "validation_seconds": validation,
        "validation_share": float(validation / (training + validation)),
    }


def _environment() -> dict[str, str]:
    return {
        "gan_nst": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "processor": f"{platform.machine()}, {os.cpu_count()} cores",
        "system": platform.system(),
    }


def _png(image: ImageArray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


_SCALES: dict[str, str] = {
    "short_side": "shorter side {size} pixels, as in training",
    "squash": "squashed to {size}x{size} pixels, as in training",
    "none": "at their own size, as in training",
}


def evaluate(
    source: Path | str | None = None, options: EvaluateOptions = EvaluateOptions()
) -> dict[str, Any]:
    """Judges a run or a generator on its test split, or any folder against another; returns what it writes to `json`.

    source: a run, whose last and best checkpoint are judged, and which gets `evaluation.json` and `report.html`; or
    an exported generator. images, reference: two folders, instead of a source. data: a data set's folder with test
    images, instead of the run's own; a generator's file needs one. direction: one translation alone; then, and with
    `data`, nothing is written into the run. protocol: the run's by default, or "clean". features: "auto" or one of
    `evaluation.features.FEATURE_NAMES`. weights: file of Inception weights. download: fetches missing weights.
    Raises GanNstError, one line, for every mistake in what was given.
    """
    images, reference, json = options.images, options.reference, options.json
    if (source is None) == (images is None) or (images is None) != (reference is None):
        raise SettingsError("give either a run or a generator's file, or --images FOLDER --reference FOLDER")
    if images is not None and (options.data is not None or options.direction is not None):
        raise SettingsError("--data and --direction belong to a run or a generator's file, not to --images")
    on = choose_device(options.device)
    check_writable(json)

    def metrics(cache: Path | None, own: Mapping[str, Any]) -> Metrics:
        return Metrics.choose(
            options.features,
            options.protocol or own.get("protocol", "clean"),
            on,
            weights=options.weights or own.get("weights"),
            download=options.download,
            cache=cache,
            similarity=images is None,
        )

    if images is not None and reference is not None:
        result = _compare(images, reference, metrics(user_cache(), {}))
    else:
        result = _evaluate(Path(str(source)), options.data, options.direction, metrics, on, options.precision)
    if json is not None:
        write_file(json, to_json(result))
    return result


def evaluate_run(
    run: Path,
    subjects: Mapping[str, Subject],
    split: HeldOut,
    metrics: Metrics,
) -> dict[str, Any]:
    """Judges a run's translations and leaves `evaluation.json`, `report.html`, sheets and translated images in it.

    All of it replaces what was there once all of it is done.
    """
    with evaluating_in(run) as staged:
        evaluation, sheets = _judge(subjects, split, metrics, staged / "translated")
        record(run, staged, evaluation, sheets)
    return evaluation


def _evaluate(
    source: Path,
    data: Path | None,
    direction: str | None,
    metrics: Callable[[Path | None, Mapping[str, Any]], Metrics],
    device: torch.device,
    precision: str,
) -> dict[str, Any]:
    """A run, or one generator in a file, on its own test split or on that of another data set.

    What a run is told is its own only when it is whole: all directions, on its own images. In precision "auto" a run
    and a checkpoint are judged in the run's own, so that the same numbers come out on every machine.
    """
    run, settings = None, None
    if source.suffix == ".safetensors":
        subjects, split = exported_subject(source, data, device, precision)
    elif source.suffix == ".pt":
        payload = checkpoint.load(source)
        settings, split = settings_of(payload, source), split_of(payload, data, source)
        own = settings.precision if precision == "auto" else precision
        subjects = {
            name: given_subject(payload, name, source, device, own) for name in payload["translations"]
        }
    else:
        run = find_run(source)
        payload = checkpoint.load_newest(run / "checkpoints")[1]
        settings, split = settings_of(payload, source), split_of(payload, data, source)
        own = settings.precision if precision == "auto" else precision
        subjects = subjects_of(run, payload, device, own, settings.evaluation.export)
    if direction is not None and direction not in subjects:
        known = ", ".join(subjects)
        raise CheckpointError(f"{source}: translates {known}, not {direction}; leave --direction out")
    chosen_before = {} if settings is None else settings.evaluation.model_dump()
    chosen = metrics(user_cache() if settings is None else feature_cache(settings.data), chosen_before)
    if run is not None and data is None and direction is None:
        result = evaluate_run(run, subjects, split, chosen)
        log.info(f"written: {run / 'report.html'} and evaluation.json")
        return result
    if run is not None:
        log.info(f"{run}: keeps its own report, which is of all directions on its own test images")
    asked = subjects if direction is None else {direction: subjects[direction]}
    return _judge(asked, split, chosen, None)[0]


def _judge(
    subjects: Mapping[str, Subject], split: HeldOut, metrics: Metrics, output: Path | None
) -> tuple[dict[str, Any], list[Sheet]]:
    """All translations' scores, and what is told once beside them."""
    images = f"{_SCALES[split.resize].format(size=split.load_size)}; as pixels or PNG, never as JPEG"
    result: dict[str, Any] = {"split": "test", "protocol": {**metrics.describe(), "images": images}}
    sheets: list[Sheet] = []
    for name, subject in subjects.items():
        result[name], more = assess(name, subject, split, metrics, output and output / name)
        sheets += more
        log.info(f"{name}: {_counts(result[name])}; features: {metrics.features.name}, {metrics.protocol}")
        log.info(as_text(result[name]))
    log.info("* exported. In brackets: 95 % of the sampling noise. Noise floor: halves of the real images.")
    for warning in dict.fromkeys(warning for name in subjects for warning in result[name]["warnings"]):
        log.warning(warning)
    subject = next(iter(subjects.values()))
    translator = subject.translators[subject.exported]
    size = translator.description.training_scale.crop_size
    result["generator"] = asdict(generator_cost(translator.generator, translator, size))
    return result, sheets


def _compare(images: Path, reference: Path, metrics: Metrics) -> dict[str, Any]:
    """One folder of images against another, no model asked."""
    files = {}
    for folder in (images, reference):
        if not folder.is_dir():
            raise DataError(f"{folder}: {'a file, no folder' if folder.exists() else 'no such folder'}")
        files[folder] = find_images(folder)
        if len(files[folder]) < FEWEST:
            few = f"{len(files[folder])} image" if files[folder] else "no images"
            raise DataError(f"{folder}: {few} (looked for {LOOKED_FOR}); at least {FEWEST} are needed")
    reference_set = ReferenceSet(
        metrics, Again(lambda: (read_image(file) for file in track(files[reference], "reference")))
    )
    found = reference_set.compare((file, read_image(file)) for file in track(files[images], "images"))
    result = {
        "protocol": {**metrics.describe(), "images": "as they lie in the folders"},
        "folders": {"images": str(images), "reference": str(reference)},
        "generated": len(files[images]),
        "real": len(files[reference]),
        **found.plain(),
        "noise_floor": reference_set.noise_floor,
        "warnings": reference_set.warnings(len(files[images])),
    }
    log.info(
        f"{images} against {reference}: {_counts(result)}; features: {metrics.features.name}, {metrics.protocol}"
    )
    log.info(as_text({"images": result, "noise_floor": reference_set.noise_floor}))
    for warning in result["warnings"]:
        log.warning(warning)
    return result


def user_cache() -> Path:
    """Where features of images that belong to no run are remembered."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "gan_nst")


def _counts(result: Mapping[str, Any]) -> str:
    paired = f" ({result['pairs']} pairs)" if result.get("pairs") else ""
    return f"{result['generated']} images against {result['real']} real ones{paired}"
