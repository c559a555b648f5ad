"""The tiny training that the campaigns kill and deprive of disk space, and checks of how it ended."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import yaml
from children import Child, command
from helpers_runs import CONFIG, TINY, metrics, same_state
from PIL import Image
from safetensors import safe_open

from gan_nst.data.cache import read_entries
from gan_nst.data.demo import make_demo
from gan_nst.runs.folder import RUNS

STEPS, SAVED_EVERY = 12, 3
OVERRIDES = [
    *TINY,
    f"training.steps={STEPS}",
    f"training.checkpoint_every={SAVED_EVERY}",
    "training.sample_every=6",
    "evaluation.every=6",
]


def import_all() -> None:
    """Imports what training, evaluation and export import lazily, so that children need not."""
    import albumentations  # noqa: F401
    import matplotlib.backends.backend_svg  # noqa: F401
    import rich.progress  # noqa: F401
    import torch._dynamo
    import torch.utils.tensorboard  # noqa: F401

    import gan_nst.commands.curves
    import gan_nst.commands.export
    import gan_nst.commands.train
    import gan_nst.commands.translate
    import gan_nst.diagnosis.figure  # noqa: F401


class Job:
    """Trainings on the same images with the same settings, each in its own folder below `base`.

    reference: the run of an undisturbed training.
    """

    def __init__(self, base: Path, held_out: int = 2) -> None:
        self.base = base
        self._images = base / "images"
        make_demo(self._images, size=32, count=8, held_out=held_out)
        self.reference = self._undisturbed()

    def place(self, name: str) -> Path:
        """Makes a new folder to train in, with a data set that has no cache yet."""
        place = self.base / name
        (place / "datasets").mkdir(parents=True)
        (place / "datasets" / "photo2cartoon").symlink_to(self._images)
        return place

    def begin(self, place: Path, *more: str, prepare=None) -> Child:
        """Starts a new training in a folder; `prepare()` runs before it in the same process."""
        return Child(_prepared, prepare, "train", CONFIG, *OVERRIDES, *more, cwd=place)

    def resume(self, place: Path, *more: str, prepare=None) -> Child:
        """Resumes the newest run in a folder, or starts a new one if none has a checkpoint."""
        run = newest_run(place)
        if run is None:
            return self.begin(place, *more, prepare=prepare)
        return Child(_prepared, prepare, "train", "--resume", run, *more, cwd=place)

    def problem(self, place: Path) -> str | None:
        """Describes how the newest run in a folder differs from the reference; None if it does not."""
        run = newest_run(place)
        if run is None:
            return "no run"
        if not same_state(self.reference, run):
            return "the state differs from that of the undisturbed run"
        if losses(run) != losses(self.reference):
            return "the metrics differ from those of the undisturbed run"
        left = unfinished(place)
        return f"left behind: {left}" if left else partial(place)

    def _undisturbed(self) -> Path:
        place = self.place("undisturbed")
        ending = self.begin(place, "data.workers=1").wait(120)
        if ending.value != 0:
            raise SystemExit(f"the undisturbed run failed: {ending.problem}\n{ending.output}")
        run = newest_run(place)
        assert run is not None
        return run


def _prepared(prepare, *arguments: object) -> int:
    if prepare is not None:
        prepare()
    return command(*arguments)


def newest_run(place: Path) -> Path | None:
    """The newest run in a folder that can be resumed."""
    runs = [path.parent.parent for path in place.glob(f"{RUNS}/*/*/*/checkpoints/step-*.pt")]
    real = {run for run in runs if not run.is_symlink()}
    return max(real, key=lambda run: (run.stat().st_ctime_ns, run.name), default=None)


def lost(place: Path) -> str | None:
    """Describes a checkpoint that a run in a folder must have saved but lacks; a step is logged before it is saved."""
    for path in place.glob("runs/*/*/*/metrics.jsonl"):
        run = path.parent
        last = max(metrics(run), default=0)
        saved = max((int(file.stem[5:]) for file in run.glob("checkpoints/step-*.pt")), default=-1)
        if last and saved < (due := (last - 1) // SAVED_EVERY * SAVED_EVERY):
            return f"step {last} was reached, but there is no checkpoint of step {due} or later"
    return None


def losses(run: Path) -> dict[int, dict[str, float]]:
    """The metrics of a run without speed and memory."""
    return {
        step: {key: value for key, value in line.items() if not key.startswith(("speed", "memory"))}
        for step, line in metrics(run).items()
    }


def unfinished(place: Path) -> list[str]:
    """Temporary files that were left in a folder."""
    left = [path for path in place.rglob("*") if path.name.endswith(".part")]
    return [str(path.relative_to(place)) for path in left]


def partial(place: Path) -> str | None:
    """Describes the first file under its final name that is incomplete; None if all are complete."""
    for path in sorted(place.rglob("*")):
        if not path.is_file() or any(part.endswith(".part") for part in path.parts):
            continue
        try:
            _read_completely(path)
        except Exception as error:
            return f"{path.relative_to(place)} is incomplete: {error}"
    return None


def _read_completely(path: Path) -> None:
    if path.suffix == ".pt":
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
    elif path.suffix == ".safetensors":
        with safe_open(path, "np") as file:
            assert all(np.isfinite(file.get_tensor(name)).all() for name in file.keys())  # noqa: SIM118
    elif path.suffix == ".png":
        with Image.open(path) as image:
            image.load()
    elif path.parent.name == ".cache" and path.suffix == ".bin":
        assert read_entries(path)
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".yaml":
        assert "training" in yaml.safe_load(path.read_text())
    elif path.suffix == ".html":
        assert path.read_text().rstrip().endswith("</html>")


def clear(place: Path) -> None:
    """Removes a folder that is no longer needed."""
    shutil.rmtree(place, ignore_errors=True)
