"""Disk: every command meets a full disk, a quota, a read-only folder or a failing device wherever it writes.

What a command writes is read off an undisturbed run of it; each kind of call on each kind of path then fails, once or
from there on. The command must end by itself, say in one line which path it was and what to do, keep what was there,
and once the disk is well again come to the end that an undisturbed one comes to. A training never has less saved than
before, and goes on when a sample grid, a metric or an event is all that could not be written.
"""

import errno
import os
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial as fixed
from pathlib import Path

import faults
import job
from children import Child, Ending
from faults import environment  # noqa: F401 (the runner's)
from job import Job, import_all, newest_run

from gan_nst.core.errors import _REMEDIES

_SECONDS = 120

# Numbers, random names and times in paths, which differ from run to run; and sheets of an evaluation, which are many.
_VARIES = re.compile(
    r"\d{8}-\d{6}(-\d+)?|[0-9a-f]{8,}|\d{5,}|(?<=events\.out\.tfevents\.).*|(?<=\.latest-)\d+|(?<=test_)\w+(?=\.png)"
)
# What a training writes, one of the patterns each; all of them are starved, in the short form once at least.
_OF_TRAINING = {
    "checkpoint": "*/checkpoints/.step-*.pt.*.part",
    "metrics": "*/metrics.jsonl",
    "events": "*/events.out.tfevents.*",
    "samples": "*/samples/.step-*.png.*.part",
    "settings": "*/.settings.yaml.*.part",
    "cache": "datasets/.cache/*.bin",
    "export": "*/.generator.safetensors.*.part",
}
_DISPENSABLE = [_OF_TRAINING[name] for name in ("metrics", "events", "samples")] + [
    "*/samples/step-*.png",
    "*/samples",
]
_NEVER_MISSED = ["*.lock", "*/latest", "*/.latest-*", "*/.cache/*features-*"]  # what nobody need be told of


@dataclass(frozen=True)
class Fault:
    """One failing call, and whether all after it fail as well."""

    call: str
    pattern: str
    nth: int
    error: int
    lasts: bool

    def __str__(self) -> str:
        lasting = "from then on" if self.lasts else "once"
        return f"{errno.errorcode[self.error]} {lasting} at {self.call} {self.nth} of {self.pattern}"


@dataclass(frozen=True)
class Subject:
    """A command that writes.

    begin: starts it in a new place, after `prepare`. after: what is wrong in the place once it has run again with the
    disk well again; None when nothing is.
    """

    name: str
    place: Callable[[str], Path]
    begin: Callable[..., Child]
    again: Callable[[Path], Child]
    after: Callable[[Path], str | None]


def campaign(plan, tally) -> None:
    import_all()
    draw = random.Random(plan.seed)
    training = Job(plan.folder)
    for subject in _subjects(training):
        found = _all_faults(subject, plan)
        if not plan.long:
            found = _some(found, draw)
        for number, fault in enumerate(found):
            came, problem = _suffered(subject, f"{subject.name}-{number}", fault)
            if came:
                tally.count(f"{subject.name}: {fault}", problem)


def _subjects(training: Job) -> list[Subject]:
    def folder(name: str) -> Path:
        place = training.base / name
        place.mkdir()
        return place

    def of_command(name: str, *arguments: object, after: Callable[[Path], str | None]) -> Subject:
        def begin(place: Path, prepare: Callable[[], None] | None = None) -> Child:
            return Child(job._prepared, prepare, *arguments, cwd=place)

        return Subject(name, folder, begin, begin, after)

    def run_place(name: str) -> Path:
        place = training.place(name)
        shutil.copytree(training.whole, place / "run")
        return place

    images = training.base / "images" / "trainA"
    evaluation = of_command("evaluate", "evaluate", "run", after=_same_tree(run_place))
    return [
        Subject("train", training.place, training.begin, training.go_on, fixed(_after_training, training)),
        of_command("translate", "translate", training.whole, images, "--output", "out", after=_same_tree()),
        of_command(
            "export", "export", training.whole, "--format", "onnx", "--output", "o.onnx", after=_same_tree()
        ),
        of_command("smooth", "data", "smooth", images, "out", after=_same_tree()),
        of_command("demo", "data", "demo", "scenes", "--size", "16", "--count", "2", after=_same_tree()),
        of_command("curves", "curves", training.whole, "--output", "curves.png", after=_same_tree()),
        Subject("evaluate", run_place, evaluation.begin, evaluation.again, evaluation.after),
    ]


def _same_tree(place: Callable[[str], Path] | None = None) -> Callable[[Path], str | None]:
    """Compares the files in a place, by name, with those of the first one it is called with: the undisturbed one's."""
    expected: list[set[str]] = []

    def after(place: Path) -> str | None:
        paths = [str(path.relative_to(place)) for path in place.rglob("*")]
        found = {path for path in paths if ".lock" not in path and ".cache" not in path}
        if not expected:
            expected.append(found)
        if differs := sorted(found ^ expected[0]):
            return f"missing or left behind: {differs}"
        return job.partial(place)

    return after


def _after_training(training: Job, place: Path) -> str | None:
    run = newest_run(place)
    if run is None:
        return "no run"
    if not job.same_state(training.whole, run):
        return "another state than that of the undisturbed run"
    told, expected = job.losses(run), job.losses(training.whole)
    if any(line != expected[step] for step, line in told.items()):
        return "other metrics than those of the undisturbed run"
    if left := job.unfinished(place):
        return f"left behind: {left}"
    return job.partial(place)


