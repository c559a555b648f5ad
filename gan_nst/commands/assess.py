"""A run's generators on the test split: scores, pictures to look at, and nothing that training ever saw."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gan_nst.core.errors import DataError
from gan_nst.core.progress import track
from gan_nst.data.pictures import Pictures
from gan_nst.evaluation.comparison import FEWEST, Judge, Judgement, Metrics
from gan_nst.evaluation.paired import ColourStatistics, colour_statistics, map_colours
from gan_nst.evaluation.report_scores import SHEETS_BY
from gan_nst.images.files import Picture, resize_picture, write_picture
from gan_nst.inference.batches import translate_stream
from gan_nst.runs.subjects import HeldOut, Subject
from gan_nst.training.samples import picture_grid

log = logging.getLogger(__name__)

_MOST_FITTED = 1000  # training pictures of a domain that the colour map is fitted on
_ROWS = 4  # pictures of a sheet
_SIDE = 256  # pixels that pictures on a sheet have at most


@dataclass(frozen=True)
class Sheet:
    """A grid of pictures, the name of its file, and what it shows."""

    name: str
    caption: str
    picture: Picture


def assess(
    name: str, subject: Subject, split: HeldOut, metrics: Metrics, output: Path | None
) -> tuple[dict[str, Any], list[Sheet]]:
    """The scores of a translation as plain data, and sheets of its best, median and worst pictures.

    Judged beside it, as what it must beat: the untouched input, and the best per-channel colour map. output: an empty
    folder for the translated pictures; without it there are no sheets either. Raises DataError for pictures that
    cannot be used.
    """
    source, target = subject.source, subject.target
    split = _usable(split, source, target)
    judge = Judge(metrics, Again(lambda: (picture for _, picture in split.stream(target))))

    def judged(pictures: Iterable[tuple[Path, Picture]]) -> Judgement:
        return judge.judge(
            pictures,
            lambda path: split.read(source, path),
            (lambda path: split.counterpart(target, path)) if split.paired else None,
        )

    found: dict[int, Judgement] = {}  # by translator: best and last may be the same
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
    result["noise_floor"] = judge.floor
    result["warnings"] = judge.warnings(count)
    sheets = [] if output is None else _sheets(name, subject, split, found[id(exported)])
    return result, sheets


class Again:
    """An iterable that can be gone through more than once, made anew each time."""

    def __init__(self, make: Callable[[], Iterator[Picture]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[Picture]:
        return self._make()


def _usable(split: HeldOut, source: str, target: str) -> HeldOut:
    """The split, taken for unpaired when a picture has not the size of its namesake. Raises DataError for too few."""
    for domain in (source, target):
        folder = split.folders[domain]
        if len(folder.files) < FEWEST:
            raise DataError(f"{folder.root}: {len(folder.files)} test pictures; at least {FEWEST} are needed")
    for path, picture in split.stream(source) if split.paired else ():
        if picture.shape != split.counterpart(target, path).shape:
            log.warning(
                f"{split.folders[source].root / path}: not of the same proportions as its namesake; the test pictures "
                "are taken for unpaired"
            )
            return replace(split, paired=False)
    return split


def _kept(stream: Iterable[tuple[Path, Picture]], output: Path | None) -> Iterator[tuple[Path, Picture]]:
    """The pictures, each written into the folder as it passes, if there is one."""
    taken: set[Path] = set()
    for path, picture in stream:
        if output is not None:
            plain = path.with_suffix(".png")
            plain = path.with_name(path.name + ".png") if plain in taken else plain  # a.jpg beside a.png
            taken.add(plain)
            write_picture(picture, output / plain)
        yield path, picture


def _mapped(
    stream: Iterable[tuple[Path, Picture]], source: ColourStatistics, target: ColourStatistics
) -> Iterator[tuple[Path, Picture]]:
    for path, picture in stream:
        yield path, map_colours(picture, source, target)


def _spread(pictures: Pictures) -> Iterator[Picture]:
    """At most so many pictures, evenly spread."""
    count = min(len(pictures), _MOST_FITTED)
    for index in np.unique(np.linspace(0, len(pictures) - 1, count).round().astype(int)):
        yield pictures[int(index)]


def _sheets(name: str, subject: Subject, split: HeldOut, shown: Judgement) -> list[Sheet]:
    """The best, the median and the worst pictures: by LPIPS to the input, else by the error, else by the change."""
    first = next(iter(shown.pictures.values()))
    key = next(key for key in SHEETS_BY if key in first)
    ranked = sorted(shown.pictures, key=lambda path: (shown.pictures[path].get(key, 0.0), path))
    count = min(_ROWS, len(ranked))
    middle = (len(ranked) - count) // 2
    chosen = {
        "": ("the first by name", sorted(shown.pictures)[:_ROWS]),
        "_lowest": (f"lowest {SHEETS_BY[key]}", ranked[:count]),
        "_median": (f"median {SHEETS_BY[key]}", ranked[middle : middle + count]),
        "_highest": (f"highest {SHEETS_BY[key]}", ranked[-count:]),
    }
    sheets = []
    for suffix, (caption, paths) in chosen.items():
        columns = {"input": [split.read(subject.source, path) for path in paths]}
        columns["translated"] = [
            subject.translators[subject.exported](picture) for picture in columns["input"]
        ]
        if split.paired:
            columns["truth"] = [split.counterpart(subject.target, path) for path in paths]
        sizes = _same_size([picture for column in columns.values() for picture in column])
        fitted = {word: [sizes.pop(0) for _ in column] for word, column in columns.items()}
        sheets.append(Sheet(f"test_{name}{suffix}", f"{name}: {caption}", picture_grid(list(fitted.items()))))
    return sheets


def _same_size(pictures: list[Picture]) -> list[Picture]:
    """The pictures shrunk to a sheet's size and set on white squares."""
    fitted = []
    for picture in pictures:
        longer = max(picture.shape[:2])
        if longer > _SIDE:
            shorter = max(1, round(min(picture.shape[:2]) * _SIDE / longer))
            picture = resize_picture(picture, shorter, "short_side")[:_SIDE, :_SIDE]
        fitted.append(picture)
    side = max(max(picture.shape[:2]) for picture in fitted)
    squares = []
    for picture in fitted:
        square = np.full((side, side, 3), 255, np.uint8)
        square[: picture.shape[0], : picture.shape[1]] = picture
        squares.append(square)
    return squares
