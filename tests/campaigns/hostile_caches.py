"""Hostile files among what is cached: the index of decoded images, their pixels, and remembered features."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from children import command, in_child
from helpers_runs import same_state
from hostile_case import EVALUATE, Case, cli
from hostile_files import form, pickles
from job import newest_run

from gan_nst.data.cache import Index, read_index, write_index
from gan_nst.data.domains import Names

_TRAIN, _JUDGE = ("train", "tiny.yaml"), ("evaluate", "run", *EVALUATE, "--json", "told.json")


def cache_cases(canary: Path, undisturbed: Path) -> Iterator[Case]:
    """Whatever a cache holds, a training ends as it does without, and an evaluation tells the same.

    undisturbed: a folder beside the cases' base that is not there yet.
    """
    training, judging = partial(_training, undisturbed), partial(_judging, undisturbed)
    for what, change in _index_changes().items():
        yield training("cache", what, partial(_change_indices, change))
    for what, content in pickles(canary).items():
        of = form(what)
        yield training(f"cache, {of} as index", f"index {what}", partial(_overwrite, "*.index", content))
        if of == "pickle":  # pixels have no form; what unpickles them does not mind that they go on
            yield training("cache, pixels", f"pixels {what}", partial(_overwrite_beginning, "*.bin", content))
        remembered = partial(_overwrite, "features-*", content)
        yield judging(f"cache, {of} as features", f"features {what}", remembered)


def _index_changes() -> dict[str, Callable[[Index], Index | bytes]]:
    def rows(**columns: int) -> Callable[[Index], Index]:
        def change(index: Index) -> Index:
            changed = index.rows.copy()
            for column, value in columns.items():
                changed[column] = value
            return replace(index, rows=changed)

        return change

    return {
        "another file": lambda index: replace(index, data="../../../outside/secret.txt"),
        "any file": lambda index: replace(index, data="/etc/passwd"),
        "no text": lambda index: replace(index, data=["x"]),
        "more than there is": lambda index: replace(index, end=10**15),
        "deep": lambda index: b"[" * 100_000,
        "long numbers": lambda index: b"9" * 10_000,
        **{
            f"{name} {value}": rows(**{name: value})
            for name in ("side", "offset", "height", "width", "checksum")
            for value in (-1, -(10**6), 2**31 - 1, 0)
            if name != "checksum" or value >= 0
        },
        "both negative": rows(height=-16, width=-16),
        "a problem of no text": lambda index: replace(index, problems={0: [1]}),
        "paths that lead out": lambda index: replace(index, names=Names(["/etc/passwd"] * len(index.names))),
        "an image swollen": rows(height=10**9, width=0),
    }


def _training(undisturbed: Path, kind: str, what: str, change: Callable[[Path], None]) -> Case:
    return Case(
        kind,
        f"cache {what}",
        partial(_cached, change),
        cli(*_TRAIN),
        (0,),
        ("data/.cache", "runs"),
        partial(_same_end, undisturbed),
    )


def _judging(undisturbed: Path, kind: str, what: str, change: Callable[[Path], None]) -> Case:
    return Case(
        kind,
        f"cache {what}",
        partial(_remembered, undisturbed, change),
        cli(*_JUDGE),
        (0,),
        ("data/.cache", "run", "told.json"),
        partial(_same_scores, undisturbed),
    )


def _cached(change: Callable[[Path], None], work: Path) -> None:
    """The cache of the training images as it is made, and then a change of it."""
    os.chdir(work)
    assert in_child(command, *_TRAIN, "--dry-run").value == 0
    change(work / "data/.cache")


def _remembered(undisturbed: Path, change: Callable[[Path], None], work: Path) -> None:
    """The features that an evaluation remembers, which go by what the images show, and then a change of them."""
    (work / "data/.cache").mkdir()
    for path in _all(_ended(undisturbed) / "data/.cache", "features-*"):
        shutil.copy(path, work / "data/.cache")
    change(work / "data/.cache")


@cache
def _ended(undisturbed: Path) -> Path:
    """A working folder in which a training and an evaluation came to their ends; it is made when it is first asked
    for.
    """
    shutil.copytree(undisturbed.with_name("base") / "work", undisturbed)
    os.chdir(undisturbed)
    for arguments in (_TRAIN, _JUDGE):
        ending = in_child(command, *arguments)
        assert ending.value == 0, ending.problem or ending.output
    return undisturbed


def _change_indices(change: Callable[[Index], Index | bytes], folder: Path) -> None:
    for path in _all(folder, "*.index"):
        changed = change(read_index(path))
        if isinstance(changed, bytes):
            path.write_bytes(changed)
        else:
            write_index(path, changed)


def _overwrite(pattern: str, content: bytes, folder: Path) -> None:
    for path in _all(folder, pattern):
        path.write_bytes(content)


def _overwrite_beginning(pattern: str, content: bytes, folder: Path) -> None:
    for path in _all(folder, pattern):
        whole = path.read_bytes()
        assert len(content) < len(whole)
        path.write_bytes(content + whole[len(content) :])


def _all(folder: Path, pattern: str) -> list[Path]:
    found = list(folder.glob(pattern))
    assert found, f"{folder}: no {pattern} to be changed"
    return found


def _same_end(undisturbed: Path, work: Path) -> str | None:
    whole, run = newest_run(_ended(undisturbed)), newest_run(work)
    assert whole is not None
    same = run is not None and same_state(whole, run)
    return None if same else "another state than that of the undisturbed run"


def _same_scores(undisturbed: Path, work: Path) -> str | None:
    told = [json.loads((place / "told.json").read_text()) for place in (_ended(undisturbed), work)]
    for scores in told:
        del scores["generator"]["milliseconds"]
    return None if told[0] == told[1] else "other scores than those of the undisturbed evaluation"
