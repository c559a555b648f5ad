"""Gives the program hostile files, in every place where it takes files: nothing is run, nothing is written elsewhere.

Each case runs in a forked child, in a folder of its own: a copy of a small run with its images, made hostile.
Afterwards nothing but what the case may write has changed, no code has left its mark, and a refusal is one line.
"""

import hashlib
import importlib
import json
import os
import random
import resource
import shutil
import time
from pathlib import Path

from children import in_child
from hostile_caches import cache_cases
from hostile_case import Case, make_base
from hostile_files import lying_onnx, lying_programs, lying_safetensors
from hostile_folders import archive_cases, link_cases, name_cases
from hostile_logs import log_cases
from hostile_readers import generator_cases, pickle_cases, settings_cases

_LONGEST = 120  # seconds of a case
_MEMORY = 6 * 2**30  # bytes that a case may map
_SHORT = 80  # cases of the short form, beside one of every kind


def environment(folder: Path) -> dict[str, str]:
    """No weights and caches but those of a case."""
    return {name: str(folder / "none") for name in ("GAN_NST_WEIGHTS", "XDG_CACHE_HOME", "TORCH_HOME")}


# What cases would each take seconds to import.
_LOADED = (
    "torchvision.models",
    *("torch_fidelity", "matplotlib.pyplot", "onnxruntime"),
    *("gan_nst.cli", "gan_nst.commands.train", "gan_nst.commands.evaluate", "gan_nst.commands.export"),
    *("gan_nst.commands.curves", "gan_nst.web.jobs"),
    *("gan_nst.evaluation.features", "gan_nst.diagnosis.figure"),
    *("gan_nst.methods.cyclegan", "gan_nst.methods.cartoongan"),
    *("gan_nst.commands.importing", "gan_nst.inference.portable.onnx", "gan_nst.inference.portable.program"),
)


def campaign(plan, tally):
    for name in _LOADED:
        importlib.import_module(name)
    base = plan.folder / "base"
    made = in_child(make_base, base, seconds=_LONGEST)
    assert made.problem is None, made.error or made.output
    cases = all_cases(base)
    began = time.monotonic()
    for case in cases if plan.long else _some(cases, plan.seed):
        tally.count(case.name, _problem(case, base, plan.folder / "case"))
    print(f"hostile: {tally.injected} of {len(cases)} cases in {time.monotonic() - began:.0f} s", flush=True)


def _some(cases: list[Case], seed: int) -> list[Case]:
    """One of every kind, and some more."""
    source = random.Random(seed)
    mixed = source.sample(cases, len(cases))
    first = {case.kind: case for case in mixed}
    rest = [case for case in mixed if first[case.kind] is not case]
    return [*first.values(), *rest[: max(0, _SHORT - len(first))]]


def _problem(case: Case, base: Path, folder: Path) -> str | None:
    """What is wrong with how a case ended."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base, folder, symlinks=True)
    work = folder / "work"
    case.prepare(work)
    before = _listing(folder)
    ending = in_child(_attempt, case, work, seconds=_LONGEST)
    told = [line for line in ending.output.splitlines() if line.startswith("gan-nst: ")]
    after = _listing(folder)
    changed = {path for path in {*before, *after} if before.get(path) != after.get(path)}
    changed = {p for p in changed if not any(Path("work", t) in (p, *p.parents) for t in case.writes)}
    if ending.problem is not None:
        return f"{ending.problem} {ending.output[-300:]!r}"
    if (folder / "canary").exists():
        return "ran code"
    if changed:
        return f"changed {', '.join(sorted(map(str, changed)))[:300]}"
    if "Traceback" in ending.output or ending.value not in case.codes:
        return f"exit code {ending.value}, not {case.codes}: {ending.output[-500:]!r}"
    if ending.value == 2 and (len(told) != 1 or len(told[0]) > 2000):
        return f"{len(told)} lines of refusal: {ending.output[-500:]!r}"
    return case.check(work)


def _attempt(case: Case, work: Path) -> int:
    os.chdir(work)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + _MEMORY,) * 2)
    return case.run()


def _listing(folder: Path) -> dict[Path, str]:
    """What every path under a folder is: a folder, a link and where to, or a file and its content's digest."""
    found = {}
    for root, folders, files in os.walk(folder):
        for path in (Path(root, name) for name in (*folders, *files)):
            if path.is_symlink():
                told = f"link {os.readlink(path)}"
            elif path.is_file():
                told = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                told = "folder" if path.is_dir() else "special"
            found[path.relative_to(folder)] = told
    return found


def all_cases(base: Path) -> list[Case]:
    """Every case. base: the folder that `make_base` made, of which each case gets a copy beside it."""
    canary = base.parent / "case" / "canary"
    whole = (base / "work" / "generator.safetensors").read_bytes()
    told = _description(whole)
    return [
        *pickle_cases(canary),
        *generator_cases("safetensors", lying_safetensors(whole)),
        *generator_cases("onnx", lying_onnx(told)),
        *generator_cases("pt2", lying_programs(told, canary)),
        *settings_cases(canary),
        *cache_cases(canary, base.with_name("undisturbed")),
        *link_cases(),
        *log_cases(),
        *name_cases(),
        *archive_cases(),
    ]


def _description(whole: bytes) -> str:
    length = int.from_bytes(whole[:8], "little")
    return json.loads(whole[8 : 8 + length])["__metadata__"]["gan_nst"]
