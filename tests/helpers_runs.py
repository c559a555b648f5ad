"""Runs the real program in its own processes."""

import json
import os
import subprocess
import sys
import time

import torch

from gan_nst.training import checkpoint

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CONFIG = os.path.join(PROJECT, "experiments", "default", "cyclegan.yaml")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": PROJECT, "PYTHONWARNINGS": "ignore"}

# The smallest settings that train.
TINY = [
    "device=cpu",
    "precision=float32",
    "data.load_size=36",
    "data.crop_size=32",
    "data.upscale=true",
    "method.generator.width=4",
    "method.generator.blocks=1",
    "method.generator.downsamplings=1",
    "method.discriminator.width=4",
    "method.discriminator.layers=2",
    "training.log_every=1",
    "training.checkpoint_every=2",
    "training.sample_every=4",
    "training.sample_count=2",
]


def start(*arguments, cwd=None):
    """Starts `gan-nst ARGUMENTS`."""
    command = [sys.executable, "-m", "gan_nst", *map(str, arguments)]
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process, timeout=120):
    """The exit code, standard output and standard error of a started process."""
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def run(*arguments, cwd=None):
    """Runs `gan-nst ARGUMENTS`; returns its exit code, standard output and standard error."""
    return finish(start(*arguments, cwd=cwd))


def metrics(folder):
    """The lines of a run's metrics, by step; a line that is being written is skipped."""
    try:
        text = (folder / "metrics.jsonl").read_text()
    except FileNotFoundError:
        return {}
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return {line["step"]: line for line in lines}


def wait_for_step(process, folder, step, timeout=60):
    """Waits until a run has logged a step; fails if the run ends earlier."""
    began = time.monotonic()
    while max(metrics(folder), default=0) < step:
        assert process.poll() is None, finish(process)
        assert time.monotonic() - began < timeout
        time.sleep(0.005)


def same_state(first, second):
    """Returns whether two runs ended in bit-equal states and exported equal files."""
    a, b = (checkpoint.load_newest(folder / "checkpoints")[1] for folder in (first, second))
    parts = ("step", "state", "ema", "optimizers", "random")
    exports = [(folder / "generator.safetensors").read_bytes() for folder in (first, second)]
    return all(same_values(a[part], b[part]) for part in parts) and exports[0] == exports[1]


def same_values(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_values(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same_values(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def one_line(result, *parts):
    """Asserts a refusal: exit code 2 and one line that contains all parts."""
    code, _, err = result
    lines = [line for line in err.strip().splitlines() if not line.startswith("warning: ")]
    assert code == 2, err
    assert len(lines) == 1, err
    assert "Traceback" not in err
    for part in parts:
        assert str(part) in err, err
