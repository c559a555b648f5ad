"""Disk: every command meets a full disk, a quota, a read-only folder or a failing device wherever it writes.

What a command writes is read off an undisturbed run of it; each kind of call on each kind of path then fails, once or
from there on. The command must end by itself, say in one line which path it was and what to do, keep what was there,
and once the disk is well again come to the end that an undisturbed one comes to.
"""

import errno
import os
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial as fixed
from pathlib import Path

import faults
import job
from children import Child, Ending
from faults import environment  # noqa: F401 (the runner's)
from job import Job, import_all, newest_run

_SECONDS = 120

# Numbers, random names and times in paths, which differ from run to run.
_VARIES = re.compile(
    r"\d{8}-\d{6}(-\d+)?|[0-9a-f]{8,}|\d{5,}|(?<=events\.out\.tfevents\.).*|(?<=\.latest-)\d+"
)


@dataclass(frozen=True)
class Fault:
    """One failing call, and whether all after it fail as well. tops: the first parts of the paths that are written."""

    tops: frozenset[str]
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
            found = draw.sample(found, min(len(found), 8 if subject.name == "train" else 2))
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

    pictures = training.base / "pictures" / "trainA"
    evaluation = of_command("evaluate", "evaluate", "run", after=_same_tree(run_place))
    return [
        Subject("train", training.place, training.begin, training.go_on, fixed(_after_training, training)),
        of_command("translate", "translate", training.whole, pictures, "--output", "out", after=_same_tree()),
        of_command("export", "export", training.whole, "--to", "onnx", "--out", "o.onnx", after=_same_tree()),
        of_command("smooth", "data", "smooth", pictures, "out", after=_same_tree()),
        of_command("demo", "data", "demo", "scenes", "--size", "16", "--count", "2", after=_same_tree()),
        of_command("curves", "curves", training.whole, "--out", "curves.png", after=_same_tree()),
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
    calls = _calls(told, place)
    tops = frozenset(path.split("/")[0] for _, path in calls)
    patterns = {(call, max(_VARIES.split(path), key=lambda part: len(part or ""))) for call, path in calls}
    kinds = [(errno.ENOSPC, True), (errno.ENOSPC, False), (errno.EDQUOT, True), (errno.EROFS, True)]
    found = []
    for number, (call, pattern) in enumerate(sorted(patterns)):
        count = sum(made == call and pattern in path for made, path in calls)
        for place_of, nth in enumerate(sorted({1, (count + 1) // 2, count})):
            # Each place with two of the four kinds, so that all kinds meet all kinds of path.
            for error, lasts in (kinds[(number + place_of) % 4], kinds[(number + place_of + 2) % 4]):
                if call != "unlink" or error == errno.EROFS:
                    found.append(Fault(tops, call, pattern, nth, error, lasts))
    return found


def _calls(trace: Path, place: Path) -> list[tuple[str, str]]:
    """The calls in a trace, and their paths in the place."""
    lines = [line.replace(f" {place.resolve()}/", " ", 1) for line in trace.read_text().splitlines()]
    return [(call, path) for call, _, path in (line.partition(" ") for line in lines)]


def _suffered(subject: Subject, name: str, fault: Fault) -> tuple[bool, str | None]:
    """Whether the fault came, and what the command did wrong under it or in its place after it; None when nothing."""
    place = subject.place(name)
    told = place.with_name(f"trace-of-{name}")

    def arm() -> None:
        faults.trace(place, told)
        faults.arm(place, fault.call, fault.pattern, fault.nth, fault.error, fault.lasts)

    ending = subject.begin(place, prepare=arm).wait(_SECONDS)
    made = [path for call, path in _calls(told, place) if call == fault.call and fault.pattern in path]
    problem = _of_ending(ending, fault) or job.partial(place)
    if problem is None and not (ending.value == 0 and subject.name == "demo"):  # which refuses to draw anew
        again = subject.again(place).wait(_SECONDS)
        problem = again.problem or (None if again.value == 0 else f"then: {again.output.strip()[-400:]}")
        problem = problem or subject.after(place)
    job.clear(place)
    told.unlink()
    return len(made) >= fault.nth, problem


def _of_ending(ending: Ending, fault: Fault) -> str | None:
    if ending.problem is not None:
        return f"{ending.problem}: {ending.output.strip()[-400:]}"
    if "Traceback" in ending.output:
        return f"a traceback: {ending.output.strip()[-400:]}"
    if ending.value == 0:
        return None
    lines = [line for line in ending.output.splitlines() if line.startswith("gan-nst: ")]
    if ending.value not in (1, 2) or len(lines) != 1:
        return f"exit code {ending.value} with {len(lines)} lines: {ending.output.strip()[-400:]}"
    told = [line for line in ending.output.splitlines() if os.strerror(fault.error) in line]
    if not told:
        return f"the reason is not told: {lines[0]}"
    if not {Path(text.strip(":;,")).parts[:1] for text in told[0].split()} & {(top,) for top in fault.tops}:
        return f"no path is named: {told[0]}"
    if "free" not in told[0] and "writable" not in told[0]:
        return f"what to do is not told: {told[0]}"
    return None
