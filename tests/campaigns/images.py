"""Bad images and bad data sets: each file ends in an image or in one line that names it, for training's reader and
for translate's; what its format can tell to be damaged is never taken for an image.
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
from broken_files import Fault, faults, whole_files
from children import in_child
from tally import Tally

from gan_nst.core.errors import DataError
from gan_nst.images.files import read_image
from gan_nst.images.photo import read_photo

_A_CHILD = 100  # files
_SECONDS = 20  # for one file, at most
_GROWTH = 3 << 30  # bytes; an image of 512 megapixels, which translate reads, has half of that


def campaign(plan: Any, tally: Tally) -> None:
    folder = plan.folder / "files"
    folder.mkdir()
    wholes = {}
    logging.disable()  # of animations the first image is taken, which is told
    for name, content in whole_files().items():
        path = folder / name
        path.write_bytes(content)
        wholes[name] = _read_both(path)
        assert not any(isinstance(end, str) for end in wholes[name]), wholes[name]
    logging.disable(logging.NOTSET)
    todo = list(faults(plan.seed, 2000 if plan.long else 200))
    todo += [Fault(f"awkward-{case.name}", case.content, "", _awkward_must(case)) for case in awkward.cases()]
    while todo:
        told = _read_some(todo[:_A_CHILD], folder, tally, wholes)
        todo = todo[told:]
    bad_data_sets.campaign(plan, tally)


def _awkward_must(case: awkward.Case) -> str:
    one_reads_it = ("float_colour.tif", "planes16.tif")  # training's reader, at 8 bits
    return "be refused" if case.expected is None and case.name not in one_reads_it else "end"


def _read_some(some: Sequence[Fault], folder: Path, tally: Tally, wholes: dict[str, tuple[Any, Any]]) -> int:
    """Reads files in a child, counts them, and returns how many; after a crash or a hang those up to that one."""
    journal = folder / "journal"
    journal.write_text("")
    ending = in_child(_read_all, some, folder, journal, wholes, seconds=_SECONDS + len(some))
    problems = [json.loads(line) for line in journal.read_text().splitlines()]
    for fault, problem in zip(some, problems, strict=False):
        tally.count(fault.name, problem)
    if len(problems) == len(some):
        return len(some)
    assert ending.problem is not None
    tally.count(some[len(problems)].name, ending.problem)
    return len(problems) + 1


def _read_all(some: Sequence[Fault], folder: Path, journal: Path, wholes: dict[str, tuple[Any, Any]]) -> None:
    """Writes what is wrong with each file's end into the journal, as soon as it has ended."""
    logging.disable()
    for fault in some:
        path = folder / fault.name
        path.write_bytes(fault.content)
        began, before = time.monotonic(), _peak()
        problem = _problem(fault, path, _read_both(path), wholes.get(fault.of))
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
    """What training's and what translate's reader make of a file: pixels, or the line that they refuse it by."""
    ends: list[Any] = []
    for read in (read_image, lambda path: read_photo(path).pixels):
        try:
            ends.append(read(path))
        except DataError as error:
            ends.append(str(error))
    return ends[0], ends[1]


def _problem(fault: Fault, path: Path, ends: tuple[Any, Any], whole: tuple[Any, Any] | None) -> str | None:
    """What is wrong with how the readers ended; None when nothing is."""
    for reader, end, expected in zip(("training", "translate"), ends, whole or (None, None), strict=True):
        refused = isinstance(end, str)
        if refused and (not end.startswith(f"{path}: ") or "\n" in end):
            return f"{reader}: not one line that names the file: {end!r}"
        if not refused and (end.ndim != 3 or end.shape[2] != 3 or end.size == 0):
            return f"{reader}: an image of shape {end.shape}"
        if fault.must == "be refused" and not refused:
            return f"{reader}: must be refused, is an image of shape {end.shape}"
        if fault.must == "be whole" and refused:
            return f"{reader}: must be read: {end}"
        if "whole" in fault.must and not refused and not np.array_equal(end, expected):
            return f"{reader}: another image than what the file was made of"
    if not isinstance(ends[0], str) and not isinstance(ends[1], str) and ends[0].shape != ends[1].shape:
        return f"the readers see images of shapes {ends[0].shape} and {ends[1].shape}"
    return None
