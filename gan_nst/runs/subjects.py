"""What is evaluated: the generators of a run or a file, and test images they have never seen."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from gan_nst.core.errors import CheckpointError, DataError, SettingsError
from gan_nst.core.options import Resize
from gan_nst.data.cache import Images
from gan_nst.data.domains import DataSet, Folder, locate_test, pairs
from gan_nst.images.arrays import ImageArray, resize_image
from gan_nst.images.files import read_image
from gan_nst.inference.exported import load_exported
from gan_nst.inference.translator import Translator
from gan_nst.runs.folder import find_run
from gan_nst.runs.generators import averaged_generator
from gan_nst.runs.prepare import open_data
from gan_nst.runs.settings import RunSettings, resume_settings
from gan_nst.training import checkpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HeldOut:
    """Test images by domain, at the scale of the training.

    paired: whether the two folders hold the same scenes under the same names. training: the images a colour map is
    fitted on; empty if they are not available.
    """

    folders: Mapping[str, Folder]
    paired: bool
    load_size: int
    resize: Resize
    training: Mapping[str, Images]

    def files(self, domain: str) -> dict[Path, Path]:
        """A domain's files by their path below the folder."""
        folder = self.folders[domain]
        return {file.relative_to(folder.root): file for file in folder.files}

    def read(self, domain: str, path: Path) -> ImageArray:
        """An image by its path below its folder."""
        return self._at_scale(self.folders[domain].root / path)

    def counterpart(self, domain: str, path: Path) -> ImageArray:
        """The image of the same name in another domain, of paired folders."""
        return self._at_scale(self._named[domain][path.with_suffix("").as_posix()])

    @cached_property
    def _named(self) -> dict[str, dict[str, Path]]:
        return {d: dict(zip(f.names, f.files, strict=True)) for d, f in self.folders.items()}

    def stream(self, domain: str) -> Iterator[tuple[Path, ImageArray]]:
        """All images of a domain, one after the other."""
        for path, file in self.files(domain).items():
            yield path, self._at_scale(file)

    def _at_scale(self, file: Path) -> ImageArray:
        return resize_image(read_image(file), self.load_size, self.resize)


@dataclass(frozen=True)
class Subject:
    """A translation to be evaluated: its domains, and its generator at several steps, for example "best" and "last".

    exported: the step whose images are shown and kept.
    """

    source: str
    target: str
    translators: Mapping[str, Translator]
    steps: Mapping[str, int]
    exported: str


def open_subjects(
    source: Path, data: Path | None, device: torch.device, precision: str
) -> tuple[dict[str, Subject], HeldOut, RunSettings | None]:
    """The translations of a run, checkpoint or exported generator, by name; the test split, that of the data set in
    the folder `data` or else the run's own; and the settings of the run, which an exported generator does not have.

    precision: "auto" is that of the run, so that every machine finds the same numbers. Raises SettingsError where there
    are no test images.
    """
    if source.suffix == ".safetensors":
        generator, description = load_exported(source)
        name, scale = description.translation, description.training_scale
        if data is not None:
            split = _split_in(data, scale.load_size, scale.resize)
        elif (source.parent / "checkpoints").is_dir():
            payload = checkpoint.load_newest(source.parent / "checkpoints")[1]
            split = _split_of(payload, saved_settings(payload, source.parent))
        else:
            raise SettingsError(f"{source}: a generator outside its run has no test images; give --data DIR")
        translator = Translator(generator, description, str(device), precision)
        return {name: Subject(name[0], name[-1], {"given": translator}, {}, "given")}, split, None
    run = None if source.suffix == ".pt" else find_run(source)
    payload = checkpoint.load(source) if run is None else checkpoint.load_newest(run / "checkpoints")[1]
    settings = saved_settings(payload, source)
    if data is None:
        split = _split_of(payload, settings)
    else:
        split = _split_in(data, settings.data.load_size, settings.data.resize)
    precision = settings.precision if precision == "auto" else precision
    if run is not None:
        return subjects_of(run, payload, device, precision, settings.evaluation.export), split, settings
    subjects = {
        name: Subject(
            translation["source"],
            translation["target"],
            {"given": _translator(payload, name, source, device, precision)},
            {"given": int(payload["step"])},
            "given",
        )
        for name, translation in payload["translations"].items()
    }
    return subjects, split, settings


def subjects_of(
    run: Path, payload: Mapping[str, Any], device: torch.device, precision: str, export: str
) -> dict[str, Subject]:
    """A run's translations, each with the generators of its last and of its best checkpoint.

    payload: the last checkpoint. export: which one is exported at the end of the plan, "best" or "last"; before, it is
    the last, as the best of a few validations says little.
    """
    if payload["step"] < payload["settings"]["training"]["steps"]:
        export = "last"
    best = _best(run, payload)
    steps = {"last": int(payload["step"])} | ({} if best is None else {"best": int(best["step"])})
    subjects = {}
    for name, translation in payload["translations"].items():
        last = _translator(payload, name, run, device, precision)
        translators = {"last": last}
        if best is not None:  # the same checkpoint is evaluated once
            same = best["step"] == payload["step"]
            translators["best"] = last if same else _translator(best, name, run, device, precision)
        exported = export if export in translators else "last"
        subjects[name] = Subject(translation["source"], translation["target"], translators, steps, exported)
    return subjects


def saved_settings(payload: Mapping[str, Any], where: Path) -> RunSettings:
    """The settings in a checkpoint. where: its run or file, for errors."""
    return resume_settings(payload["settings"], [], where)


def held_out(settings: RunSettings, data_set: DataSet, images: Mapping[str, Images]) -> HeldOut:
    """The test split of the data set that a run was trained on. Raises DataError when it has none."""
    for domain, folder in data_set.test.items():
        if not folder.files:
            raise DataError(
                f"no test images of domain {domain}; add testA and testB to the data set, or give --data DIR"
            )
    paired = bool(data_set.pairs("test"))
    return HeldOut(data_set.test, paired, settings.data.load_size, settings.data.resize, images)


def _split_of(payload: Mapping[str, Any], settings: RunSettings) -> HeldOut:
    return held_out(settings, *open_data(settings, payload))


def _split_in(data: Path, load_size: int, resize: Resize) -> HeldOut:
    folders = locate_test(data)
    return HeldOut(folders, bool(pairs(folders)), load_size, resize, {})


def _translator(
    payload: Mapping[str, Any], name: str, where: Path, device: torch.device, precision: str
) -> Translator:
    generator, description = averaged_generator(payload, name, where)
    return Translator(generator, description, str(device), precision)


def _best(run: Path, payload: Mapping[str, Any]) -> dict[str, Any] | None:
    """The best checkpoint, if there is one that can be read."""
    path = run / "checkpoints" / "best.pt"
    if not payload.get("notes", {}).get("best") or not path.exists():
        return None
    try:
        return checkpoint.load(path)
    except CheckpointError as error:
        log.warning(f"{error}; evaluating only the last checkpoint")
        return None