def _all_faults(subject: Subject, plan) -> list[Fault]:
    """Faults of every kind at the first, the middle and the last call of every kind on every kind of path."""
    place, told = subject.place(f"{subject.name}-traced"), plan.folder / f"{subject.name}.trace"
    ending = subject.begin(place, prepare=fixed(faults.trace, place, told)).wait(_SECONDS)
    if ending.value != 0:
        raise SystemExit(f"the undisturbed {subject.name} failed: {ending.problem}\n{ending.output}")
    if problem := subject.after(place):
        raise SystemExit(f"the undisturbed {subject.name}: {problem}")
    patterns = Counter((call, _VARIES.sub("*", path)) for call, path in _calls(told, place))
    if subject.name == "train":
        missing = [
            name
            for name, wanted in _OF_TRAINING.items()
            if not any(p == wanted or fnmatchcase(p, wanted) for _, p in patterns)
        ]
        if missing:
            raise SystemExit(f"a training writes no {missing}, but {sorted(patterns)}")
    kinds = [(errno.ENOSPC, True), (errno.ENOSPC, False), (errno.EDQUOT, True), (errno.EROFS, True)]
    found = []
    for number, ((call, pattern), count) in enumerate(sorted(patterns.items())):
        for place_of, nth in enumerate(sorted({1, (count + 1) // 2, count})):
            # Each place with one of the four kinds, in turn, so that all kinds meet many kinds of path.
            error, lasts = kinds[(number + place_of) % 4]
            if call != "unlink" or error == errno.EROFS:
                found.append(Fault(call, pattern, nth, error, lasts))
    return found


def _some(found: list[Fault], draw: random.Random) -> list[Fault]:
    """A few of the faults: one in the last write of each thing that a training writes, when there is much to lose."""
    chosen = []
    for wanted in _OF_TRAINING.values():
        writes = [fault for fault in found if fault.call == "write" and fnmatchcase(fault.pattern, wanted)]
        chosen += draw.sample([fault for fault in writes if fault.nth == writes[-1].nth], bool(writes))
    return chosen or draw.sample(found, min(len(found), 2))


def _calls(trace: Path, place: Path) -> list[tuple[str, str]]:
    """The calls in a trace, and their paths in the place."""
    lines = [line.replace(f" {place.resolve()}/", " ", 1) for line in trace.read_text().splitlines()]
    return [(call, path) for call, _, path in (line.partition(" ") for line in lines)]


def _suffered(subject: Subject, name: str, fault: Fault) -> tuple[bool, str | None]:
    """Whether the fault came, and what the command did wrong under it or in its place after it; None when nothing."""
    place = subject.place(name)
    there = {str(path.relative_to(place)) for path in (place, *place.rglob("*")) if path.is_dir()}
    told = place.with_name(f"trace-of-{name}")

    def arm() -> None:
        faults.trace(place, told)
        faults.arm(place, fault.call, fault.pattern, fault.nth, fault.error, fault.lasts)

    ending = subject.begin(place, prepare=arm).wait(_SECONDS)
    made = [p for call, p in _calls(told, place) if call == fault.call and fnmatchcase(p, fault.pattern)]
    path = made[fault.nth - 1] if len(made) >= fault.nth else None
    problem = _of_ending(ending, fault, path, there) or job.partial(place) or job.lost(place)
    if problem is None and not (ending.value == 0 and subject.name == "demo"):  # which refuses to draw anew
        again = subject.again(place).wait(_SECONDS)
        problem = again.problem or (None if again.value == 0 else f"then: {again.output.strip()[-400:]}")
        problem = problem or subject.after(place)
    job.clear(place)
    told.unlink()
    return path is not None or problem is not None, problem


def _of_ending(ending: Ending, fault: Fault, path: str | None, there: set[str]) -> str | None:
    """What is wrong with how a command ended that met a fault at a path, or did not meet it. there: folders before."""
    output = ending.output.strip()[-400:]
    if ending.problem is not None:
        return f"{ending.problem}: {output}"
    if "Traceback" in ending.output:
        return f"a traceback: {output}"
    lines = [line for line in ending.output.splitlines() if line.startswith("gan-nst: ")]
    if ending.value not in (0, 1, 2) or len(lines) != (ending.value != 0):
        return f"exit code {ending.value} with {len(lines)} lines: {output}"
    if path is None:
        return None
    dispensable = any(fnmatchcase(path, pattern) for pattern in _DISPENSABLE) and ".evaluation" not in path
    if ending.value != 0 and not fault.lasts and dispensable:
        return f"it ended for what it can do without: {output}"
    # A folder that is there already need not be made.
    needless = fault.call == "unlink" or (fault.call == "mkdir" and (fault.nth > 1 or path in there))
    needless |= any(fnmatchcase(path, pattern) for pattern in _NEVER_MISSED)
    # Python's tempfile, refused a nameless file in a folder, makes one with a name.
    needless |= fault.call == "open" and not fault.lasts and fnmatchcase(path, "*/.cache")
    told = [line for line in ending.output.splitlines() if os.strerror(fault.error) in line]
    if not told:
        return None if ending.value == 0 and needless else f"the reason is not told: {output}"
    building = [
        re.sub(r"(\.[0-9a-f]{8})?\.part$", "", part) for part in Path(path).parts if part.endswith(".part")
    ]
    named = [part.removeprefix(".") for part in (Path(path).name, Path(path).parent.name, *building) if part]
    if not needless and not any(name in line for line in told for name in named):
        return f"{path} is not named: {told}"
    if not any(_REMEDIES[fault.error] in line for line in told):
        return f"what to do is not told: {told}"
    return None
