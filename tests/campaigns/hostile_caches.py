"""Hostile files among what is cached: the manifest of decoded images, their pixels, and remembered features."""

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

from gan_nst.data.cache import Manifest, read_manifest, write_manifest

_TRAIN, _JUDGE = ("train", "tiny.yaml"), ("evaluate", "run", *EVALUATE, "--json", "told.json")


def cache_cases(canary: Path, undisturbed: Path) -> Iterator[Case]:
    """Whatever a cache holds, a training ends as it does without, and an evaluation tells the same.

    undisturbed: a folder beside the cases' base that is not there yet.
    """
    training, judging = partial(_training, undisturbed), partial(_judging, undisturbed)
    for what, change in _manifest_changes().items():
        yield training("cache", what, partial(_change_manifests, change))
    for what, content in pickles(canary).items():
        of = form(what)
        yield training(f"cache, {of} as manifest", f"manifest {what}", partial(_overwrite, "*.npz", content))
        if of == "pickle":  # pixels have no form; what unpickles them does not mind that they go on
            yield training("cache, pixels", f"pixels {what}", partial(_overwrite_beginning, "*.bin", content))
        remembered = partial(_overwrite, "features-*", content)
        yield judging(f"cache, {of} as features", f"features {what}", remembered)


def _manifest_changes() -> dict[str, Callable[[Manifest], Manifest | bytes]]:
    def entries(**columns: int) -> Callable[[Manifest], Manifest]:
        def change(manifest: Manifest) -> Manifest:
            changed = {name: entry._replace(**columns) for name, entry in manifest.entries.items()}
            return replace(manifest, entries=changed)

        return change

    return {
        "another file": lambda manifest: replace(manifest, data="../../../outside/secret.txt"),
        "any file": lambda manifest: replace(manifest, data="/etc/passwd"),
        "no text": lambda manifest: replace(manifest, data=7),
        "more than there is": lambda manifest: replace(manifest, end=10**15),
        "deep": lambda manifest: b"[" * 100_000,
        "long numbers": lambda manifest: b"9" * 10_000,
        **{
            f"{name} {value}": entries(**{name: value})
            for name in ("side", "offset", "height", "width", "checksum")
            for value in (-1, -(10**6), 2**31 - 1, 0)
        },
        "both negative": entries(height=-16, width=-16),
        "paths that lead out": lambda manifest: replace(
            manifest, entries=dict.fromkeys(["/etc/passwd"], next(iter(manifest.entries.values())))
        ),
        "an image swollen": entries(height=10**9, width=0),
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


def _change_manifests(change: Callable[[Manifest], Manifest | bytes], folder: Path) -> None:
    for path in _all(folder, "*.npz"):
        changed = change(read_manifest(path))
        if isinstance(changed, bytes):
            path.write_bytes(changed)
        else:
            write_manifest(path, changed)


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
