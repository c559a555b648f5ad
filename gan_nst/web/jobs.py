"""The translators that visitors choose from, and the translation of what they upload, one image at a time."""

import logging
import os
import re
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import cv2
import numpy as np

from gan_nst.core.errors import CheckpointError, DataError, GanNstError, SettingsError, reason
from gan_nst.core.options import Computing, Encoding, Finish, Naming, TranslatorOptions
from gan_nst.images.photo import Photo, read_photo, write_photo
from gan_nst.inference.exported import read_description
from gan_nst.inference.folder import translate_photo
from gan_nst.inference.outputs import output_name
from gan_nst.inference.translator import Translator
from gan_nst.runs.folder import RUNS, find_run
from gan_nst.runs.generators import FILES, load_translator
from gan_nst.training import checkpoint

log = logging.getLogger(__name__)

MAX_IMAGES = 20  # at a time
_IN_MEMORY = 3  # translators
_PREVIEW = 1600  # pixels at most of a preview's longer side


@dataclass(frozen=True)
class Source:
    """A run, a checkpoint or an exported generator, and the title that visitors see instead of its path."""

    path: Path
    title: str

    @cached_property
    def directions(self) -> list[str | None]:
        """Its translations, "ab" for example; [None] for an exported generator, which has only one."""
        if self.path.is_file() and self.path.suffix in FILES:
            return [None]
        if self.path.is_file():
            return [*checkpoint.load(self.path)["translations"]]
        run = find_run(self.path)
        exported = [_translation(file) for file in sorted(run.glob("generator*.safetensors"))]
        return list(filter(None, exported)) or [
            *checkpoint.load_newest(run / "checkpoints")[1]["translations"]
        ]

    def label(self, direction: str | None) -> str:
        """Returns "photo to cartoon" for "ab" if a folder of the path is called `photo2cartoon`, else "a to b"."""
        if direction is None or len(direction) != 2:
            return direction or "as exported"
        pairs = [part.split("2") for part in self.path.absolute().parts if part.count("2") == 1]
        domains = next(
            (dict(zip("ab", pair, strict=True)) for pair in pairs if all(map(str.isalpha, pair))), {}
        )
        return " to ".join(domains.get(domain, domain) for domain in direction)


class Translators:
    """The sources that visitors choose from by number, and the translators in memory, loaded when first used.

    load: returns the translator of a path and a direction.
    """

    def __init__(self, sources: Sequence[Source], load: Callable[[Path, str | None], Translator]) -> None:
        self.sources = sources
        self._load = lru_cache(_IN_MEMORY)(load)

    def directions(self, number: object) -> list[tuple[str, str]]:
        """Returns the labels of a source's directions with the values to ask for them. Raises GanNstError."""
        source = self._source(number)
        with _without_folders(source):
            return [(source.label(direction), direction or "") for direction in source.directions]

    def get(self, number: object, direction: object) -> Translator:
        """Returns the translator that a visitor asks for. Raises GanNstError."""
        source = self._source(number)
        with _without_folders(source):
            known = {value or "": value for value in source.directions}
            if not isinstance(direction, str) or direction not in known:
                raise SettingsError("this run has no such direction; choose one from the list")
            return self._load(source.path, known[direction])

    def _source(self, number: object) -> Source:
        if type(number) is not int or not 0 <= number < len(self.sources):
            raise SettingsError("no such run; choose one from the list")
        return self.sources[number]


@contextmanager
def _without_folders(source: Source) -> Iterator[None]:
    """Logs why a source cannot be loaded; the error that visitors see names no folder of this machine."""
    try:
        yield
    except CheckpointError as error:
        log.error(str(error))
        raise CheckpointError(f"{source.title}: cannot be loaded; choose another run") from None


def find_translators(runs: Sequence[Path | str], computing: Computing = Computing()) -> Translators:
    """Returns the translators of the given runs, checkpoints and files, and of all those found in given folders.

    Raises CheckpointError for a path that does not exist or has nothing to translate with.
    """
    sources: dict[Path, str] = {}
    for given in map(Path, runs):
        for path in [given] if _translates(given) else _find(given):
            sources.setdefault(path, _title(path))
    return Translators(
        [Source(path, title) for path, title in sources.items()],
        lambda path, direction: load_translator(
            path,
            TranslatorOptions(device=computing.device, precision=computing.precision, direction=direction),
        ),
    )


