"""Kills: a training, export or translation that is killed at any moment and restarted ends as if it had never been.

In a chain of kills, a run is killed and resumed repeatedly, and finally compared with the undisturbed run bit by bit.
Half of the kills come at random moments; the others interrupt the writing of a checkpoint, the cache, an export or
another file.
"""

import random
import shutil
import time
from functools import partial as fixed
from pathlib import Path

import faults
import job
from children import Child, command
from faults import environment  # noqa: F401 (the runner's)
from job import Job, clear, import_all, newest_run, unfinished

KILLS_PER_CHAIN = 3
_SECONDS = 120
_COMMANDS = ("export safetensors", "export onnx", "translate", "demo")

# Targets of kills: the call, the pattern of its path, and roughly how many such calls a run makes.
TARGETS = [
    ("write", "*/checkpoints/.step-*", 400),
    ("write", "*/checkpoints/.step-*", 400),
    ("sync", "*/checkpoints/.step-*", 4),
    ("rename", "*/checkpoints/step-*", 4),
    ("rename", "*/checkpoints/best.pt", 2),
    ("link", "*/checkpoints/*", 2),
    ("unlink", "*/checkpoints/*", 3),
    ("write", "*/.cache/*", 30),
    ("write", "*/.cache/*", 30),
    ("sync", "*/.cache/*", 4),
    ("rename", "*/.cache/*", 4),
    ("write", "*/.generator*", 4),
    ("sync", "*/.generator*", 2),
    ("rename", "*/generator*", 2),
    ("write", "*/metrics.jsonl", 10),
    ("write", "*/events.out*", 100),
    ("write", "*/samples/*", 4),
    ("rename", "*/samples/*", 4),
    ("write", "*/.settings.yaml*", 1),
    ("rename", "*/settings.yaml", 1),
    ("symlink", "*latest*", 1),
    ("rename", "*latest*", 1),
    ("mkdir", "runs/*", 4),
    ("write", "*/.evaluation.part/*", 30),
    ("rename", "*/report.html", 2),
    ("rename", "*/translated", 1),
]


def campaign(plan, tally) -> None:
    import_all()
    draw = random.Random(plan.seed)
    training = Job(plan.folder)
    minimum, rounds = (120, 6) if plan.long else (5, 1)
    began = time.monotonic()
    training.begin(training.place("timed"), "data.workers=1").wait(_SECONDS)
    duration = time.monotonic() - began
    kills = 0
    while kills < minimum:
        kills += _chain(training, f"chain-{kills}", random.Random(draw.random()), duration, tally)
    for number in range(rounds):
        for pair in (_two_at_once, _two_in_one_folder, _two_resume_one_run):
            tally.count(f"{pair.__name__[1:]} {number}", pair(training, f"pair-{number}"))
        exports = [fixed(_killed_export, to=to) for to in ("safetensors", "onnx")]
        for what, kill in zip(_COMMANDS, (*exports, _killed_translation, _killed_demo), strict=True):
            folder = training.base / f"{what}-{number}"
            folder.mkdir()
            killed, problem = kill(folder, training, draw=random.Random(draw.random()))
            if killed or problem:
                tally.count(f"{what} {number}", problem)
            clear(folder)


def _chain(training: Job, name: str, draw: random.Random, duration: float, tally) -> int:
    """Kills and resumes a run several times, moving it now and then, and finishes it; returns the number of kills."""
    place, events, kills = training.place(name), [name], 0
    problem = None
    while kills < KILLS_PER_CHAIN and problem is None:
        workers = draw.choice([0, 1, 2])
        prepare, moment = None, None
        if draw.random() < 0.5:
            moment = draw.uniform(0, duration)
            events.append(f"{moment:.2f} s, {workers} workers")
        else:
            call, pattern, most = draw.choice(TARGETS)
            nth = draw.randint(1, most)
            prepare = fixed(faults.arm, place, call, pattern, nth, faults.KILL)
            events.append(f"{call} {nth} of {pattern}, {workers} workers")
        child = training.resume(place, f"data.workers={workers}", prepare=prepare)
        if moment is not None:
            time.sleep(moment)
            child.kill()
        ending = child.wait(_SECONDS)
        if ending.timed_out or ending.error or (ending.signal is None and ending.value != 0):
            problem = ending.problem or f"exit code {ending.value}: {ending.output.strip().splitlines()[-1]}"
        if ending.signal is None:  # it finished before it could be killed
            events.pop()
            break
        kills += 1
        problem = problem or job.partial(place) or job.lost(place)
        if draw.random() < 0.3 and (run := newest_run(place)) is not None:
            events.append("moved")
            moved = run.with_name("moved" if run.name != "moved" else "moved again")
            shutil.copytree(run, moved, symlinks=True)
            shutil.rmtree(run)
    if problem is None:
        ending = training.resume(place, f"data.workers={draw.choice([0, 1])}").wait(_SECONDS)
        problem = ending.problem or (ending.output[-500:] if ending.value != 0 else training.problem(place))
    for _ in range(kills):
        tally.count("; ".join(events), problem)
    clear(place)
    return kills


