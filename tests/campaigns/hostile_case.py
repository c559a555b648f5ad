"""A hostile case, and the working folder in which it runs."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from children import command
from fuzz_checkpoints import make_trainer
from PIL import Image

from gan_nst.core.settings import dump_yaml

CONFIG = """
method: {name: cyclegan, generator: {width: 2, blocks: 1, downsamplings: 1}, discriminator: {width: 2, layers: 1}}
training: {steps: 3}
data: {a: data/trainA, b: data/trainB, test_a: data/testA, test_b: data/testB, root: data, load_size: 16, crop_size: 16}
evaluation: {features: none, score: none, export: last}
precision: float32
device: cpu
"""
CHECKPOINT = "run/checkpoints/step-0000002.pt"


@dataclass(frozen=True)
class Case:
    """prepare: makes a working folder hostile. run: acts on it and returns an exit code, which must be one of `codes`.
    writes: the paths in the folder that may change. check: returns a problem with what was written, or None.
    """

    kind: str
    name: str
    prepare: Callable[[Path], None]
    run: Callable[[], int]
    codes: tuple[int, ...] = (2,)
    writes: tuple[str, ...] = ()
    check: Callable[[Path], str | None] = field(default=lambda work: None)


def make_base(base: Path) -> None:
    """Creates a folder `work` with a run of two steps, its images and some photographs, and `outside` next to it."""
    work = base / "work"
    for number, name in enumerate(("data/trainA", "data/trainB", "data/testA", "data/testB", "photos")):
        (work / name).mkdir(parents=True)
        source = np.random.default_rng(number)
        for image in range(4):
            Image.fromarray(source.integers(0, 256, (20, 24, 3), np.uint8)).save(work / name / f"{image}.png")
    (base / "outside").mkdir()
    shutil.copy(work / "photos" / "0.png", base / "outside" / "secret.png")
    (base / "outside" / "secret.txt").write_text("secret")
    os.chdir(work)
    trainer, _ = make_trainer(Path("made"), CONFIG)
    (work / "run").mkdir()
    trainer.save("best")
    shutil.rmtree("run/checkpoints", ignore_errors=True)
    os.renames("made", "run/checkpoints")
    Path("run/checkpoints/tiny.yaml").rename("tiny.yaml")
    Path("run/settings.yaml").write_text(dump_yaml(trainer.header["settings"]))
    Path("run/metrics.jsonl").write_text(
        '{"step": 1, "generator/cycle_a": 1.5}\n{"step": 2, "generator/cycle_a": 1.0}\n'
    )
    assert command("export", "run", "--format", "safetensors", "--output", "generator.safetensors") == 0


def nothing(work: Path) -> None:
    """Leaves a folder as it is."""


def write(files: dict[str, str | bytes], work: Path) -> None:
    """Writes files into a folder, replacing what was there."""
    for name, content in files.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).unlink(missing_ok=True)
        (work / name).write_bytes(content.encode() if isinstance(content, str) else content)


def cli(*arguments: object, **environment: str) -> Callable[[], int]:
    """A function that runs `gan-nst ARGUMENTS` with additional environment variables."""

    def run() -> int:
        os.environ.update(environment)
        return command(*arguments)

    return run


TRANSLATE = ("--output", "out", "--device", "cpu", "--precision", "float32")
EVALUATE = ("--device", "cpu", "--precision", "float32")
