"""The readers of untrusted files that are fuzzed, and the inputs for each."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fuzz_checkpoints import checkpoints, make_trainer
from fuzz_files import exported_files, image_files
from fuzz_settings import override_texts, settings_files
from hypothesis import strategies as st

from gan_nst.commands.train import load_resumed
from gan_nst.core.errors import CheckpointError, DataError, GanNstError, SettingsError
from gan_nst.core.settings import dump_yaml, read_overrides, validate
from gan_nst.images.files import read_image
from gan_nst.images.photo import read_photo
from gan_nst.inference.exported import load_exported
from gan_nst.methods import base
from gan_nst.runs.generators import averaged_generator
from gan_nst.runs.settings import load_settings, settings_model


@dataclass(frozen=True)
class Reader:
    """inputs: contents for `file` in `folder`. refusals: errors that `read` may raise. names: they name the file."""

    name: str
    folder: Path
    file: str
    inputs: st.SearchStrategy[bytes]
    read: Callable[[Path], object]
    refusals: type[GanNstError] | tuple[type[GanNstError], ...]
    names: bool = True


def readers(folder: Path) -> list[Reader]:
    """All readers, set up in an empty folder."""
    run = folder / "run" / "checkpoints"
    run.mkdir(parents=True)
    trainer, payload = make_trainer(folder / "base")
    trainer._checkpoints = run  # the folder that its errors name

    def resume(file: Path) -> None:
        _, loaded, _ = load_resumed(file.parent.parent, ["device=cpu"])
        for name in loaded["translations"]:
            averaged_generator(loaded, name, file)
        trainer.restore(loaded)
        trainer.train_step([dict(micro_batch) for micro_batch in trainer.example])

    # Its default allows images larger than the memory limit of an input.
    read_photograph = partial(read_photo, largest=2**25)
    texts = (SettingsError, False)
    return [
        Reader("settings", folder, "input.yaml", settings_files(), _load_settings, *texts),
        Reader("overrides", folder, "input.txt", override_texts(), _read_overrides, *texts),
        Reader("checkpoint", run, "step-0000002.pt", checkpoints(payload), resume, CheckpointError),
        Reader("safetensors", folder, "input.safetensors", exported_files(), load_exported, CheckpointError),
        Reader("image", folder, "input.png", image_files(), read_image, DataError),
        Reader("photograph", folder, "input.png", image_files(), read_photograph, DataError),
    ]


def _load_settings(file: Path) -> None:
    settings, _, _ = load_settings(file, ["device=cpu"])
    dump_yaml(settings.model_dump(mode="json"))  # as a run saves them


_MODEL = settings_model(base.find("cyclegan"))


def _read_overrides(file: Path) -> None:
    """Reads texts separated by NULs, which a command line cannot contain."""
    texts = file.read_bytes().decode(errors="surrogateescape").split("\0")
    validate(_MODEL, read_overrides(_MODEL, texts))