def _two_at_once(training: Job, name: str) -> str | None:
    """Starts two trainings of one domain together, before there is a cache."""
    place = training.place(f"{name}-two")
    endings = [child.wait(_SECONDS) for child in [training.begin(place), training.begin(place)]]
    runs = [path for path in place.glob("runs/*/*/*") if not path.is_symlink()]
    problem = next((e.problem or e.output for e in endings if e.value != 0), None)
    if problem is None and len(runs) != 2:
        problem = f"they shared a folder: {runs}"
    if problem is None and not all(job.same_state(training.reference, run) for run in runs):
        problem = "the state differs from that of the undisturbed run"
    clear(place)
    return problem or None


def _two_in_one_folder(training: Job, name: str) -> str | None:
    """Starts two trainings with one output folder together: only one of them may use it."""
    place = training.place(f"{name}-out")
    children = [
        Child(command, "train", job.CONFIG, *job.OVERRIDES, "--output", "run", cwd=place) for _ in range(2)
    ]
    endings = [child.wait(_SECONDS) for child in children]
    problem = _one_refused(training, place / "run", endings, ([0, 2],))  # at any time the second starts
    clear(place)
    return problem


def _two_resume_one_run(training: Job, name: str) -> str | None:
    """Resumes one run in two processes at once: only one of them may."""
    place = training.place(f"{name}-resume")
    training.begin(place, "training.stop_at=4").wait(_SECONDS)
    run = newest_run(place)
    children = [training.resume(place), training.resume(place)]
    endings = [child.wait(_SECONDS) for child in children]
    # The first may have finished when the second starts.
    problem = _one_refused(training, run, endings, ([0, 2], [0, 0]))
    clear(place)
    return problem


def _one_refused(training: Job, run: Path, endings, allowed: tuple[list[int], ...]) -> str | None:
    """Describes what is wrong with two trainings of one run; `allowed` lists their possible exit codes, sorted."""
    codes = sorted(-1 if e.value is None else e.value for e in endings)
    refused = next((e.output for e in endings if e.value == 2), "")
    if codes not in allowed:
        return f"exit codes {codes}: {[e.output[-300:] for e in endings]}"
    if codes == [0, 2] and not ("another process" in refused or "not empty" in refused):
        return f"refused for another reason: {refused}"
    return (
        None
        if job.same_state(training.reference, run)
        else "the state differs from that of the undisturbed run"
    )


def _killed_export(folder: Path, training: Job, to: str, draw: random.Random) -> tuple[bool, str | None]:
    """An export killed while it writes leaves the previous file alone, and the next export succeeds."""
    out = folder / f"out.{to}"
    arguments = ("export", training.reference, "--format", to, "--output", out)
    ending = Child(command, *arguments).wait(_SECONDS)
    if ending.value != 0:
        return False, ending.output
    expected = out.read_bytes()
    call, most = draw.choice([("write", 3), ("sync", 1), ("rename", 1)])
    killed = _killed_at(folder, call, most, draw, *arguments)
    if out.read_bytes() != expected:
        return killed, "the previous file was changed"
    again = Child(command, *arguments).wait(_SECONDS)
    if again.value != 0 or out.read_bytes() != expected:
        return killed, again.problem or "the file differs from that of the undisturbed export"
    left = [path.name for path in folder.iterdir() if path != out]
    return killed, f"left behind: {left}" if left else None


def _killed_translation(folder: Path, training: Job, draw: random.Random) -> tuple[bool, str | None]:
    """A killed translation of a folder can be continued with `--resume`, and no image is ever incomplete."""
    arguments = ("translate", training.reference, training.base / "images" / "trainA", "--output")
    expected, out = folder / "expected", folder / "out"
    Child(command, *arguments, expected).wait(_SECONDS)
    killed = _killed_at(folder, draw.choice(["write", "rename", "open"]), 6, draw, *arguments, out)
    if problem := job.partial(folder):
        return killed, problem
    ending = Child(command, *arguments, out, "--resume").wait(_SECONDS)
    if ending.value != 0:
        return killed, ending.problem or ending.output
    files = [{path.name: path.read_bytes() for path in place.iterdir()} for place in (out, expected)]
    return killed, None if files[0] == files[
        1
    ] else f"the files differ from those of the undisturbed translation: {sorted(files[0])}"


def _killed_demo(folder: Path, training: Job, draw: random.Random) -> tuple[bool, str | None]:
    """A killed drawing of demo images leaves none of them, and the next one draws all of them."""
    scenes = folder / "out"
    arguments = ("data", "demo", scenes, "--size", "16", "--count", "5")
    call, most = draw.choice([("write", 100), ("mkdir", 6), ("rename", 1)])
    killed = _killed_at(folder, call, most, draw, *arguments)
    if killed and scenes.exists():
        return killed, "an incomplete set of images remains"
    ending = Child(command, *arguments).wait(_SECONDS) if killed else None
    if ending is not None and ending.value != 0:
        return killed, ending.problem or ending.output
    complete = len(list(scenes.rglob("*.png"))) == 250 and not unfinished(folder)
    return killed, None if complete else f"incomplete, or left behind: {unfinished(folder)}"


def _killed_at(folder: Path, call: str, most: int, draw: random.Random, *arguments: object) -> bool:
    """Kills a command at one of its first such calls on `out` paths; returns whether it got that far."""
    prepare = fixed(faults.arm, folder, call, "*out*", draw.randint(1, most), faults.KILL)
    return Child(job._prepared, prepare, *arguments).wait(_SECONDS).signal is not None
