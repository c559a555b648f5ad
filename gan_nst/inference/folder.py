"""A picture or a folder tree in, the same tree of translated pictures out."""

import logging
import os
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gan_nst.errors import DataError
from gan_nst.images import LOOKED_FOR, Picture, find_pictures, read_picture, write_picture
from gan_nst.inference.translator import Translator
from gan_nst.progress import track

log = logging.getLogger(__name__)

_PIXELS_A_BATCH = 8 * 256 * 256
_LARGEST_BATCH = 32
_FAR = 2.0  # times larger or smaller than in training


@dataclass
class Outcome:
    """What became of a folder: the files written, and one line for each picture that could not be translated."""

    written: list[Path] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    scales: dict[Path, float] = field(default_factory=dict)


def translate_folder(translator: Translator, source: Path, output: Path) -> Outcome:
    """Translates a picture, or every picture under a folder, into `output`, as PNG, keeping the tree.

    A picture that cannot be read or written is reported and skipped. Raises DataError when there is nothing
    to translate, or when a picture would be written over.
    """
    targets = plan_outputs(source, output)
    outcome = Outcome()
    for path, picture in translate_stream(translator, _read(translator, list(targets), outcome)):
        try:
            write_picture(picture, targets[path])
            outcome.written.append(targets[path])
        except DataError as error:
            _skip(outcome, error)
    _warn_of_scale(translator, outcome)
    return outcome


def translate_stream(
    translator: Translator, pictures: Iterable[tuple[Path, Picture]]
) -> Iterator[tuple[Path, Picture]]:
    """Named pictures of any sizes, translated; pictures of equal size pass the network together.

    The order may change. What waits for company is bounded, whatever the number of sizes.
    """
    for batch in _batches(pictures):
        outputs = translator.translate([picture for _, picture in batch])
        yield from zip([path for path, _ in batch], outputs, strict=True)


def _read(translator: Translator, files: Sequence[Path], outcome: Outcome) -> Iterator[tuple[Path, Picture]]:
    for path in track(files, "translating"):
        try:
            picture = read_picture(path)
        except DataError as error:
            _skip(outcome, error)
            continue
        outcome.scales[path] = translator.scale_of(*picture.shape[:2])
        yield path, picture


def _batches(pictures: Iterable[tuple[Path, Picture]]) -> Iterator[list[tuple[Path, Picture]]]:
    waiting: OrderedDict[tuple[int, ...], list[tuple[Path, Picture]]] = OrderedDict()
    for path, picture in pictures:
        group = waiting.setdefault(picture.shape, [])
        group.append((path, picture))
        if (
            len(group) * picture.shape[0] * picture.shape[1] >= _PIXELS_A_BATCH
            or len(group) == _LARGEST_BATCH
        ):
            yield waiting.pop(picture.shape)
        elif sum(p.size for g in waiting.values() for _, p in g) > 12 * _PIXELS_A_BATCH:
            yield waiting.popitem(last=False)[1]
    yield from waiting.values()


def plan_outputs(source: Path, output: Path) -> dict[Path, Path]:
    """Which picture becomes which PNG file of the folder `output`, which is made; the tree is kept.

    Raises DataError when there is no picture, when the folder cannot be written, or when a picture would be written
    over.
    """
    if not source.exists():
        raise DataError(f"{source}: no such file or folder")
    if output.exists() and not output.is_dir():
        raise DataError(f"{output}: is a file; --output names a folder")
    root = source if source.is_dir() else source.parent
    files = find_pictures(source) if source.is_dir() else [source]
    if source.resolve() in output.resolve().parents:  # an earlier output inside the input is no input
        files = [file for file in files if output.resolve() not in file.resolve().parents]
    if not files:
        raise DataError(f"{source}: no pictures (looked for {LOOKED_FOR})")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{output}: cannot be made ({error.strerror})") from None
    if not os.access(output, os.W_OK):
        raise DataError(f"{output}: not writable")
    relative = [file.relative_to(root) for file in files]
    shared = Counter(path.with_suffix(".png") for path in relative)
    inputs = {file.resolve() for file in files}
    targets: dict[Path, Path] = {}
    taken: set[Path] = set()
    for file, path in zip(files, relative, strict=True):
        plain = path.with_suffix(".png")
        target = output / (plain if shared[plain] == 1 else path.with_name(path.name + ".png"))
        while target in taken:  # a.jpg beside a.png becomes a.jpg.png, which an input may be named too
            target = target.with_name(target.name + ".png")
        taken.add(target)
        if target.resolve() in inputs:
            raise DataError(f"{target}: would be written over an input; give another folder")
        targets[file] = target
    return targets


def _skip(outcome: Outcome, error: DataError) -> None:
    outcome.failures.append(str(error))
    log.error(f"skipped: {error}")


def _warn_of_scale(translator: Translator, outcome: Outcome) -> None:
    if translator.description.training_scale.resize == "none":
        return  # it was trained on pictures of any scale
    far = {path: scale for path, scale in outcome.scales.items() if not 1 / _FAR <= scale <= _FAR}
    if far:
        path = max(far, key=lambda path: max(far[path], 1 / far[path]))
        known = translator.description.training_scale.load_size
        log.warning(
            f"{len(far)} of {len(outcome.scales)} pictures are far from the training scale "
            f"({path.name}: {far[path]:.2g} times); the generator knows shorter sides near {known} pixels"
        )
