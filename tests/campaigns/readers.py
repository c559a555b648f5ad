"""What is fuzzed: the readers of files from elsewhere, and for each the inputs that it is given."""

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
    """inputs: contents of a file of that name in that folder. refusals: what `read` may raise; names: naming it."""

    name: str
    folder: Path
    file: str
    inputs: st.SearchStrategy[bytes]
    read: Callable[[Path], object]
    refusals: type[GanNstError] | tuple[type[GanNstError], ...]
    names: bool = True


def readers(folder: Path) -> list[Reader]:
    """All of them, in an empty folder."""
    run = folder / "run" / "checkpoints"
    run.mkdir(parents=True)
    trainer, whole = make_trainer(folder / "base")
    trainer._checkpoints = run  # which its errors name

    def go_on(file: Path) -> None:
        _, payload, _ = load_resumed(file.parent.parent, ["device=cpu"])
        for name in payload["translations"]:
            averaged_generator(payload, name, file)
        trainer.restore(payload)
        trainer.train_step([dict(micro_batch) for micro_batch in trainer.example])

    # By itself it allows images that take more than an input may.
    read_photograph = partial(read_photo, largest=2**25)
    texts = (SettingsError, False)
    return [
        Reader("settings", folder, "input.yaml", settings_files(), _load_settings, *texts),
        Reader("overrides", folder, "input.txt", override_texts(), _read_overrides, *texts),
        Reader("checkpoint", run, "step-0000002.pt", checkpoints(whole), go_on, CheckpointError),
        Reader("safetensors", folder, "input.safetensors", exported_files(), load_exported, CheckpointError),
        Reader("image", folder, "input.png", image_files(), read_image, DataError),
        Reader("photograph", folder, "input.png", image_files(), read_photograph, DataError),
    ]


def _load_settings(file: Path) -> None:
    settings, _, _ = load_settings(file, ["device=cpu"])
    dump_yaml(settings.model_dump(mode="json"))  # as a run saves them


_MODEL = settings_model(base.find("cyclegan"))


def _read_overrides(file: Path) -> None:
    """Texts between NULs, which a command line cannot hold."""
    texts = file.read_bytes().decode(errors="surrogateescape").split("\0")
    validate(_MODEL, read_overrides(_MODEL, texts))
