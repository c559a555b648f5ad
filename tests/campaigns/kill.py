"""Kills: a training, an export or a translation that is killed at any moment and started again ends as if it never was.

Chains of kills: a run is killed, goes on, is killed again, and in the end compared with the undisturbed one bit by bit.
Half of the kills come at random moments, the others in the middle of writing a checkpoint, the cache, an export and
whatever else is written.
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

KILLS_A_CHAIN = 3
_SECONDS = 120
_COMMANDS = ("export safetensors", "export onnx", "translate", "demo")

# Where kills are aimed at: the call, the pattern of its path, and how many such calls there are, about.
AIMED = [
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
    least, others = (120, 6) if plan.long else (5, 1)
    began = time.monotonic()
    training.begin(training.place("timed"), "data.workers=1").wait(_SECONDS)
    lasts = time.monotonic() - began
    kills = 0
    while kills < least:
        kills += _chain(training, f"chain-{kills}", random.Random(draw.random()), lasts, tally)
    for number in range(others):
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


def _chain(training: Job, name: str, draw: random.Random, lasts: float, tally) -> int:
    """A run that is killed some times, here and there copied to another place, and then goes on to its end; how many
    times it was killed.
    """
    place, told, kills = training.place(name), [name], 0
    problem = None
    while kills < KILLS_A_CHAIN and problem is None:
        workers = draw.choice([0, 1, 2])
        prepare, moment = None, None
        if draw.random() < 0.5:
            moment = draw.uniform(0, lasts)
            told.append(f"{moment:.2f} s, {workers} workers")
        else:
            call, pattern, most = draw.choice(AIMED)
            nth = draw.randint(1, most)
            prepare = fixed(faults.arm, place, call, pattern, nth, faults.KILL)
            told.append(f"{call} {nth} of {pattern}, {workers} workers")
        child = training.go_on(place, f"data.workers={workers}", prepare=prepare)
        if moment is not None:
            time.sleep(moment)
            child.kill()
        ending = child.wait(_SECONDS)
        if ending.timed_out or ending.error or (ending.signal is None and ending.value != 0):
            problem = ending.problem or f"exit code {ending.value}: {ending.output.strip().splitlines()[-1]}"
        if ending.signal is None:  # it had ended before
            told.pop()
            break
        kills += 1
        problem = problem or job.partial(place) or job.lost(place)
        if draw.random() < 0.3 and (run := newest_run(place)) is not None:
            told.append("moved")
            moved = run.with_name("moved" if run.name != "moved" else "moved again")
            shutil.copytree(run, moved, symlinks=True)
            shutil.rmtree(run)
    if problem is None:
        ending = training.go_on(place, f"data.workers={draw.choice([0, 1])}").wait(_SECONDS)
        problem = ending.problem or (ending.output[-500:] if ending.value != 0 else training.problem(place))
    for _ in range(kills):
        tally.count("; ".join(told), problem)
    clear(place)
    return kills


def _two_at_once(training: Job, name: str) -> str | None:
    """Two trainings of one domain, started together where there is no cache yet."""
    place = training.place(f"{name}-two")
    endings = [child.wait(_SECONDS) for child in [training.begin(place), training.begin(place)]]
    runs = [path for path in place.glob("runs/*/*/*") if not path.is_symlink()]
    problem = next((e.problem or e.output for e in endings if e.value != 0), None)
    if problem is None and len(runs) != 2:
        problem = f"they shared a folder: {runs}"
    if problem is None and not all(job.same_state(training.whole, run) for run in runs):
        problem = "another state than that of the undisturbed run"
    clear(place)
    return problem or None


def _two_in_one_folder(training: Job, name: str) -> str | None:
    """Two trainings that shall write into one folder, started together: one of them does."""
    place = training.place(f"{name}-out")
    children = [
        Child(command, "train", job.CONFIG, *job.OVERRIDES, "--output", "run", cwd=place) for _ in range(2)
    ]
    endings = [child.wait(_SECONDS) for child in children]
    problem = _one_refused(training, place / "run", endings, ([0, 2],))  # whenever the second comes
    clear(place)
    return problem


def _two_resume_one_run(training: Job, name: str) -> str | None:
    """Two processes that go on with the same run, started together: one of them does."""
    place = training.place(f"{name}-resume")
    training.begin(place, "training.stop_at=4").wait(_SECONDS)
    run = newest_run(place)
    children = [training.go_on(place), training.go_on(place)]
    endings = [child.wait(_SECONDS) for child in children]
    problem = _one_refused(training, run, endings, ([0, 2], [0, 0]))  # the second may find the first done
    clear(place)
    return problem


def _one_refused(training: Job, run: Path, endings, allowed: tuple[list[int], ...]) -> str | None:
    """What is wrong with two trainings of a run, whose exit codes in order must be allowed."""
    codes = sorted(-1 if e.value is None else e.value for e in endings)
    refused = next((e.output for e in endings if e.value == 2), "")
    if codes not in allowed:
        return f"exit codes {codes}: {[e.output[-300:] for e in endings]}"
    if codes == [0, 2] and not ("another process" in refused or "not empty" in refused):
        return f"refused for another reason: {refused}"
    return None if job.same_state(training.whole, run) else "another state than that of the undisturbed run"


def _killed_export(folder: Path, training: Job, to: str, draw: random.Random) -> tuple[bool, str | None]:
    """An export that is killed where it writes leaves what was there before, and the next one is whole."""
    out = folder / f"out.{to}"
    arguments = ("export", training.whole, "--format", to, "--output", out)
    ending = Child(command, *arguments).wait(_SECONDS)
    if ending.value != 0:
        return False, ending.output
    expected = out.read_bytes()
    call, most = draw.choice([("write", 3), ("sync", 1), ("rename", 1)])
    killed = _killed_at(folder, call, most, draw, *arguments)
    if out.read_bytes() != expected:
        return killed, "what was there before is gone"
    again = Child(command, *arguments).wait(_SECONDS)
    if again.value != 0 or out.read_bytes() != expected:
        return killed, again.problem or "another file than that of the undisturbed export"
    left = [path.name for path in folder.iterdir() if path != out]
    return killed, f"left behind: {left}" if left else None


def _killed_translation(folder: Path, training: Job, draw: random.Random) -> tuple[bool, str | None]:
    """A folder's translation that is killed goes on with `--resume`, and every image is whole."""
    arguments = ("translate", training.whole, training.base / "images" / "trainA", "--output")
    expected, out = folder / "expected", folder / "out"
    Child(command, *arguments, expected).wait(_SECONDS)
    killed = _killed_at(folder, draw.choice(["write", "rename", "open"]), 6, draw, *arguments, out)
    if problem := job.partial(folder):
        return killed, problem
    ending = Child(command, *arguments, out, "--resume").wait(_SECONDS)
    if ending.value != 0:
        return killed, ending.problem or ending.output
    files = [{path.name: path.read_bytes() for path in place.iterdir()} for place in (out, expected)]
    return killed, None if files[0] == files[1] else f"other files than undisturbed: {sorted(files[0])}"


def _killed_demo(folder: Path, training: Job, draw: random.Random) -> tuple[bool, str | None]:
    """Demo images whose drawing is killed are not there, and the next start draws all of them."""
    scenes = folder / "out"
    arguments = ("data", "demo", scenes, "--size", "16", "--count", "5")
    call, most = draw.choice([("write", 100), ("mkdir", 6), ("rename", 1)])
    killed = _killed_at(folder, call, most, draw, *arguments)
    if killed and scenes.exists():
        return killed, "half of it is there"
    ending = Child(command, *arguments).wait(_SECONDS) if killed else None
    if ending is not None and ending.value != 0:
        return killed, ending.problem or ending.output
    whole = len(list(scenes.rglob("*.png"))) == 250 and not unfinished(folder)
    return killed, None if whole else f"not whole, or something is left: {unfinished(folder)}"


def _killed_at(folder: Path, call: str, most: int, draw: random.Random, *arguments: object) -> bool:
    """Kills a command at one of the first calls of a kind on what it writes as `out`; whether it came that far."""
    prepare = fixed(faults.arm, folder, call, "*out*", draw.randint(1, most), faults.KILL)
    return Child(job._prepared, prepare, *arguments).wait(_SECONDS).signal is not None
