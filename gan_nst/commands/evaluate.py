"""`gan-nst evaluate`: how good a run, an exported generator or a folder of pictures is, and by what protocol."""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from gan_nst.commands.assess import Again, Sheet, assess
from gan_nst.commands.record import record, to_json
from gan_nst.core.device import choose_device
from gan_nst.core.errors import CheckpointError, DataError, SettingsError
from gan_nst.core.progress import track
from gan_nst.core.results import refuse_unwritable
from gan_nst.evaluation.comparison import FEWEST, Judge, Metrics
from gan_nst.evaluation.cost import generator_cost
from gan_nst.evaluation.protocol import Protocol
from gan_nst.evaluation.table import as_text
from gan_nst.images.files import LOOKED_FOR, find_pictures, read_picture
from gan_nst.runs.folder import evaluating_in, feature_cache, find_run, write_whole
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

log = logging.getLogger(__name__)

_SCALES: dict[str, str] = {
    "short_side": "shorter side {size} pixels, as in training",
    "squash": "squashed to {size}x{size} pixels, as in training",
    "none": "at their own size, as in training",
}


def evaluate(
    source: Path | str | None = None,
    *,
    pictures: Path | str | None = None,
    reference: Path | str | None = None,
    data: Path | str | None = None,
    direction: str | None = None,
    protocol: Protocol | None = None,
    features: str = "auto",
    weights: Path | str | None = None,
    download: bool = False,
    json: Path | str | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> dict[str, Any]:
    """Judges a run or a generator on its test split, or any folder against another; returns what it writes to `json`.

    source: a run, whose last and best checkpoint are judged, and which gets `evaluation.json` and `report.html`; or
    an exported generator. pictures, reference: two folders, instead of a source. data: a data set's folder with test
    pictures, instead of the run's own; a generator's file needs one. direction: one translation alone; then, and with
    `data`, nothing is written into the run. protocol: the run's by default, or "clean". features: "auto" or one of
    `evaluation.features.FEATURE_NAMES`. weights: file of Inception weights. download: fetches missing weights.
    Raises GanNstError, one line, for every mistake in what was given.
    """
    if (source is None) == (pictures is None) or (pictures is None) != (reference is None):
        raise SettingsError(
            "give either a run or a generator's file, or --pictures FOLDER --reference FOLDER"
        )
    if pictures is not None and (data is not None or direction is not None):
        raise SettingsError("--data and --direction belong to a run or a generator's file, not to --pictures")
    on = choose_device(device)
    weights = None if weights is None else Path(weights)
    refuse_unwritable(json)

    def metrics(cache: Path | None, own: Mapping[str, Any]) -> Metrics:
        return Metrics.choose(
            features,
            protocol or own.get("protocol", "clean"),
            on,
            weights=weights or own.get("weights"),
            download=download,
            cache=cache,
            similarity=pictures is None,
        )

    if pictures is not None and reference is not None:
        result = _compare(Path(pictures), Path(reference), metrics(user_cache(), {}))
    else:
        test = None if data is None else Path(data)
        result = _evaluate(Path(str(source)), test, direction, metrics, on, precision)
    if json is not None:
        write_whole(Path(json), to_json(result))
    return result


def evaluate_run(
    run: Path,
    subjects: Mapping[str, Subject],
    split: HeldOut,
    metrics: Metrics,
) -> dict[str, Any]:
    """Judges a run's translations and leaves `evaluation.json`, `report.html`, sheets and translated pictures in it.

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

    What a run is told is its own only when it is whole: all directions, on its own pictures. In precision "auto" a run
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
        log.info(f"{run}: keeps its own report, which is of all directions on its own test pictures")
    asked = subjects if direction is None else {direction: subjects[direction]}
    return _judge(asked, split, chosen, None)[0]


def _judge(
    subjects: Mapping[str, Subject], split: HeldOut, metrics: Metrics, output: Path | None
) -> tuple[dict[str, Any], list[Sheet]]:
    """All translations' scores, and what is told once beside them."""
    pictures = f"{_SCALES[split.resize].format(size=split.load_size)}; as pixels or PNG, never as JPEG"
    result: dict[str, Any] = {"split": "test", "protocol": {**metrics.describe(), "pictures": pictures}}
    sheets: list[Sheet] = []
    for name, subject in subjects.items():
        result[name], more = assess(name, subject, split, metrics, output and output / name)
        sheets += more
        log.info(f"{name}: {_counts(result[name])}; features: {metrics.features.name}, {metrics.protocol}")
        log.info(as_text(result[name]))
    log.info("* exported. In brackets: 95 % of the sampling noise. Noise floor: halves of the real pictures.")
    for warning in dict.fromkeys(warning for name in subjects for warning in result[name]["warnings"]):
        log.warning(warning)
    subject = next(iter(subjects.values()))
    translator = subject.translators[subject.exported]
    size = translator.description.training_scale.crop_size
    result["generator"] = asdict(generator_cost(translator.generator, translator, size))
    return result, sheets


def _compare(pictures: Path, reference: Path, metrics: Metrics) -> dict[str, Any]:
    """One folder of pictures against another, no model asked."""
    files = {}
    for folder in (pictures, reference):
        if not folder.is_dir():
            raise DataError(f"{folder}: {'a file, no folder' if folder.exists() else 'no such folder'}")
        files[folder] = find_pictures(folder)
        if len(files[folder]) < FEWEST:
            few = f"{len(files[folder])} picture" if files[folder] else "no pictures"
            raise DataError(f"{folder}: {few} (looked for {LOOKED_FOR}); at least {FEWEST} are needed")
    judge = Judge(
        metrics, Again(lambda: (read_picture(file) for file in track(files[reference], "reference")))
    )
    found = judge.judge((file, read_picture(file)) for file in track(files[pictures], "pictures"))
    result = {
        "protocol": {**metrics.describe(), "pictures": "as they lie in the folders"},
        "folders": {"pictures": str(pictures), "reference": str(reference)},
        "generated": len(files[pictures]),
        "real": len(files[reference]),
        **found.plain(),
        "noise_floor": judge.floor,
        "warnings": judge.warnings(len(files[pictures])),
    }
    log.info(
        f"{pictures} against {reference}: {_counts(result)}; features: {metrics.features.name}, {metrics.protocol}"
    )
    log.info(as_text({"pictures": result, "noise_floor": judge.floor}))
    for warning in result["warnings"]:
        log.warning(warning)
    return result


def user_cache() -> Path:
    """Where features of pictures that belong to no run are remembered."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "gan_nst")


def _counts(result: Mapping[str, Any]) -> str:
    paired = f" ({result['pairs']} pairs)" if result.get("pairs") else ""
    return f"{result['generated']} pictures against {result['real']} real ones{paired}"
