"""Runs the campaigns and reports what was survived: python tests/campaigns/run.py [--short] [--seed N] [NAME ...]

Each campaign runs in its own process, from which its cases are forked. The last line lists survived/injected for every
campaign; the exit code is 1 if any fault was not survived.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent.parent)]

from tally import Tally  # noqa: E402

CAMPAIGNS = {"kills": "kill", "disk": "disk", "images": "images", "fuzz": "fuzz", "hostile": "hostile"}
"""The names in the last line, and the modules, each of which has a function `campaign(plan, tally)`."""


@dataclass(frozen=True)
class Plan:
    """long: the full campaign; otherwise the short form of the test suite. folder: an empty working folder."""

    long: bool
    seed: int
    folder: Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CAMPAIGNS))
    parser.add_argument("--short", action="store_true", help="the short form that the test suite runs")
    parser.add_argument("--seed", type=int, default=0)
    # For the process of one campaign: the file to write its tally to.
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.names = options.names or list(CAMPAIGNS)
    if unknown := set(options.names) - CAMPAIGNS.keys():
        parser.error(f"{', '.join(unknown)}: not a campaign; choose from {', '.join(CAMPAIGNS)}")
    if options.result:
        return _run(options.names[0], options)
    return _run_all(options)


def _run(name: str, options: argparse.Namespace) -> int:
    """Runs one campaign in this process."""
    import torch

    torch.set_num_threads(1)  # threads do not survive a fork
    tally = Tally(name)
    with tempfile.TemporaryDirectory(prefix=f"campaign-{name}-") as folder:
        importlib.import_module(CAMPAIGNS[name]).campaign(
            Plan(not options.short, options.seed, Path(folder)), tally
        )
    options.result.write_text(json.dumps([tally.survived, tally.injected]))
    return 0 if tally.survived == tally.injected else 1


def _run_all(options: argparse.Namespace) -> int:
    """Runs each campaign in its own process, as many at once as there are cores but at most two."""
    waiting, running, results, failed = list(options.names), {}, {}, False
    at_once = min(2, os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as folder:
        while waiting or running:
            while waiting and len(running) < at_once:
                name = waiting.pop(0)
                running[name] = (_start(name, Path(folder, name), options), time.monotonic())
            for name, (process, began) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[name]
                failed |= process.returncode != 0
                path = Path(folder, name)
                results[name] = json.loads(path.read_text()) if path.exists() else [0, 0]
                survived, injected = results[name]
                print(f"{name}: {survived} of {injected} in {time.monotonic() - began:.0f} s", flush=True)
            time.sleep(0.1)
    print(", ".join(f"{name} {results[name][0]}/{results[name][1]}" for name in options.names), flush=True)
    return 1 if failed else 0


def _start(name: str, result: Path, options: argparse.Namespace) -> "subprocess.Popen[bytes]":
    short = ["--short"] if options.short else []
    command = [sys.executable, __file__, name, *short, "--seed", str(options.seed), "--result", str(result)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}
    module = importlib.import_module(CAMPAIGNS[name])
    environment |= module.environment(result.parent) if hasattr(module, "environment") else {}
    return subprocess.Popen(command, env=environment)


if __name__ == "__main__":
    sys.exit(main())
