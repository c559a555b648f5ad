"""Disk: wherever a command writes, it may meet a full disk, a quota, a read-only folder or a failing device.

A traced run shows what a command writes; each kind of call on each kind of path then fails, once or from then on. The
command must exit by itself, report in one line which path failed and what to do, and keep the existing files; once the
disk works again, it must produce what an undisturbed command does. Training never loses a checkpoint, and continues if
only a sample grid, a metric or an event could not be written.
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

# Parts of paths that differ from run to run (numbers, random names, times), and the many sheets of an evaluation.
_VARIES = re.compile(
    r"\d{8}-\d{6}(-\d+)?|[0-9a-f]{8,}|\d{5,}|(?<=events\.out\.tfevents\.).*|(?<=test_)\w+(?=\.png)"
)
# What a training writes, and its pattern; faults hit all of them, even in the short form at least once.
_OF_TRAINING = {
    "checkpoint": "*/checkpoints/.step-*.pt.*.part",
    "metrics": "*/metrics.jsonl",
    "events": "*/events.out.tfevents.*",
    "samples": "*/samples/.step-*.png.*.part",
    "settings": "*/.settings.yaml.*.part",
    "cache": "datasets/.cache/.*.bin.*.part",
    "export": "*/.generator.safetensors.*.part",
}
_DISPENSABLE = [_OF_TRAINING[name] for name in ("metrics", "events", "samples")] + [
    "*/samples/step-*.png",
    "*/samples",
]
_UNREPORTED = ["*.lock", "*/latest", "*/.latest.*", "*/.cache/*features-*"]  # failures that need no message


@dataclass(frozen=True)
class Fault:
    """One failing call, and whether all later ones fail as well."""

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

    place: makes a folder of that name for it. begin: starts it there, after `prepare`. again: starts it again on a
    working disk. after: describes what is wrong in the folder then; None if nothing is.
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
            occurred, problem = _inject(subject, f"{subject.name}-{number}", fault)
            if occurred:
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
        shutil.copytree(training.reference, place / "run")
        return place

    images = training.base / "images" / "trainA"
    evaluation = of_command("evaluate", "evaluate", "run", after=_same_tree(run_place))
    return [
        Subject("train", training.place, training.begin, training.resume, fixed(_after_training, training)),
        of_command(
            "translate", "translate", training.reference, images, "--output", "out", after=_same_tree()
        ),
        of_command(
            "export",
            "export",
            training.reference,
            "--format",
            "onnx",
            "--output",
            "o.onnx",
            after=_same_tree(),
        ),
        of_command("smooth", "data", "smooth", images, "out", after=_same_tree()),
        of_command("demo", "data", "demo", "scenes", "--size", "16", "--count", "2", after=_same_tree()),
        of_command("curves", "curves", training.reference, "--output", "curves.png", after=_same_tree()),
        Subject("evaluate", run_place, evaluation.begin, evaluation.again, evaluation.after),
    ]


def _same_tree(place: Callable[[str], Path] | None = None) -> Callable[[Path], str | None]:
    """Returns a check that the file names in a folder equal those in the first folder checked, the undisturbed one."""
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
    if not job.same_state(training.reference, run):
        return "the state differs from that of the undisturbed run"
    losses, expected = job.losses(run), job.losses(training.reference)
    if any(line != expected[step] for step, line in losses.items()):
        return "the metrics differ from those of the undisturbed run"
    if left := job.unfinished(place):
        return f"left behind: {left}"
    return job.partial(place)


def _all_faults(subject: Subject, plan) -> list[Fault]:
    """Faults at the first, middle and last call of every kind on every kind of path."""
    place, trace = subject.place(f"{subject.name}-traced"), plan.folder / f"{subject.name}.trace"
    ending = subject.begin(place, prepare=fixed(faults.trace, place, trace)).wait(_SECONDS)
    if ending.value != 0:
        raise SystemExit(f"the undisturbed {subject.name} failed: {ending.problem}\n{ending.output}")
    if problem := subject.after(place):
        raise SystemExit(f"the undisturbed {subject.name}: {problem}")
    patterns = Counter((call, _VARIES.sub("*", path)) for call, path in _calls(trace, place))
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
        for position, nth in enumerate(sorted({1, (count + 1) // 2, count})):
            # The four kinds take turns, so that each of them hits many kinds of path.
            error, lasts = kinds[(number + position) % 4]
            if call != "unlink" or error == errno.EROFS:
                found.append(Fault(call, pattern, nth, error, lasts))
    return found


def _some(found: list[Fault], draw: random.Random) -> list[Fault]:
    """A selection of the faults: for training, one in the last write of each of its files; otherwise two at random."""
    chosen = []
    for wanted in _OF_TRAINING.values():
        writes = [fault for fault in found if fault.call == "write" and fnmatchcase(fault.pattern, wanted)]
        chosen += draw.sample([fault for fault in writes if fault.nth == writes[-1].nth], bool(writes))
    return chosen or draw.sample(found, min(len(found), 2))


def _calls(trace: Path, place: Path) -> list[tuple[str, str]]:
    """The calls in a trace, and their paths relative to the folder."""
    lines = [line.replace(f" {place.resolve()}/", " ", 1) for line in trace.read_text().splitlines()]
    return [(call, path) for call, _, path in (line.partition(" ") for line in lines)]


def _inject(subject: Subject, name: str, fault: Fault) -> tuple[bool, str | None]:
    """Injects a fault; returns whether it occurred, and what the command did wrong then or afterwards, or None."""
    place = subject.place(name)
    there = {str(path.relative_to(place)) for path in (place, *place.rglob("*")) if path.is_dir()}
    trace = place.with_name(f"trace-of-{name}")

    def arm() -> None:
        faults.trace(place, trace)
        faults.arm(place, fault.call, fault.pattern, fault.nth, fault.error, fault.lasts)

    ending = subject.begin(place, prepare=arm).wait(_SECONDS)
    made = [p for call, p in _calls(trace, place) if call == fault.call and fnmatchcase(p, fault.pattern)]
    path = made[fault.nth - 1] if len(made) >= fault.nth else None
    folders = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_dir()}
    problem = _of_ending(ending, fault, path, there, folders) or job.partial(place) or job.lost(place)
    if problem is None and not (ending.value == 0 and subject.name == "demo"):  # demo refuses to draw again
        again = subject.again(place).wait(_SECONDS)
        problem = again.problem or (None if again.value == 0 else f"then: {again.output.strip()[-400:]}")
        problem = problem or subject.after(place)
    job.clear(place)
    trace.unlink()
    return path is not None or problem is not None, problem


def _of_ending(
    ending: Ending, fault: Fault, path: str | None, there: set[str], folders: set[str]
) -> str | None:
    """Describes what is wrong with how a command ended. path: where the fault occurred. there: folders before it.
    folders: those after it.
    """
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
        return f"it stopped although it could do without the file: {output}"
    # Existing folders need not be created.
    needless = fault.call == "unlink" or (fault.call == "mkdir" and (fault.nth > 1 or path in there))
    needless |= any(fnmatchcase(path, pattern) for pattern in _UNREPORTED)
    # Python's tempfile, refused a nameless file in a folder, creates one with a name.
    needless |= fault.call == "open" and not fault.lasts and path in folders
    reports = [line for line in ending.output.splitlines() if os.strerror(fault.error) in line]
    if not reports:
        return None if ending.value == 0 and needless else f"the reason is not reported: {output}"
    building = [
        re.sub(r"(\.[0-9a-f]{8})?\.part$", "", part) for part in Path(path).parts if part.endswith(".part")
    ]
    named = [part.removeprefix(".") for part in (Path(path).name, Path(path).parent.name, *building) if part]
    if not needless and not any(name in line for line in reports for name in named):
        return f"{path} is not named: {reports}"
    if not any(_REMEDIES[fault.error] in line for line in reports):
        return f"the remedy is not reported: {reports}"
    return None
