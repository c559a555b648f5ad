"""Hostile files in the cache: decoded images, their entries, and cached features."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

from children import command, in_child
from helpers_data import rewrite_cache, with_entries
from helpers_runs import same_state
from hostile_case import EVALUATE, Case, cli
from hostile_files import pickle_format, pickles
from job import newest_run

_TRAIN, _EVALUATE = ("train", "tiny.yaml"), ("evaluate", "run", *EVALUATE, "--json", "scores.json")


def cache_cases(canary: Path, undisturbed: Path) -> Iterator[Case]:
    """With any content of the cache, training ends in the same state and evaluation reports the same scores.

    undisturbed: a folder next to the cases' base; it is created when it is first needed.
    """
    training, evaluating = partial(_training, undisturbed), partial(_evaluating, undisturbed)
    for what, change in _changes().items():
        yield training("cache", what, partial(_change_caches, change))
    for what, content in pickles(canary).items():
        form = pickle_format(what)
        yield training(f"cache, {form} as cache", f"file {what}", partial(_overwrite, "*.bin", content))
        as_entries = partial(_change_caches, partial(_with_members, entries=content))
        yield training(f"cache, {form} as entries", f"entries {what}", as_entries)
        if form == "pickle":  # pixels have no format, and unpickling ignores what follows the pickle
            yield training("cache, pixels", f"pixels {what}", partial(_overwrite_beginning, "*.bin", content))
        cached = partial(_overwrite, "features-*", content)
        yield evaluating(f"cache, {form} as features", f"features {what}", cached)


Change = Callable[[dict[str, bytes]], dict[str, bytes]]


def _with_members(members: dict[str, bytes], **changed: bytes) -> dict[str, bytes]:
    return {**members, **changed}


def _changes() -> dict[str, Change]:
    """Changes of the archive at a cache's end."""
    return {
        "deep": partial(_with_members, entries=b"[" * 100_000),
        "long numbers": partial(_with_members, entries=b"9" * 10_000),
        "paths that lead out": partial(_with_members, paths=b"/etc/passwd"),
        "no paths": partial(_with_members, paths=b""),
        **{
            f"{name} {value}": with_entries(**{name: value})
            for name in ("side", "offset", "height", "width", "checksum")
            for value in (-1, -(10**6), 2**31 - 1, 0)
        },
        "both negative": with_entries(height=-16, width=-16),
        "an inflated image": with_entries(height=10**9, width=0),
    }


def _training(undisturbed: Path, kind: str, what: str, change: Callable[[Path], None]) -> Case:
    return Case(
        kind,
        f"cache {what}",
        partial(_cache_images, change),
        cli(*_TRAIN),
        (0,),
        ("data/.cache", "runs"),
        partial(_same_state_as, undisturbed),
    )


def _evaluating(undisturbed: Path, kind: str, what: str, change: Callable[[Path], None]) -> Case:
    return Case(
        kind,
        f"cache {what}",
        partial(_cache_features, undisturbed, change),
        cli(*_EVALUATE),
        (0,),
        ("data/.cache", "run", "scores.json"),
        partial(_same_scores, undisturbed),
    )


def _cache_images(change: Callable[[Path], None], work: Path) -> None:
    """Builds the cache of the training images, then changes it."""
    os.chdir(work)
    assert in_child(command, *_TRAIN, "--dry-run").value == 0
    change(work / "data/.cache")


def _cache_features(undisturbed: Path, change: Callable[[Path], None], work: Path) -> None:
    """Copies the features that an evaluation caches by the images' content, then changes them."""
    (work / "data/.cache").mkdir()
    for path in _all(_finished(undisturbed) / "data/.cache", "features-*"):
        shutil.copy(path, work / "data/.cache")
    change(work / "data/.cache")


@cache
def _finished(undisturbed: Path) -> Path:
    """A working folder in which a training and an evaluation have finished; created on the first call."""
    shutil.copytree(undisturbed.with_name("base") / "work", undisturbed)
    os.chdir(undisturbed)
    for arguments in (_TRAIN, _EVALUATE):
        ending = in_child(command, *arguments)
        assert ending.value == 0, ending.problem or ending.output
    return undisturbed


def _change_caches(change: Change, folder: Path) -> None:
    for path in _all(folder, "*.bin"):
        rewrite_cache(path, change)


def _overwrite(pattern: str, content: bytes, folder: Path) -> None:
    for path in _all(folder, pattern):
        path.write_bytes(content)


def _overwrite_beginning(pattern: str, content: bytes, folder: Path) -> None:
    for path in _all(folder, pattern):
        original = path.read_bytes()
        assert len(content) < len(original)
        path.write_bytes(content + original[len(content) :])


def _all(folder: Path, pattern: str) -> list[Path]:
    found = list(folder.glob(pattern))
    assert found, f"{folder}: no {pattern} to change"
    return found


def _same_state_as(undisturbed: Path, work: Path) -> str | None:
    reference, run = newest_run(_finished(undisturbed)), newest_run(work)
    assert reference is not None
    same = run is not None and same_state(reference, run)
    return None if same else "the state differs from that of the undisturbed run"


def _same_scores(undisturbed: Path, work: Path) -> str | None:
    scores = [json.loads((place / "scores.json").read_text()) for place in (_finished(undisturbed), work)]
    for score in scores:
        del score["generator"]["milliseconds"]
    return None if scores[0] == scores[1] else "the scores differ from those of the undisturbed evaluation"
