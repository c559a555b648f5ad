"""Plans which image becomes which output file, and checks what earlier runs left there."""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path

from gan_nst.core.errors import DataError, SettingsError, cannot_write
from gan_nst.core.files import remove_temporaries
from gan_nst.core.options import Naming
from gan_nst.images.files import LOOKED_FOR, find_images, image_suffixes
from gan_nst.images.photo import FORMATS

_SUFFIXES: dict[str, list[str]] = {}  # of each format, the usual suffix first
for _suffix, _name in FORMATS.items():
    _SUFFIXES.setdefault(_name.lower(), []).append(_suffix)


def output_name(path: Path, naming: Naming, *, long: bool = False) -> Path:
    """The output's name: a/b.jpg becomes a/b_cartoon.png. long: a/b.jpg_cartoon.png, where others would share it."""
    ending = _SUFFIXES[naming.format or "png"][0] if naming.format != "same" else path.suffix
    if ending.lower() not in FORMATS:
        ending = ".png"
    return path.with_name((path.name if long else path.stem) + naming.suffix + ending)


def plan_outputs(source: Path, output: Path, naming: Naming = Naming()) -> dict[Path, Path]:
    """Returns the output file for each image, keeping the tree below the folder `output`, which is created.

    If the source is a single image, `output` may also name the file. Raises DataError when there is no image, when the
    folder is not writable, when a link in it leads out of it, or when an input would be overwritten.
    """
    if not source.exists():
        raise DataError(f"{source}: no such file or folder")
    if not source.is_dir() and names_an_image(output):
        _check_file_name(output, naming)
        make_folder(output.parent)
        return _refuse_overwriting({source: output})
    if output.exists() and not output.is_dir():
        raise DataError(f"{output}: is a file; --output must be a folder")
    root = source if source.is_dir() else source.parent
    files = inputs(source, output) if source.is_dir() else [source]
    make_folder(output)
    relative = [file.relative_to(root) for file in files]
    shared = Counter(output_name(path, naming) for path in relative)
    targets: dict[Path, Path] = {}
    taken: set[Path] = set()
    for file, path in zip(files, relative, strict=True):
        target = output / output_name(path, naming, long=shared[output_name(path, naming)] > 1)
        while target in taken:  # a.jpg next to a.png becomes a.jpg.png, which may be another input's name
            target = target.with_name(target.name + target.suffix)
        taken.add(target)
        targets[file] = target
    _refuse_links_out(output, targets.values())
    return _refuse_overwriting(targets)


def inputs(source: Path, output: Path) -> list[Path]:
    """Returns the images of a folder, without those of an earlier output inside it. Raises DataError for none."""
    files = find_images(source)
    if _resolved(source) in _resolved(output).parents:
        files = [file for file in files if _resolved(output) not in _resolved(file).parents]
    if not files:
        raise DataError(f"{source}: no images (looked for {LOOKED_FOR})")
    return files


def _resolved(path: Path) -> Path:
    """The path without links. `Path.resolve` would raise for a link that points to itself."""
    return Path(os.path.realpath(path))


def names_a_file(output: Path) -> bool:
    """Whether an output for a video names a file rather than a folder."""
    return bool(output.suffix) and not output.is_dir()


def names_an_image(output: Path) -> bool:
    """Whether an output for an image names a file rather than a folder, even if its format is unknown or mistyped."""
    known = output.suffix.lower() in image_suffixes() | FORMATS.keys()
    return (known or re.fullmatch(r"\.[^\W\d_]{2,4}", output.suffix) is not None) and not output.is_dir()


def outputs_among_inputs(source: Path, output: Path, targets: Iterable[Path]) -> bool:
    """Whether listing the source again would mistake outputs for inputs."""
    root = _resolved(source)
    # An output folder inside the source is recognised.
    if not source.is_dir() or root in _resolved(output).parents:
        return False
    return any(root in _resolved(target).parents for target in targets)


def is_finished(source: Path, target: Path) -> bool:
    """Whether an output exists and is not older than its input."""
    try:
        done = target.stat()
        return done.st_size > 0 and done.st_mtime_ns >= source.stat().st_mtime_ns
    except OSError:
        return False


def remove_unfinished(targets: Collection[Path]) -> None:
    """Removes the partial files that a killed process left for these outputs."""
    names: dict[Path, set[str]] = {}
    for target in targets:  # by folder: the same name elsewhere may be another process's
        names.setdefault(target.parent, set()).add(target.name)
    for folder, own in names.items():
        remove_temporaries(folder, own)


def _check_file_name(output: Path, naming: Naming) -> None:
    suffix = output.suffix.lower()
    if suffix not in FORMATS:
        raise DataError(
            f"{output}: images are written as {' '.join(FORMATS)}; if you mean a folder, create it first"
        )
    if naming.suffix:
        raise SettingsError(f"{output}: is a file name; omit --suffix, or give a folder")
    if naming.format not in (None, "same") and suffix not in _SUFFIXES[naming.format]:
        raise SettingsError(f"{output}: is named {suffix}; omit --format {naming.format}")


def make_folder(folder: Path) -> None:
    """Creates a folder if necessary. Raises DataError when it cannot be created or is not writable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(cannot_write(folder, error, "could not be created")) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DataError(f"{folder}: not writable")


def _refuse_links_out(output: Path, targets: Iterable[Path]) -> None:
    """Raises DataError when a folder below the output links to elsewhere; the output itself may be a link."""
    root = _resolved(output)
    for folder in dict.fromkeys(target.parent for target in targets):
        if not _resolved(folder).is_relative_to(root):
            raise DataError(
                f"{folder}: is a link that leads out of {output}; remove it, or give another folder"
            )


def _refuse_overwriting(targets: dict[Path, Path]) -> dict[Path, Path]:
    """Returns the plan unchanged. Raises DataError when it would overwrite an input."""
    inputs = {_resolved(file) for file in targets}
    for target in targets.values():
        if _resolved(target) in inputs:
            raise DataError(f"{target}: would overwrite an input; give another folder")
    return targets
