"""Measures thread settings, alone and next to a busy process: python tests/campaigns/threads.py JOB

The machine should be idle otherwise. JOB is a settings file, to measure its training step on the CPU; an image size in
pixels, to measure the published CycleGAN's step; or `translate`, for a folder of 256-pixel images. Prints a row for
each candidate: steps or images per second.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent)]

CANDIDATES: dict[str, dict[str, str]] = {
    "torch's own": {},
    **{f"GOMP_SPINCOUNT={spins}": {"GOMP_SPINCOUNT": str(spins)} for spins in (0, 1000, 5000, 20000)},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "OMP_NUM_THREADS=1": {"OMP_NUM_THREADS": "1"},
}
ROUNDS, SECONDS = 2, 4.0


def measure(job: str) -> None:
    """Starts one process per candidate, since OpenMP reads its environment only once, and lets them take turns."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
    workers = {}
    for name, given in CANDIDATES.items():
        command = [sys.executable, __file__, job, "worker"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        workers[name] = subprocess.Popen(command, text=True, env=clean | given, **pipes)
        assert workers[name].stdout.readline() == "ready\n", name
    rates: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in workers}
    try:
        for turn in range(2 * ROUNDS):
            busy = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if turn % 2 else None
            for name, worker in workers.items():
                worker.stdin.write("go\n")
                worker.stdin.flush()
                rates[name][turn % 2].append(float(worker.stdout.readline()))
            if busy is not None:
                busy.kill()
                busy.wait()
    finally:
        for worker in workers.values():
            worker.kill()
    print(f"| {job} | alone | next to a busy process |\n|---|---|---|")
    for name, (alone, busy) in rates.items():
        print(f"| {name} | {median(alone):.3g} | {median(busy):.3g} |")


def work(job: str) -> None:
    """Measures and prints the rate for every line on standard input."""
    with tempfile.TemporaryDirectory() as folder:
        call, count = prepared(job, Path(folder))
        for _ in range(2):
            call()
        print("ready", flush=True)
        for _ in sys.stdin:
            calls, began = 0, time.perf_counter()
            while not calls or time.perf_counter() - began < SECONDS:
                call()
                calls += 1
            print(count * calls / (time.perf_counter() - began), flush=True)


def prepared(job: str, folder: Path) -> tuple[Callable[[], object], int]:
    """The function to time, and how many images or steps one call takes."""
    import torch

    from gan_nst.bench.steps import Job, cyclegan_job, trainer_step
    from gan_nst.core.device import choose_precision
    from gan_nst.data.demo import make_demo
    from gan_nst.inference.exported import Description, TrainingScale
    from gan_nst.inference.folder import translate_folder
    from gan_nst.inference.translator import Translator
    from gan_nst.networks import build
    from gan_nst.runs.settings import load_settings

    cpu = torch.device("cpu")
    precision = choose_precision("auto", cpu)
    if job != "translate":
        if job.isdigit():
            step = cyclegan_job(int(job), 64, 9, 1, cpu, precision)
        else:
            settings = load_settings(Path(job), ["device=cpu"])[0]
            step = Job(settings.method, settings.training, settings.data.crop_size, cpu, precision)
        return trainer_step(step), 1
    make_demo(folder / "in", 256, 4, held_out=0)
    network = {"name": "resnet", "width": 64, "blocks": 9}
    scale = TrainingScale(load_size=256, crop_size=256)
    description = Description(network=network, translation="ab", training_scale=scale, method="cyclegan")
    translator = Translator(build(network), description, "cpu")
    return lambda: translate_folder(translator, folder / "in" / "trainA", folder / "out"), 4


if __name__ == "__main__":
    (work if sys.argv[2:] else measure)(sys.argv[1])
