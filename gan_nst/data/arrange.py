"""Finds the data set in a tree of pictures that came from elsewhere, and gives it the layout of ours."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from gan_nst.core.errors import DataError, counted
from gan_nst.data.domains import DOMAINS, layouts

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Arranged:
    """A data set in our layout: how many pictures there are in `trainA`, `trainB` and so on; how many belonged to none.

    guessed: the folders that were taken for the domains a and b by the order of their names, if so.
    """

    counts: dict[str, int]
    left_out: int
    guessed: tuple[str, ...] = ()


def arrange(folder: Path, pictures: Sequence[PurePosixPath], target: Path) -> Arranged:
    """Moves the folders of a data set that lie anywhere below a folder into a new one, as trainA, trainB, testA ...

    pictures: all of them, by their paths below the folder. Without a known layout two folders of pictures are taken
    for the domains, with the splits in them. Raises DataError, which names no archive, when there is no data set, or
    more than one.
    """
    known = _known(pictures)
    places = known or _two_folders(pictures)
    if not places:
        raise DataError(f"no data set is in it, only {_holdings(pictures)}")
    counts: dict[str, int] = {}
    target.mkdir()
    for name, place in places.items():
        counts[name] = sum(place in picture.parents for picture in pictures)
        (folder / place).rename(target / name)
    guessed = () if known else (str(places["trainA"]), str(places["trainB"]))
    return Arranged(counts, len(pictures) - sum(counts.values()), guessed)


def _known(pictures: Sequence[PurePosixPath]) -> dict[str, PurePosixPath]:
    """The folders by the names that they shall have, where they lie in one of the layouts that we read."""
    filled = {parent for picture in pictures for parent in picture.parents}
    found = [places for root in sorted(filled) if (places := dict(_at(root, filled)))]
    most = max(map(len, found), default=0)
    best = [places for places in found if len(places) == most]
    if len(best) > 1:
        roots = ", ".join(str(next(iter(places.values()))) for places in best[:5])
        raise DataError(f"{len(best)} data sets are in it ({roots})")
    return best[0] if best else {}


def _at(root: PurePosixPath, filled: set[PurePosixPath]) -> Iterator[tuple[str, PurePosixPath]]:
    for split in SPLITS:
        for domain in DOMAINS:
            place = next((root / place for place in layouts(split, domain) if root / place in filled), None)
            if place is not None:
                yield f"{split}{domain.upper()}", place


def _two_folders(pictures: Sequence[PurePosixPath]) -> dict[str, PurePosixPath]:
    """The only two folders of pictures, if their names tell no split, as a and b: whole as the training pictures, or
    by the splits that the names of all folders in them tell.
    """
    if not pictures:
        return {}
    top = PurePosixPath(os.path.commonpath([picture.parent for picture in pictures]))
    below = {picture.parent.relative_to(top).parts for picture in pictures}
    names = sorted({parts[0] for parts in below if parts})
    if () in below or len(names) != 2 or any(map(_split, names)):
        return {}
    if not any(_split(part) for parts in below for part in parts):
        return {"trainA": top / names[0], "trainB": top / names[1]}
    found: dict[str, PurePosixPath] = {}
    for parts in below:
        split, *deeper = [_split(part) for part in parts[1:]] or [None]
        place = top.joinpath(*parts[:2])
        name = f"{split}{'AB'[names.index(parts[0])]}"
        if split is None or any(deeper) or found.setdefault(name, place) != place:
            return {}
    if not {"trainA", "trainB"} <= found.keys():
        return {}
    return {name: found[name] for split in SPLITS for name in (f"{split}A", f"{split}B") if name in found}


def _split(name: str) -> str | None:
    """The split that a folder's name tells."""
    found = re.match(r"(train|test|val)(ing|id|idation)?$", name, re.I)
    return found and found[1].lower()


def _holdings(pictures: Sequence[PurePosixPath]) -> str:
    """The folders that hold pictures, and how many, in one line."""
    counts = Counter(picture.parent for picture in pictures)
    shown = [f"{place} ({counted(count, 'picture')})" for place, count in sorted(counts.items())[:8]]
    return ", ".join([*shown, *(["..."] if len(counts) > 8 else [])]) or "no pictures"
