"""The translators that the page offers: found under what was given, loaded when first asked for, a few kept."""

import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from gan_nst.core.errors import CheckpointError, SettingsError
from gan_nst.core.options import Computing, TranslatorOptions
from gan_nst.inference.exported import read_description
from gan_nst.inference.translator import Translator
from gan_nst.runs.folder import RUNS, find_run
from gan_nst.runs.generators import FILES, load_translator
from gan_nst.training import checkpoint

log = logging.getLogger(__name__)

_KEPT = 3  # translators in memory


@dataclass(frozen=True)
class Source:
    """What translates: a run, a checkpoint or an exported generator's file, and what visitors see of its path."""

    path: Path
    title: str

    @cached_property
    def directions(self) -> list[str | None]:
        """Its translations, "ab" for example; [None] is a file's only one, whatever it is."""
        if self.path.is_file() and self.path.suffix in FILES:
            return [None]
        if self.path.is_file():
            return [*checkpoint.load(self.path)["translations"]]
        run = find_run(self.path)
        exported = [_translation(file) for file in sorted(run.glob("generator*.safetensors"))]
        return list(filter(None, exported)) or [
            *checkpoint.load_newest(run / "checkpoints")[1]["translations"]
        ]

    def wording(self, direction: str | None) -> str:
        """A direction in words: "photo to cartoon" where the run lies in a domain of such a name, else "a to b"."""
        if direction is None or len(direction) != 2:
            return direction or "as its file says"
        named = [part.split("2") for part in self.path.absolute().parts if part.count("2") == 1]
        domains = next(
            (dict(zip("ab", names, strict=True)) for names in named if all(map(str.isalpha, names))), {}
        )
        return " to ".join(domains.get(domain, domain) for domain in direction)


class Offer:
    """The sources that visitors choose from, by their number, and the few translators that are in memory.

    load: makes a translator of a path and a direction.
    """

    def __init__(self, sources: Sequence[Source], load: Callable[[Path, str | None], Translator]) -> None:
        self.sources = sources
        self._load = load
        self._kept: OrderedDict[tuple[int, str | None], Translator] = OrderedDict()

    def directions(self, number: object) -> list[tuple[str, str]]:
        """A source's directions in words, and the texts by which they are asked for. Raises GanNstError."""
        source = self.sources[self._known(number)]
        with _without_folders(source):
            return [(source.wording(direction), direction or "") for direction in source.directions]

    def translator(self, number: object, direction: object) -> Translator:
        """The translator of a source and a direction, both of which came from a visitor. Raises GanNstError."""
        at = self._known(number)
        source = self.sources[at]
        with _without_folders(source):
            known = {given or "": given for given in source.directions}
            if not isinstance(direction, str) or direction not in known:
                raise SettingsError(
                    "this run does not translate in that direction; choose one of those shown"
                )
            chosen = known[direction]
            if (at, chosen) not in self._kept:
                while len(self._kept) >= _KEPT:
                    self._kept.popitem(last=False)  # before the next one needs the memory
                self._kept[at, chosen] = self._load(source.path, chosen)
        self._kept.move_to_end((at, chosen))
        return self._kept[at, chosen]

    def _known(self, number: object) -> int:
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(self.sources):
            raise SettingsError("no such run here; choose one of those shown")
        return number


@contextmanager
def _without_folders(source: Source) -> Iterator[None]:
    """What cannot be loaded is logged as it is; a visitor is not told this machine's folders."""
    try:
        yield
    except CheckpointError as error:
        log.error(str(error))
        raise CheckpointError(f"{source.title}: cannot be loaded now; choose another") from None


def make_offer(runs: Sequence[Path | str], computing: Computing = Computing()) -> Offer:
    """The runs, checkpoints and files given, and for a folder all that translates under it.

    Raises CheckpointError for what does not exist or holds nothing that translates.
    """
    sources: dict[Path, str] = {}
    for given in map(Path, runs):
        for path in [given] if _translates(given) else _under(given):
            sources.setdefault(path, _title(path))
    return Offer(
        [Source(path, title) for path, title in sources.items()],
        lambda path, direction: load_translator(
            path,
            TranslatorOptions(device=computing.device, precision=computing.precision, direction=direction),
        ),
    )


def _under(folder: Path) -> list[Path]:
    if not folder.exists():
        raise CheckpointError(f"{folder}: no such run, file or folder")
    found: list[Path] = []
    for root, folders, files in os.walk(folder):  # `latest` is a link, and not followed
        folders[:] = sorted(
            (name for name in folders if not name.startswith(".")), reverse=True
        )  # newest first
        if _translates(Path(root)):
            found.append(Path(root))
            folders.clear()
        else:
            found += filter(_is_offered, (Path(root, name) for name in sorted(files)))
    if not found:
        raise CheckpointError(
            f"{folder}: nothing that translates here (looked for runs and {' '.join(FILES)})"
        )
    return found


def _is_offered(path: Path) -> bool:
    """Whether a file found in a folder is an exported generator, as far as its name and its header say."""
    if path.suffix == ".safetensors" and _translation(path) is None:
        log.warning(f"{path}: left out, as it holds no generator that can be read")
        return False
    return path.suffix in FILES


def _translates(path: Path) -> bool:
    if path.is_file():
        return path.suffix in (*FILES, ".pt")
    checkpoints = path / "checkpoints"
    return checkpoints.is_dir() and (
        any(path.glob("generator*.safetensors")) or any(checkpoints.glob("*.pt"))
    )


def _title(path: Path) -> str:
    """What visitors see of a path: below the folder of runs, or the name and its folder's; nothing of the machine."""
    try:
        return path.absolute().relative_to(RUNS.absolute()).as_posix()
    except ValueError:
        return "/".join(path.absolute().parts[-2:])


def _translation(file: Path) -> str | None:
    """What an exported generator's file translates; None for a file that is none."""
    try:
        return read_description(file).translation
    except CheckpointError:
        return None