def _find(folder: Path) -> list[Path]:
    """Returns the runs and exported generators in a folder, the newest run first."""
    if not folder.exists():
        raise CheckpointError(f"{folder}: no such run, file or folder")
    found: list[Path] = []
    for root, folders, files in os.walk(folder):  # does not follow `latest`, which is a link
        folders[:] = sorted((name for name in folders if not name.startswith(".")), reverse=True)
        if _translates(Path(root)):
            found.append(Path(root))
            folders.clear()
        else:
            found += filter(_is_generator, (Path(root, name) for name in sorted(files)))
    if not found:
        raise CheckpointError(f"{folder}: no run or generator found (looked for runs and {' '.join(FILES)})")
    return found


def _is_generator(path: Path) -> bool:
    if path.suffix == ".safetensors" and _translation(path) is None:
        log.warning(f"{path}: skipped, not a readable generator")
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
    """Returns the path below the folder of runs, or else its last two parts."""
    try:
        return path.absolute().relative_to(RUNS.absolute()).as_posix()
    except ValueError:
        return "/".join(path.absolute().parts[-2:])


def _translation(file: Path) -> str | None:
    """Returns what an exported generator translates, None for any other file."""
    try:
        return read_description(file).translation
    except CheckpointError:
        return None


@dataclass(frozen=True)
class Result:
    """A translated image: its file in full quality, and previews of before and after."""

    file: Path
    before: Path
    after: Path


class Jobs:
    """Translates uploads one image at a time, even when several visitors ask.

    folder: where results are written, each in a folder of its own. max_pixels: of an image.
    """

    def __init__(self, translators: Translators, folder: Path, max_pixels: int) -> None:
        self.translators, self.folder, self.max_pixels = translators, folder, max_pixels
        self._turn = threading.Lock()

    def run(
        self, uploads: Sequence[str], number: object, direction: object, finish: Finish, naming: Naming
    ) -> Iterator[Result | str]:
        """Yields the result of each upload, or one line that says why it failed. Raises DataError before the first."""
        if not uploads:
            raise DataError("no image yet; drop one first")
        if len(uploads) > MAX_IMAGES:
            raise DataError(f"{len(uploads)} images; translate at most {MAX_IMAGES} at a time")
        for path in map(Path, uploads):
            try:
                with self._turn:
                    made: Result | str = self._translate(path, number, direction, finish, naming)
            except GanNstError as error:  # without this machine's folders
                made = re.sub(re.escape(str(self.folder)) + r"/([^/\s]+/)*", "", str(error))
            except Exception as error:  # an image that a network fails on must not stop the page
                log.error(f"{path.name}: {type(error).__name__}: {reason(error)}")
                made = f"{path.name}: could not be translated ({type(error).__name__})"
            yield made

    def _translate(
        self, path: Path, number: object, direction: object, finish: Finish, naming: Naming
    ) -> Result:
        translator = self.translators.get(number, direction)
        photo = read_photo(path, self.max_pixels)
        translated = translate_photo(translator, photo, finish)
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        previews = folder / "previews"  # a folder of their own: the result may have any name
        previews.mkdir()
        result = Result(
            folder / output_name(Path(path.name), naming), previews / "before.webp", previews / "after.webp"
        )
        write_photo(translated, result.file)
        write_photo(preview(photo), result.before, Encoding(quality=90))
        write_photo(preview(translated), result.after, Encoding(quality=90))
        return result


def preview(photo: Photo) -> Photo:
    """Returns a photo of 8 bits, over white, no larger than a page needs, without metadata."""
    height, width = photo.pixels.shape[:2]
    scale = min(1.0, _PREVIEW / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    largest = np.iinfo(photo.pixels.dtype).max

    def shrink(values: np.ndarray) -> np.ndarray:
        small = cv2.resize(values, size, interpolation=cv2.INTER_AREA) if scale < 1 else values
        return small.astype(np.float32) / largest

    pixels = shrink(photo.pixels)
    if photo.alpha is not None:
        pixels = 1 + (pixels - 1) * shrink(photo.alpha)[..., None]
    return Photo((pixels * 255).round().astype(np.uint8))


def archive(results: Sequence[Result], folder: Path) -> Path:
    """Writes a ZIP file of all results into a folder and returns its path. Equal names get a number in front."""
    path = folder / "all.zip"
    taken: set[str] = set()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:  # images are compressed already
        for at, result in enumerate(results, 1):
            name = result.file.name
            while name in taken:
                name = f"{at}-{name}"
            taken.add(name)
            file.write(result.file, name)
    return path
