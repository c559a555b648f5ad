"""Feeds hostile files to every input of the program: none may execute code or write outside its output.

Each case runs in a forked child, in its own copy of a small run with images, made hostile. Afterwards nothing may have
changed except what the case is allowed to write, no code may have been executed, and a refusal must be one line.
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
from hostile_files import forged_onnx, forged_programs, forged_safetensors
from hostile_folders import archive_cases, link_cases, name_cases
from hostile_logs import log_cases
from hostile_readers import generator_cases, pickle_cases, settings_cases

_LONGEST = 120  # seconds per case
_MEMORY = 6 * 2**30  # bytes of address space that a case may add
_SHORT = 80  # cases in the short form, which has at least one of every kind


def environment(folder: Path) -> dict[str, str]:
    """Hides all weights and caches except those of a case."""
    return {name: str(folder / "none") for name in ("GAN_NST_WEIGHTS", "XDG_CACHE_HOME", "TORCH_HOME")}


# Modules that would cost each case seconds to import.
_PRELOADED = (
    "torchvision.models",
    *("torch_fidelity", "matplotlib.pyplot", "onnxruntime"),
    *("gan_nst.cli", "gan_nst.commands.train", "gan_nst.commands.evaluate", "gan_nst.commands.export"),
    *("gan_nst.commands.curves", "gan_nst.web.jobs"),
    *("gan_nst.evaluation.features", "gan_nst.diagnosis.figure"),
    *("gan_nst.methods.cyclegan", "gan_nst.methods.cartoongan"),
    *("gan_nst.commands.importing", "gan_nst.inference.portable.onnx", "gan_nst.inference.portable.program"),
)


def campaign(plan, tally):
    for name in _PRELOADED:
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
    """One case of every kind, and a random selection of the rest."""
    shuffled = random.Random(seed).sample(cases, len(cases))
    first = {case.kind: case for case in shuffled}
    rest = [case for case in shuffled if first[case.kind] is not case]
    return [*first.values(), *rest[: max(0, _SHORT - len(first))]]


def _problem(case: Case, base: Path, folder: Path) -> str | None:
    """Describes what is wrong with how a case ended; None if nothing is."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base, folder, symlinks=True)
    work = folder / "work"
    case.prepare(work)
    before = _listing(folder)
    ending = in_child(_attempt, case, work, seconds=_LONGEST)
    refusals = [line for line in ending.output.splitlines() if line.startswith("gan-nst: ")]
    after = _listing(folder)
    changed = {path for path in {*before, *after} if before.get(path) != after.get(path)}
    changed = {p for p in changed if not any(Path("work", t) in (p, *p.parents) for t in case.writes)}
    if ending.problem is not None:
        return f"{ending.problem} {ending.output[-300:]!r}"
    if (folder / "canary").exists():
        return "executed code"
    if changed:
        return f"changed {', '.join(sorted(map(str, changed)))[:300]}"
    if "Traceback" in ending.output or ending.value not in case.codes:
        return f"exit code {ending.value}, not {case.codes}: {ending.output[-500:]!r}"
    if ending.value == 2 and (len(refusals) != 1 or len(refusals[0]) > 2000):
        return f"{len(refusals)} lines of refusal: {ending.output[-500:]!r}"
    return case.check(work)


def _attempt(case: Case, work: Path) -> int:
    os.chdir(work)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + _MEMORY,) * 2)
    return case.run()


def _listing(folder: Path) -> dict[Path, str]:
    """Describes every path below a folder: a folder, a link with its target, or a file with its digest."""
    found = {}
    for root, folders, files in os.walk(folder):
        for path in (Path(root, name) for name in (*folders, *files)):
            if path.is_symlink():
                entry = f"link {os.readlink(path)}"
            elif path.is_file():
                entry = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                entry = "folder" if path.is_dir() else "special"
            found[path.relative_to(folder)] = entry
    return found


def all_cases(base: Path) -> list[Case]:
    """Every case. base: the folder that `make_base` made; each case runs in a copy next to it."""
    canary = base.parent / "case" / "canary"
    exported = (base / "work" / "generator.safetensors").read_bytes()
    description = _description(exported)
    return [
        *pickle_cases(canary),
        *generator_cases("safetensors", forged_safetensors(exported)),
        *generator_cases("onnx", forged_onnx(description)),
        *generator_cases("pt2", forged_programs(description, canary)),
        *settings_cases(canary),
        *cache_cases(canary, base.with_name("undisturbed")),
        *link_cases(),
        *log_cases(),
        *name_cases(),
        *archive_cases(),
    ]


def _description(exported: bytes) -> str:
    length = int.from_bytes(exported[:8], "little")
    return json.loads(exported[8 : 8 + length])["__metadata__"]["gan_nst"]
