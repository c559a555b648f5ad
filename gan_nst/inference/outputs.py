"""Which image becomes which file: names, folders, and what an earlier time left there."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from gan_nst.core.errors import DataError, SettingsError, cannot_write
from gan_nst.core.files import remove_temporaries
from gan_nst.core.options import Naming
from gan_nst.images.files import LOOKED_FOR, find_images, image_suffixes
from gan_nst.images.photo import FORMATS

_SUFFIXES: dict[str, list[str]] = {}  # of each format, the usual one first
for _suffix, _name in FORMATS.items():
    _SUFFIXES.setdefault(_name.lower(), []).append(_suffix)


def output_name(path: Path, naming: Naming) -> Path:
    """The output's name: a/b.jpg becomes a/b_cartoon.png."""
    return path.with_name(path.stem + naming.suffix + _ending(path, naming))


def _long_name(path: Path, naming: Naming) -> Path:
    """The name for images that would share their output's name: a/b.jpg becomes a/b.jpg_cartoon.png."""
    return path.with_name(path.name + naming.suffix + _ending(path, naming))


def _ending(path: Path, naming: Naming) -> str:
    if naming.format == "same":
        return path.suffix if path.suffix.lower() in FORMATS else ".png"
    return _SUFFIXES[naming.format or "png"][0]


def plan_outputs(source: Path, output: Path, naming: Naming = Naming()) -> dict[Path, Path]:
    """Which image becomes which file of the folder `output`, which is made; the tree is kept.

    Where the source is one image, the output may also name the file. Raises DataError when there is no image, when
    the folder cannot be written, when a link in it leads out of it, or when an image would be written over.
    """
    if not source.exists():
        raise DataError(f"{source}: no such file or folder")
    if not source.is_dir() and (names_a_image(output) or _has_an_ending(output)):
        _check_name(output, naming)
        make_folder(output.parent)
        return _without_inputs({source: output})
    if output.exists() and not output.is_dir():
        raise DataError(f"{output}: is a file; --output names a folder")
    root = source if source.is_dir() else source.parent
    files = inputs(source, output) if source.is_dir() else [source]
    make_folder(output)
    relative = [file.relative_to(root) for file in files]
    shared = Counter(output_name(path, naming) for path in relative)
    targets: dict[Path, Path] = {}
    taken: set[Path] = set()
    for file, path in zip(files, relative, strict=True):
        plain = output_name(path, naming)
        target = output / (plain if shared[plain] == 1 else _long_name(path, naming))
        while target in taken:  # a.jpg beside a.png becomes a.jpg.png, which an input may be named too
            target = target.with_name(target.name + target.suffix)
        taken.add(target)
        targets[file] = target
    _stay_below(output, targets.values())
    return _without_inputs(targets)


def inputs(source: Path, output: Path) -> list[Path]:
    """The images of a folder, but for those of an earlier output inside it. Raises DataError when there are none."""
    files = find_images(source)
    if _real(source) in _real(output).parents:
        files = [file for file in files if _real(output) not in _real(file).parents]
    if not files:
        raise DataError(f"{source}: no images (looked for {LOOKED_FOR})")
    return files


def _real(path: Path) -> Path:
    """Where a path leads to; one that leads in a circle, which `Path.resolve` raises for, only to itself."""
    return Path(os.path.realpath(path))


def names_a_image(output: Path) -> bool:
    """Whether an output is the name of an image's file, and not of a folder."""
    return output.suffix.lower() in image_suffixes() | FORMATS.keys() and not output.is_dir()


def lie_among_inputs(source: Path, output: Path, targets: Iterable[Path]) -> bool:
    """Whether another listing of the source would take outputs for inputs."""
    root = _real(source)
    if not source.is_dir() or root in _real(output).parents:  # outputs inside the source are told apart
        return False
    return any(root in _real(target).parents for target in targets)


def is_finished(source: Path, target: Path) -> bool:
    """Whether an output is there and no older than its input."""
    try:
        done = target.stat()
        return done.st_size > 0 and done.st_mtime_ns >= source.stat().st_mtime_ns
    except OSError:
        return False


def remove_unfinished(targets: Iterable[Path]) -> None:
    """Removes what a killed process left of these outputs."""
    names: dict[Path, set[str]] = {}
    for target in targets:
        names.setdefault(target.parent, set()).add(target.name)
    for folder, own in names.items():
        remove_temporaries(folder, own)


def _has_an_ending(output: Path) -> bool:
    """Whether an output looks like a file's name, of a format mistyped or unknown."""
    return 3 <= len(output.suffix) <= 5 and output.suffix[1:].isalpha() and not output.is_dir()


def _check_name(output: Path, naming: Naming) -> None:
    suffix = output.suffix.lower()
    if suffix not in FORMATS:
        raise DataError(
            f"{output}: images are written as {' '.join(FORMATS)}; if it is to be a folder, make it first"
        )
    if naming.suffix:
        raise SettingsError(f"{output}: names the file already; leave --suffix out, or give a folder")
    if naming.format not in (None, "same") and suffix not in _SUFFIXES[naming.format]:
        raise SettingsError(f"{output}: its name says {suffix}; leave --format {naming.format} out")


def make_folder(folder: Path) -> None:
    """Makes a folder that is not there. Raises DataError when it cannot be made or written into."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(cannot_write(folder, error, "cannot be made")) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DataError(f"{folder}: not writable")


def _stay_below(output: Path, targets: Iterable[Path]) -> None:
    """Raises DataError for a folder among the outputs that is a link to elsewhere; the output itself may be one."""
    root = _real(output)
    for folder in dict.fromkeys(target.parent for target in targets):
        if not _real(folder).is_relative_to(root):
            raise DataError(f"{folder}: a link that leads out of {output}; remove it, or give another folder")


def _without_inputs(targets: dict[Path, Path]) -> dict[Path, Path]:
    """The plan as it is. Raises DataError when an image would be written over."""
    inputs = {_real(file) for file in targets}
    for target in targets.values():
        if _real(target) in inputs:
            raise DataError(f"{target}: would be written over an input; give another folder")
    return targets
