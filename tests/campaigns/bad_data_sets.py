"""Bad data sets: circular links, pipes and devices, missing permissions, names of all kinds, and files that vanish or
change while a training reads them.
"""

import logging
import os
import shutil
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from children import Child, command, in_child
from helpers_data import fill, noise
from helpers_root import modes_hold
from helpers_runs import CONFIG, TINY, metrics, same_state
from tally import Tally

import gan_nst.commands.data_check
import gan_nst.commands.train  # noqa: F401 (imported once here instead of in every child)
from gan_nst.core.errors import DataError, one_line
from gan_nst.images.files import find_images, read_image, write_image
from gan_nst.images.photo import read_photo

_SECONDS = 60
_STEPS = 60  # of a training during which files change
_AHEAD = 12  # an upper bound on the steps for which images are read in advance

_NAMES = (
    *("фото", "写真", "صورة", "תמונה", "ภาพ", "चित्र", "사진", "φωτό", "é", "e\u0301", "🎨", "\u202egnp"),
    *(
        "with spaces ",
        "two\nlines",
        "tab\t",
        "\x1b[2J",
        "\r",
        "\x7f",
        "\u2028",
        "'quoted\"",
        "back\\slash",
        "-x",
    ),
    *("--help", "%s{}%n", "[bold]", "a=b", "#", "~", "*", "$HOME", "x" * 251, "写" * 83, "a.b.c", "CON"),
    *(os.fsdecode(raw) for raw in (b"\xff\xfe", b"\xe5\x86", b"\xc0\xaf", b"latin-\xe9")),
)


def campaign(plan: Any, tally: Tally) -> None:
    for name, case in _cases().items():
        folder = plan.folder / name
        folder.mkdir()
        ending = in_child(case, folder, seconds=_SECONDS)
        tally.count(name, ending.problem or ending.value)
    for number, name in enumerate(_NAMES):
        folder = plan.folder / f"name-{number}"
        folder.mkdir()
        tally.count(f"name {name!a}", _named(folder, name))
    short = [("vanish", "never", 0), ("vanish", "auto", 0), ("truncate", "never", 0), ("pipe", "never", 0)]
    every = [(what, cache, workers) for what in _CHANGES for cache in ("never", "auto") for workers in (0, 1)]
    reference = _undisturbed(plan.folder / "undisturbed")
    for what, cache, workers in every if plan.long else short:
        name = f"training-{what}-cache-{cache}-workers-{workers}"
        tally.count(
            name, _changed_while_training(plan.folder / name, reference, _CHANGES[what], cache, workers)
        )


def _cases() -> dict[str, Callable[[Path], str | None]]:
    special = {
        "pipe": os.mkfifo,
        "socket": _socket,
        "folder": os.mkdir,
        "nothing": partial(os.symlink, "no/where"),
    }
    special |= {
        device: partial(os.symlink, f"/dev/{device}") for device in ("zero", "full", "random", "tty", "null")
    }
    special["itself"] = lambda path: os.symlink(path, path)
    return {
        "loop-to-parent": _loop_to_parent,
        "loops-of-many": _loops_of_many,
        "unreadable-file": _unreadable_file,
        "unreadable-folder": _unreadable_folder,
        **{f"special-{name}": partial(_not_a_file, make) for name, make in special.items()},
    }


# Links


def _loop_to_parent(folder: Path) -> str | None:
    fill(folder / "a", 2)
    (folder / "a" / "up").symlink_to(folder)
    return _all_found(folder, 2)


def _loops_of_many(folder: Path) -> str | None:
    """Eight folders that each link to all of them: the number of paths through them is unlimited."""
    for number in range(8):
        fill(folder / str(number), 1, first=number)
        for other in range(8):
            (folder / str(number) / f"to{other}").symlink_to(folder / str(other))
    return _all_found(folder, 8)


def _all_found(folder: Path, count: int) -> str | None:
    found = {path.resolve() for path in find_images(folder)}
    return None if len(found) == count else f"found {len(found)} of {count}"


# Special files and missing permissions


def _socket(path: Path) -> None:
    os.chdir(path.parent)  # the path of a socket must be short
    socket.socket(socket.AF_UNIX).bind(path.name)


def _not_a_file(make: Callable[[Path], object], folder: Path) -> str | None:
    logging.disable()
    fill(folder, 1)
    path = folder / "x.png"
    make(path)
    found = find_images(folder)
    if folder / "000.png" not in found:
        return "the image next to it is not found"
    return _refused(path)


def _refused(path: Path) -> str | None:
    for read in (read_image, read_photo):
        try:
            read(path)
        except DataError as error:
            if not str(error).startswith(f"{path}: ") or "\n" in str(error).replace(str(path), ""):
                return f"not one line that names the file: {error}"
        else:
            return "was read"
    return None


def _unreadable_file(folder: Path) -> str | None:
    path = fill(folder, 1)[0]
    path.chmod(0)
    with modes_hold():
        return _refused(path)


