"""What is judged: the generators of a run or a file, and the test images they have never seen."""

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
from gan_nst.runs.generators import averaged_generator
from gan_nst.runs.prepare import open_data
from gan_nst.runs.settings import RunSettings, resume_settings
from gan_nst.training import checkpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HeldOut:
    """Test images by domain, at the scale of the training.

    paired: whether the two folders hold the same scenes under the same names. training: the images a colour map is
    fitted on; empty where they are not at hand.
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
    """One translation to be judged: its domains, and its generator at several steps, "best" and "last" for example.

    exported: the one of them whose images are shown and kept.
    """

    source: str
    target: str
    translators: Mapping[str, Translator]
    steps: Mapping[str, int]
    exported: str


def subjects_of(
    run: Path, payload: Mapping[str, Any], device: torch.device, precision: str, export: str
) -> dict[str, Subject]:
    """A run's translations, each with the generators of its last and of its best checkpoint.

    payload: the last checkpoint. export: which of them is the exported one at the end of the plan, "best" or "last";
    before, it is the last, as the best of a few validations says little.
    """
    if payload["step"] < payload["settings"]["training"]["steps"]:
        export = "last"
    best = _best(run, payload)
    steps = {"last": int(payload["step"])} | ({} if best is None else {"best": int(best["step"])})
    subjects = {}
    for name, translation in payload["translations"].items():
        last = _translator(payload, name, run, device, precision)
        translators = {"last": last}
        if best is not None:  # the same checkpoint is judged once
            same = best["step"] == payload["step"]
            translators["best"] = last if same else _translator(best, name, run, device, precision)
        exported = export if export in translators else "last"
        subjects[name] = Subject(*_domains(name, translation), translators, steps, exported)
    return subjects


def exported_subject(
    file: Path, data: Path | None, device: torch.device, precision: str
) -> tuple[dict[str, Subject], HeldOut]:
    """An exported generator, and the test split of another data set or else of the run that the file lies in.

    Raises SettingsError where there is neither.
    """
    generator, description = load_exported(file)
    name, scale = description.translation, description.training_scale
    if data is not None:
        split = _other_split(data, scale.load_size, scale.resize)
    elif (file.parent / "checkpoints").is_dir():
        split = split_of(checkpoint.load_newest(file.parent / "checkpoints")[1], None, file.parent)
    else:
        raise SettingsError(f"{file}: a generator outside its run has no test images; give --data DIR")
    translator = Translator(generator, description, str(device), precision)
    return {name: Subject(*_domains(name), {"given": translator}, {}, "given")}, split


def given_subject(
    payload: Mapping[str, Any], name: str, file: Path, device: torch.device, precision: str
) -> Subject:
    """One translation of a checkpoint, which lies in a file."""
    translators = {"given": _translator(payload, name, file, device, precision)}
    domains = _domains(name, payload["translations"][name])
    return Subject(*domains, translators, {"given": int(payload["step"])}, "given")


def settings_of(payload: Mapping[str, Any], where: Path) -> RunSettings:
    """The settings of the run that a checkpoint is of. where: the run or the file, for errors."""
    return resume_settings(payload["settings"], [], where)[1]


def split_of(payload: Mapping[str, Any], data: Path | None, where: Path) -> HeldOut:
    """The run's own test split, or that of another data set at the run's scale."""
    settings = settings_of(payload, where)
    if data is not None:
        return _other_split(data, settings.data.load_size, settings.data.resize)
    data_set, images = open_data(settings, payload)
    return own_split(settings, data_set, images)


def own_split(settings: RunSettings, data_set: DataSet, images: Mapping[str, Images]) -> HeldOut:
    """The test split of the data set that a run was trained on. Raises DataError when it has none."""
    for domain, folder in data_set.test.items():
        if not folder.files:
            raise DataError(
                f"no test images of domain {domain}; add testA and testB to the data set, or give --data DIR"
            )
    paired = bool(data_set.pairs("test"))
    return HeldOut(data_set.test, paired, settings.data.load_size, settings.data.resize, images)


def _other_split(data: Path, load_size: int, resize: Resize) -> HeldOut:
    folders = locate_test(data)
    return HeldOut(folders, bool(pairs(folders)), load_size, resize, {})


def _domains(name: str, translation: Mapping[str, Any] | None = None) -> tuple[str, str]:
    """Source and target; where they are not told, "ab" says it."""
    told = translation or {}
    return told.get("source", name[0]), told.get("target", name[-1])


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
        log.warning(f"{error}; judging the last checkpoint alone")
        return None
