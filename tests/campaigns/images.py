"""Bad images and bad data sets: the readers of training and of translate return an image or refuse the file in one line
that names it, and never return an image when the format reveals the damage.
"""

import json
import logging
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import awkward
import bad_data_sets
import numpy as np
from broken_files import Fault, faults, intact_files
from children import in_child
from tally import Tally

from gan_nst.core.errors import DataError
from gan_nst.images.files import read_image
from gan_nst.images.photo import read_photo

_PER_CHILD = 100  # files
_SECONDS = 20  # per file, at most
_GROWTH = 3 << 30  # bytes; twice the size of an image of 512 megapixels, the largest that translate reads


def campaign(plan: Any, tally: Tally) -> None:
    folder = plan.folder / "files"
    folder.mkdir()
    intact = {}
    logging.disable()  # the readers warn that they use the first image of an animation
    for name, content in intact_files().items():
        path = folder / name
        path.write_bytes(content)
        intact[name] = _read_both(path)
        assert not any(isinstance(result, str) for result in intact[name]), intact[name]
    logging.disable(logging.NOTSET)
    todo = list(faults(plan.seed, 2000 if plan.long else 200))
    todo += [Fault(f"awkward-{case.name}", case.content, "", _awkward_must(case)) for case in awkward.cases()]
    while todo:
        count = _read_some(todo[:_PER_CHILD], folder, tally, intact)
        todo = todo[count:]
    bad_data_sets.campaign(plan, tally)


def _awkward_must(case: awkward.Case) -> str:
    training_reads = ("float_colour.tif", "planes16.tif")  # at 8 bits
    return "be refused" if case.expected is None and case.name not in training_reads else "be read or refused"


def _read_some(some: Sequence[Fault], folder: Path, tally: Tally, intact: dict[str, tuple[Any, Any]]) -> int:
    """Reads files in a child, counts them, and returns how many were read, up to the first crash or hang."""
    journal = folder / "journal"
    journal.write_text("")
    ending = in_child(_read_all, some, folder, journal, intact, seconds=_SECONDS + len(some))
    problems = [json.loads(line) for line in journal.read_text().splitlines()]
    for fault, problem in zip(some, problems, strict=False):
        tally.count(fault.name, problem)
    if len(problems) == len(some):
        return len(some)
    assert ending.problem is not None
    tally.count(some[len(problems)].name, ending.problem)
    return len(problems) + 1


def _read_all(some: Sequence[Fault], folder: Path, journal: Path, intact: dict[str, tuple[Any, Any]]) -> None:
    """Appends the problem of each file, or null, to the journal as soon as the file has been read."""
    logging.disable()
    for fault in some:
        path = folder / fault.name
        path.write_bytes(fault.content)
        began, before = time.monotonic(), _peak()
        problem = _problem(fault, path, _read_both(path), intact.get(fault.of))
        if problem is None and time.monotonic() - began > _SECONDS:
            problem = f"took {time.monotonic() - began:.0f} s"
        if problem is None and _peak() - before > _GROWTH:
            problem = f"took {(_peak() - before) >> 20} MiB"
        path.unlink()
        with open(journal, "a") as file:
            file.write(json.dumps(problem) + "\n")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _read_both(path: Path) -> tuple[Any, Any]:
    """What the readers of training and translate make of a file: the pixels, or the message of the refusal."""
    results: list[Any] = []
    for read in (read_image, lambda path: read_photo(path).pixels):
        try:
            results.append(read(path))
        except DataError as error:
            results.append(str(error))
    return results[0], results[1]


def _problem(
    fault: Fault, path: Path, results: tuple[Any, Any], intact: tuple[Any, Any] | None
) -> str | None:
    """Describes what is wrong with the results of the readers; None if nothing is."""
    for reader, result, expected in zip(
        ("training", "translate"), results, intact or (None, None), strict=True
    ):
        refused = isinstance(result, str)
        if refused and (not result.startswith(f"{path}: ") or "\n" in result):
            return f"{reader}: not one line that names the file: {result!r}"
        if not refused and (result.ndim != 3 or result.shape[2] != 3 or result.size == 0):
            return f"{reader}: an image of shape {result.shape}"
        if fault.must == "be refused" and not refused:
            return f"{reader}: must be refused, but returned an image of shape {result.shape}"
        if fault.must == "be intact" and refused:
            return f"{reader}: must be read, but was refused: {result}"
        if "intact" in fault.must and not refused and not np.array_equal(result, expected):
            return f"{reader}: the image differs from the original"
    if (
        not isinstance(results[0], str)
        and not isinstance(results[1], str)
        and results[0].shape != results[1].shape
    ):
        return f"the readers return images of shapes {results[0].shape} and {results[1].shape}"
    return None
