"""`gan-nst evaluate`: how good a run, an exported generator or a folder of images is, and by which protocol."""

import logging
import os
from pathlib import Path
from typing import Any

import torch

from gan_nst.core.device import choose_device
from gan_nst.core.errors import CheckpointError, DataError, SettingsError
from gan_nst.core.files import check_writable, write_file
from gan_nst.core.options import EvaluateOptions
from gan_nst.core.terminal import track
from gan_nst.evaluation.comparison import FEWEST, Metrics, ReferenceSet
from gan_nst.evaluation.settings import EvaluationSettings
from gan_nst.images.files import LOOKED_FOR, find_images, read_image
from gan_nst.runs.assessment import Repeatable, evaluate_run, evaluate_subjects, log_scores, to_json
from gan_nst.runs.folder import feature_cache, find_run
from gan_nst.runs.subjects import open_subjects

log = logging.getLogger(__name__)


def evaluate(
    source: Path | str | None = None, options: EvaluateOptions = EvaluateOptions()
) -> dict[str, Any]:
    """Evaluates a run or a generator on its test split, or a folder of images against another; returns the scores.

    source: a run, whose last and best checkpoints are evaluated, and which gets `evaluation.json` and `report.html`; or
    a checkpoint or an exported generator; None for `options.images`. With `options.data` or `options.direction`,
    nothing is written into the run. Raises GanNstError, one line, for every mistake in what was given.
    """
    images, reference = options.images, options.reference
    if (source is None) == (images is None) or (images is None) != (reference is None):
        raise SettingsError("give either a run or a generator's file, or --images FOLDER --reference FOLDER")
    if images is not None and (options.data is not None or options.direction is not None):
        raise SettingsError("--data and --direction belong to a run or a generator's file, not to --images")
    device = choose_device(options.device)
    check_writable(options.json)
    if images is not None and reference is not None:
        result = _compare(images, reference, _metrics(options, EvaluationSettings(), device, _user_cache()))
    else:
        result = _evaluate(Path(str(source)), options, device)
    if options.json is not None:
        write_file(options.json, to_json(result))
    return result


def _metrics(
    options: EvaluateOptions, settings: EvaluationSettings, device: torch.device, cache: Path | None
) -> Metrics:
    return Metrics.choose(
        options.features,
        options.protocol or settings.protocol,
        device,
        weights=options.weights or settings.weights,
        download=options.download,
        cache=cache,
        similarity=options.images is None,
    )


def _evaluate(source: Path, options: EvaluateOptions, device: torch.device) -> dict[str, Any]:
    subjects, split, settings = open_subjects(source, options.data, device, options.precision)
    if options.direction is not None:
        if options.direction not in subjects:
            known = ", ".join(subjects)
            raise CheckpointError(f"{source}: translates {known}, not {options.direction}; omit --direction")
        subjects = {options.direction: subjects[options.direction]}
    if settings is None:
        metrics = _metrics(options, EvaluationSettings(), device, _user_cache())
    else:
        metrics = _metrics(options, settings.evaluation, device, feature_cache(settings.data))
    if source.suffix not in (".pt", ".safetensors"):
        if options.data is None and options.direction is None:
            run = find_run(source)
            result = evaluate_run(run, subjects, split, metrics)
            log.info(f"written: {run / 'report.html'} and evaluation.json")
            return result
        log.info(f"{source}: its report is kept, as it covers all directions on its own test images")
    return evaluate_subjects(subjects, split, metrics)[0]


def _compare(images: Path, reference: Path, metrics: Metrics) -> dict[str, Any]:
    """Compares one folder of images against another, without any model."""
    files = {}
    for folder in (images, reference):
        if not folder.is_dir():
            raise DataError(f"{folder}: {'a file, not a folder' if folder.exists() else 'no such folder'}")
        files[folder] = find_images(folder)
        if len(files[folder]) < FEWEST:
            few = f"{len(files[folder])} image" if files[folder] else "no images"
            raise DataError(f"{folder}: {few} (looked for {LOOKED_FOR}); at least {FEWEST} are needed")
    real = Repeatable(lambda: (read_image(file) for file in track(files[reference], "reference")))
    reference_set = ReferenceSet(metrics, real)
    found = reference_set.compare((file, read_image(file)) for file in track(files[images], "images"))
    result = {
        "protocol": {**metrics.describe(), "images": "as they are in the folders"},
        "folders": {"images": str(images), "reference": str(reference)},
        "generated": len(files[images]),
        "real": len(files[reference]),
        **found.plain(),
        "noise_floor": reference_set.noise_floor,
        "warnings": reference_set.warnings(len(files[images])),
    }
    log_scores(
        f"{images} against {reference}",
        result,
        metrics,
        {"images": result, "noise_floor": reference_set.noise_floor},
    )
    for warning in result["warnings"]:
        log.warning(warning)
    return result


def _user_cache() -> Path:
    """Where features of images that belong to no run are cached."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "gan_nst")
