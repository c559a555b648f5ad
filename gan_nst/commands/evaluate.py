"""`gan-nst evaluate`: how good a run, an exported generator or a folder of pictures is, and by what protocol."""

import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from gan_nst.commands.assess import Again, Sheet, Subject, TestSplit, assess
from gan_nst.commands.prepare import open_data
from gan_nst.commands.record import record, to_json
from gan_nst.commands.runs import find_run, write_whole
from gan_nst.commands.settings import RunSettings, resume_settings
from gan_nst.commands.translate import averaged_generator
from gan_nst.data.folders import DataSet, locate_test, pairs
from gan_nst.data.pictures import Pictures
from gan_nst.errors import CheckpointError, DataError, SettingsError, writing
from gan_nst.evaluation.cost import generator_cost
from gan_nst.evaluation.judge import FEWEST, Judge, Metrics
from gan_nst.evaluation.protocol import Protocol
from gan_nst.evaluation.table import describe
from gan_nst.images import LOOKED_FOR, Resize, find_pictures, read_picture
from gan_nst.inference.exported import load_exported
from gan_nst.inference.translator import Translator
from gan_nst.precision import choose_device
from gan_nst.progress import track
from gan_nst.training import checkpoint

log = logging.getLogger(__name__)

TEXTS: dict[str, str] = {
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
    protocol: Protocol = "clean",
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
    pictures, instead of the run's own; a generator's file needs one. features: "auto" or one of
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

    def metrics(cache: Path | None) -> Metrics:
        return Metrics.choose(features, protocol, on, weights=weights, download=download, cache=cache)

    if pictures is not None and reference is not None:
        result = _compare(Path(pictures), Path(reference), metrics)
    else:
        test = None if data is None else Path(data)
        result = _evaluate(Path(str(source)), test, direction, metrics, on, precision)
    if json is not None:
        write_whole(Path(json), to_json(result))
    return result


def evaluate_run(
    run: Path,
    subjects: Mapping[str, Subject],
    split: TestSplit,
    metrics: Metrics,
) -> dict[str, Any]:
    """Judges a run's translations and leaves `evaluation.json`, `report.html`, sheets and translated pictures in it.

    All of it replaces what was there once all of it is done.
    """
    unfinished = run / ".translated.part"
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        evaluation, sheets = _judge(subjects, split, metrics, unfinished)
        with writing(run):
            shutil.rmtree(run / "translated", ignore_errors=True)
            os.replace(unfinished, run / "translated")
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    record(run, evaluation, sheets)
    return evaluation


def subjects_of(
    run: Path, payload: Mapping[str, Any], device: torch.device, precision: str
) -> dict[str, Subject]:
    """A run's translations, each with the generators of its last and of its best checkpoint.

    payload: the last checkpoint.
    """
    best = _best(run, payload)
    steps = {"last": int(payload["step"])} | ({} if best is None else {"best": int(best["step"])})
    wanted = payload["settings"].get("evaluation", {}).get("export", "last")
    subjects = {}
    for name, translation in payload["translations"].items():
        last = _translator(payload, name, device, precision)
        translators = {"last": last}
        if best is not None:  # the same checkpoint is judged once
            same = best["step"] == payload["step"]
            translators["best"] = last if same else _translator(best, name, device, precision)
        source, target = translation.get("source", name[0]), translation.get("target", name[-1])
        subjects[name] = Subject(
            source, target, translators, steps, wanted if wanted in translators else "last"
        )
    return subjects


def _evaluate(
    source: Path,
    data: Path | None,
    direction: str | None,
    metrics: Callable[[Path | None], Metrics],
    device: torch.device,
    precision: str,
) -> dict[str, Any]:
    """A run, or one generator in a file, on its own test split or on that of another data set."""
    run = None
    if source.suffix == ".safetensors":
        subjects, split = _exported(source, data, device, precision)
    elif source.suffix == ".pt":
        payload = checkpoint.load(source)
        subjects = {name: _given(payload, name, device, precision) for name in payload["translations"]}
        split = _split_of(payload, data)
    else:
        run = find_run(source)
        payload = checkpoint.load_newest(run / "checkpoints")[1]
        subjects, split = subjects_of(run, payload, device, precision), _split_of(payload, data)
    if direction is not None:
        if direction not in subjects:
            raise CheckpointError(f"{source}: translates {', '.join(subjects)}, not {direction}")
        subjects = {direction: subjects[direction]}
    cache = user_cache() if run is None else feature_cache(payload["settings"]["data"])
    if run is not None and data is None:
        result = evaluate_run(run, subjects, split, metrics(cache))
        log.info(f"report: {run / 'report.html'}")
        return result
    return _judge(subjects, split, metrics(cache), None)[0]


def _judge(
    subjects: Mapping[str, Subject], split: TestSplit, metrics: Metrics, output: Path | None
) -> tuple[dict[str, Any], list[Sheet]]:
    """All translations' scores, and what is told once beside them."""
    pictures = f"{TEXTS[split.resize].format(size=split.load_size)}; as pixels or PNG, never as JPEG"
    result: dict[str, Any] = {"split": "test", "protocol": {**metrics.describe(), "pictures": pictures}}
    sheets: list[Sheet] = []
    for name, subject in subjects.items():
        result[name], more = assess(name, subject, split, metrics, output and output / name)
        sheets += more
        log.info(f"{name}: {_counts(result[name])}; features: {metrics.features.name}, {metrics.protocol}")
        log.info(describe(result[name]))
    for warning in dict.fromkeys(warning for name in subjects for warning in result[name]["warnings"]):
        log.warning(warning)
    subject = next(iter(subjects.values()))
    translator = subject.translators[subject.exported]
    size = translator.description.training_scale.crop_size
    result["generator"] = asdict(generator_cost(translator.generator, translator, size))
    return result, sheets


def _compare(pictures: Path, reference: Path, metrics: Callable[[Path | None], Metrics]) -> dict[str, Any]:
    """One folder of pictures against another, no model asked."""
    files = {}
    for folder in (pictures, reference):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder")
        files[folder] = find_pictures(folder)
        if len(files[folder]) < FEWEST:
            few = f"{len(files[folder])} picture" if files[folder] else "no pictures"
            raise DataError(f"{folder}: {few} (looked for {LOOKED_FOR}); at least {FEWEST} are needed")
    chosen = metrics(user_cache())
    judge = Judge(
        chosen, Again(lambda: (read_picture(file) for file in track(files[reference], "reference")))
    )
    found = judge.judge((file, read_picture(file)) for file in track(files[pictures], "pictures"))
    result = {
        "protocol": {**chosen.describe(), "pictures": "as they lie in the folders"},
        "generated": len(files[pictures]),
        "real": len(files[reference]),
        **found.plain(),
        "noise_floor": judge.floor,
        "warnings": judge.warnings(len(files[pictures])),
    }
    log.info(
        f"{pictures} against {reference}: {_counts(result)}; features: {chosen.features.name}, {chosen.protocol}"
    )
    log.info(describe({"pictures": result, "noise_floor": judge.floor}))
    for warning in result["warnings"]:
        log.warning(warning)
    return result


def _exported(
    file: Path, data: Path | None, device: torch.device, precision: str
) -> tuple[dict[str, Subject], TestSplit]:
    generator, description = load_exported(file)
    if data is None:
        raise SettingsError(f"{file}: a generator alone has no test pictures; give --data DIR")
    name, scale = description.translation, description.training_scale
    translator = Translator(generator, description, str(device), precision)
    subject = Subject(name[0], name[-1], {"given": translator}, {}, "given")
    return {name: subject}, _other_split(data, scale.load_size, scale.resize)


def _given(payload: Mapping[str, Any], name: str, device: torch.device, precision: str) -> Subject:
    translation = payload["translations"][name]
    source, target = translation.get("source", name[0]), translation.get("target", name[-1])
    translators = {"given": _translator(payload, name, device, precision)}
    return Subject(source, target, translators, {"given": int(payload["step"])}, "given")


def _translator(payload: Mapping[str, Any], name: str, device: torch.device, precision: str) -> Translator:
    generator, description = averaged_generator(payload, name)
    return Translator(generator, description, str(device), precision)


def _best(run: Path, payload: Mapping[str, Any]) -> dict[str, Any] | None:
    """The best checkpoint, if there is one that can be read."""
    path = run / "checkpoints" / "best.pt"
    if not payload.get("notes", {}).get("best") or not path.exists():
        return None
    try:
        return checkpoint.load(path)
    except CheckpointError as error:
        log.warning(f"{error}; judging the last checkpoint alone")
        return None


def _split_of(payload: Mapping[str, Any], data: Path | None) -> TestSplit:
    """The run's own test split, or that of another data set at the run's scale."""
    own = payload["settings"]["data"]
    if data is not None:
        return _other_split(data, own["load_size"], own["resize"])
    settings = resume_settings(payload["settings"], [])[1]
    data_set, pictures = open_data(settings, payload)
    return own_split(settings, data_set, pictures)


def own_split(settings: RunSettings, data_set: DataSet, pictures: Mapping[str, Pictures]) -> TestSplit:
    """The test split of the data set that a run was trained on. Raises DataError when it has none."""
    for domain, folder in data_set.test.items():
        if not folder.files:
            raise DataError(
                f"no test pictures of domain {domain}: give testA and testB, or a larger data.held_out"
            )
    paired = bool(data_set.pairs("test"))
    return TestSplit(data_set.test, paired, settings.data.load_size, settings.data.resize, pictures)


def _other_split(data: Path, load_size: int, resize: Resize) -> TestSplit:
    folders = locate_test(data)
    return TestSplit(folders, bool(pairs(folders)), load_size, resize, {})


def feature_cache(data: Mapping[str, Any]) -> Path | None:
    """Where a run's reference features are remembered."""
    return None if data["cache"] == "never" else Path(data["root"], ".cache")


def user_cache() -> Path:
    """Where features of pictures that belong to no run are remembered."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "gan_nst")


def _counts(result: Mapping[str, Any]) -> str:
    paired = f" ({result['pairs']} pairs)" if result.get("pairs") else ""
    return f"{result['generated']} pictures against {result['real']} real ones{paired}"
