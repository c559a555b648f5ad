"""The tiny training that is killed and starved of disk, and how its end is judged."""

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

from gan_nst.data.cache import read_manifest
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
    """Imports what a training, an evaluation and an export import on their way, so that children need not."""
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
    """Trainings on the same images and settings, each in a place of its own under `base`."""

    def __init__(self, base: Path, held_out: int = 2) -> None:
        self.base = base
        self._images = base / "images"
        make_demo(self._images, size=32, count=8, held_out=held_out)
        self.whole = self._undisturbed()

    def place(self, name: str) -> Path:
        """A new folder to train in, with a data set that has no cache yet."""
        place = self.base / name
        (place / "datasets").mkdir(parents=True)
        (place / "datasets" / "photo2cartoon").symlink_to(self._images)
        return place

    def begin(self, place: Path, *more: str, prepare=None) -> Child:
        """A new training in a place; `prepare()` runs before it in its process."""
        return Child(_prepared, prepare, "train", CONFIG, *OVERRIDES, *more, cwd=place)

    def go_on(self, place: Path, *more: str, prepare=None) -> Child:
        """Goes on with the newest run in a place, or begins one where none has a checkpoint."""
        run = newest_run(place)
        if run is None:
            return self.begin(place, *more, prepare=prepare)
        return Child(_prepared, prepare, "train", "--resume", run, *more, cwd=place)

    def problem(self, place: Path) -> str | None:
        """What is wrong with the newest run in a place that should have ended as an undisturbed one does."""
        run = newest_run(place)
        if run is None:
            return "no run"
        if not same_state(self.whole, run):
            return "another state than that of the undisturbed run"
        if losses(run) != losses(self.whole):
            return "other metrics than those of the undisturbed run"
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
    """The newest run in a place that can be resumed."""
    runs = [path.parent.parent for path in place.glob(f"{RUNS}/*/*/*/checkpoints/step-*.pt")]
    real = {run for run in runs if not run.is_symlink()}
    return max(real, key=lambda run: (run.stat().st_ctime_ns, run.name), default=None)


def lost(place: Path) -> str | None:
    """What a run in a place has lost of what it had saved; None when nothing. A step is saved after it is logged."""
    for path in place.glob("runs/*/*/*/metrics.jsonl"):
        run = path.parent
        last = max(metrics(run), default=0)
        saved = max((int(file.stem[5:]) for file in run.glob("checkpoints/step-*.pt")), default=-1)
        if last and saved < (due := (last - 1) // SAVED_EVERY * SAVED_EVERY):
            return f"step {last} was reached, and of step {due} or a later one there is no checkpoint"
    return None


def losses(run: Path) -> dict[int, dict[str, float]]:
    """What a run logged of the training itself, not of speed and memory."""
    return {
        step: {key: value for key, value in line.items() if not key.startswith(("speed", "memory"))}
        for step, line in metrics(run).items()
    }


def unfinished(place: Path) -> list[str]:
    """Temporary files that lie in a place: those of writing, and caches that no manifest points to."""
    left = [path for path in place.rglob("*") if path.name.endswith(".part") or ".latest-" in path.name]
    known = {read_manifest(path).data for path in place.glob("datasets/.cache/*.npz")}
    left += [path for path in place.glob("datasets/.cache/*.bin") if path.name not in known]
    return [str(path.relative_to(place)) for path in left]


def partial(place: Path) -> str | None:
    """The first file under its final name that is not whole, and what is wrong with it; None when all are."""
    for path in sorted(place.rglob("*")):
        if not path.is_file() or any(part.endswith(".part") for part in path.parts):
            continue
        try:
            _read_whole(path)
        except Exception as error:
            return f"{path.relative_to(place)} is not whole: {error}"
    return None


def _read_whole(path: Path) -> None:
    if path.suffix == ".pt":
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
    elif path.suffix == ".safetensors":
        with safe_open(path, "np") as file:
            assert all(np.isfinite(file.get_tensor(name)).all() for name in file.keys())  # noqa: SIM118
    elif path.suffix == ".png":
        with Image.open(path) as image:
            image.load()
    elif path.parent.name == ".cache" and path.suffix == ".npz":
        assert read_manifest(path).entries
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".yaml":
        assert "training" in yaml.safe_load(path.read_text())
    elif path.suffix == ".html":
        assert path.read_text().rstrip().endswith("</html>")


def clear(place: Path) -> None:
    """Removes a place that is done with."""
    shutil.rmtree(place, ignore_errors=True)