def _unreadable_folder(folder: Path) -> str | None:
    """A folder that cannot be searched must not pass for an empty one: a check names it."""
    for name in ("trainA", "trainB", "trainB/locked"):
        fill(folder / name, 1)
    locked = folder / "trainB" / "locked"
    locked.chmod(0)
    ending = in_child(_check_without_rights, folder, seconds=_SECONDS)
    locked.chmod(0o755)
    if ending.problem or ending.value != 1:
        return ending.problem or f"exit code {ending.value}"
    return None if f"{locked}: cannot be searched" in ending.output else f"not reported: {ending.output}"


def _check_without_rights(folder: Path) -> int:
    with modes_hold():
        return command("data", "check", folder, "--crop-size", 8)


# Names


def _named(folder: Path, name: str) -> str | None:
    """An intact and a broken file of one name: one is read, the other is reported in one printable line."""
    intact, broken = folder / "intact" / f"{name}.png", folder / "broken" / f"{name}.png"
    write_image(noise(12, 14), folder / "x.png")
    for path in (intact, broken):
        path.parent.mkdir()
        shutil.copy(folder / "x.png", path)
    (folder / "x.png").unlink()
    os.truncate(broken, 20)
    ending = in_child(_check_named, folder, intact, broken, seconds=_SECONDS)
    if ending.problem or ending.value:
        return ending.problem or str(ending.value)
    lines = ending.output.splitlines()
    if (
        sum(one_line(str(broken)) in line for line in lines) != 1
        or one_line(ending.output) != "\\n".join(lines) + "\\n"
    ):
        return f"not reported in one line: {ending.output!a}"
    return None


def _check_named(folder: Path, intact: Path, broken: Path) -> str | None:
    if sorted(find_images(folder)) != sorted([intact, broken]):
        return f"found {find_images(folder)!a}"
    read_image(intact)
    read_photo(intact)
    code = command("data", "check", folder, "--crop-size", 8)
    return None if code == 1 else f"exit code {code}"


# Files that change while a training reads them


def _vanish(path: Path) -> None:
    path.unlink()


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _become_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _become_another(path: Path) -> None:
    write_image(noise(60, 50, seed=9), path)


def _become_a_pixel(path: Path) -> None:
    write_image(noise(1, 1), path)


_CHANGES = {
    "vanish": _vanish,
    "truncate": _truncate,
    "pipe": _become_pipe,
    "folder": _become_folder,
    "another": _become_another,
    "pixel": _become_a_pixel,
}


def _changed_while_training(
    folder: Path, reference: Path, change: Callable[[Path], None], cache: str, workers: int
) -> str | None:
    """With a cache, training ends like the undisturbed run `reference`; without, in one line that names the file."""
    files = _make_data_set(folder)
    run = folder / "run"
    child = _begin(folder, run, cache, workers)
    deadline = time.monotonic() + _SECONDS
    while max(metrics(run), default=0) < 1 and time.monotonic() < deadline and not child.ended():
        time.sleep(0.01)
    for path in files:
        change(path)
    reached = max(metrics(run), default=0)
    ending = child.wait(_SECONDS)
    lines = [line for line in ending.output.splitlines() if line.startswith("gan-nst: ")]
    ended = f"{ending.problem or f'exit code {ending.value}'}: {ending.output[-300:]!a}"
    if ending.problem is not None or "Traceback" in ending.output:
        return ended
    if not 1 <= reached < _STEPS - _AHEAD:
        return f"the files were not changed during training, but after step {reached} of {_STEPS}; {ended}"
    if cache != "never":
        if ending.value != 0:
            return f"it failed although it has a cache: {ended}"
        return None if same_state(reference, run) else "the state differs from that of the undisturbed run"
    refused = ending.value == 2 and len(lines) == 1 and str(folder / "x" / "trainA") in lines[0]
    return None if refused else ended


def _undisturbed(folder: Path) -> Path:
    """A run on the same images without any change."""
    _make_data_set(folder)
    ending = _begin(folder, folder / "run", "never", 0).wait(_SECONDS)
    assert ending.value == 0, ending.problem or ending.output
    return folder / "run"


def _make_data_set(folder: Path) -> list[Path]:
    """Writes the images to train on, always the same ones; returns those of trainA."""
    files = fill(folder / "x" / "trainA", 6, size=(40, 44))
    for number, split in enumerate(("trainB", "testA", "testB"), 1):
        fill(folder / "x" / split, 6, size=(40, 44), first=6 * number)
    return files


def _begin(folder: Path, run: Path, cache: str, workers: int) -> Child:
    settings = [f"data.root={folder}", "data.domain=x", f"data.cache={cache}", f"data.workers={workers}"]
    settings += ["data.held_out=0", "evaluation.features=none", "evaluation.score=none"]
    settings += [f"training.steps={_STEPS}", "training.checkpoint_every=1000", "training.sample_every=1000"]
    return Child(command, "train", CONFIG, *TINY, *settings, "--output", run, cwd=folder)
