"""The translations that visitors choose from, and the translation of what they upload, one image at a time."""

import logging
import os
import re
import secrets
import shutil
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from gan_nst.core.errors import CheckpointError, DataError, GanNstError, SettingsError, reason, writing
from gan_nst.core.options import TranslateOptions, TranslatorOptions
from gan_nst.images.photo import Photo, read_photo
from gan_nst.inference.folder import translate_folder
from gan_nst.inference.translator import Translator
from gan_nst.runs.generators import FILES, list_directions, load_translator

log = logging.getLogger(__name__)

MAX_IMAGES = 20  # at a time
KEPT = 24 * 3600  # seconds until results are deleted, and uploads that nobody uses
_IN_MEMORY = 3  # translators
_PREVIEW = 1600  # pixels at most of a preview's longer side


class Choice(NamedTuple):
    """One translation of a run, a checkpoint or an exported generator, and what visitors see instead of its path."""

    path: Path
    direction: str | None
    label: str


def find_choices(sources: Sequence[Path | str]) -> list[Choice]:
    """Returns the translations of the given runs, checkpoints and files, and of all those found in given folders.

    What cannot be read is skipped in a folder. Raises CheckpointError for a path that does not exist, cannot be read,
    or has nothing to translate with.
    """
    choices: list[Choice] = []
    for source in map(Path, sources):
        is_searched = source.is_dir() and not _is_run(source)
        found: list[Choice] = []
        for path in _find(source) if is_searched else [source]:
            try:
                found += _choices(path)
            except CheckpointError as error:
                if not is_searched:
                    raise
                log.warning(f"{error}; skipped")
        if not found:
            raise CheckpointError(
                f"{source}: no run or generator found (looked for runs and {' '.join(FILES)})"
            )
        choices += found
    return list(dict.fromkeys(choices))


def _is_run(folder: Path) -> bool:
    return (folder / "checkpoints").is_dir()


def _find(folder: Path) -> Iterator[Path]:
    """Yields the runs and exported generators in a folder, the newest run first."""
    for root, folders, files in os.walk(folder):  # does not follow `latest`, which is a link
        folders[:] = sorted((name for name in folders if not name.startswith(".")), reverse=True)
        if _is_run(Path(root)):
            folders.clear()
            yield Path(root)
        else:
            yield from (Path(root, name) for name in sorted(files) if name.endswith(FILES))


def _choices(path: Path) -> list[Choice]:
    """Returns what a source translates. The last folder like photo2cartoon in its path names its domains."""
    title = "/".join(path.absolute().parts[-2 if path.is_file() else -3 :])
    pair = re.search(r".*/([^\W\d_]+)2([^\W\d_]+)/", f"{path.absolute().as_posix()}/")
    names = dict(zip("ab", pair.groups(), strict=True)) if pair else {}
    choices = []
    for direction in list_directions(path):
        domains = " to ".join(names.get(domain, domain) for domain in direction or "")
        choices.append(Choice(path, direction, f"{title}: {domains}" if domains else title))
    return choices


class Result(NamedTuple):
    """A translated image: its file in full quality, and previews of before and after."""

    file: Path
    before: Path
    after: Path


class Jobs:
    """Translates uploads one image at a time, even when several visitors ask.

    folder: where results are written, each in its own folder.
    """

    def __init__(self, choices: Sequence[Choice], folder: Path) -> None:
        self.choices, self.folder = choices, folder
        self._load = lru_cache(_IN_MEMORY)(load_translator)
        self._turn = threading.Lock()

    def translate(self, upload: Path, number: object, options: TranslateOptions) -> Result:
        """Translates an image by the choice of a number. Raises GanNstError: one line that names no folder."""
        if type(number) is not int or not 0 <= number < len(self.choices):
            raise SettingsError("no such run; choose one from the list")
        path, direction, label = self.choices[number]
        loading = TranslatorOptions(device=options.device, precision=options.precision, direction=direction)
        try:
            with self._turn:
                return self._translate(self._load(path, loading), upload, options)
        except CheckpointError as error:
            log.error(str(error))
            raise CheckpointError(f"{label}: cannot be loaded; choose another run") from None
        except GanNstError as error:
            message = re.sub(re.escape(str(self.folder)) + r"/([^/\s]+/)*", "", str(error))
            raise DataError(_with_a_visitors_remedy(message)) from None
        except Exception as error:  # not enough memory to load it, for example
            log.error(f"{upload.name}: {type(error).__name__}: {reason(error)}")
            raise DataError(f"{upload.name}: could not be translated ({type(error).__name__})") from None

    def delete_old(self) -> None:
        """Deletes what is a day old: results, uploads that nobody has used since, and leftovers of cancelled jobs."""
        for entry in self.folder.iterdir():
            with suppress(OSError):  # an upload's temporary file, renamed by now, for example
                newest = max(path.stat().st_mtime for path in (entry, *entry.rglob("*")))
                if newest > time.time() - KEPT:
                    continue
                if entry.is_dir():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink()

    def _translate(self, translator: Translator, upload: Path, options: TranslateOptions) -> Result:
        folder = self.folder / secrets.token_hex(8)
        outcome = translate_folder(translator, upload, folder, options)
        if outcome.failures:
            raise DataError(outcome.failures[0])
        previews = folder / "previews"  # a separate folder: the result may have any name
        result = Result(outcome.written[0], previews / "before.webp", previews / "after.webp")
        with writing(result.file, DataError):
            previews.mkdir()
            for photo, path in ((upload, result.before), (result.file, result.after)):
                preview(read_photo(photo, options.max_pixels)).save(path, quality=90)
        return result


def _with_a_visitors_remedy(message: str) -> str:
    """Returns a message with a remedy that the page offers in place of an option of the command line."""
    remedy = "upload a smaller image" if "--max-pixels" in message else "lower the working size, under More"
    return re.sub(r"; [^;:]*--(memory|max-pixels)\b[^;:]*$", f"; {remedy}", message)


def preview(photo: Photo) -> Image.Image:
    """Returns a photo with 8 bits, over white, no larger than a page needs, without metadata."""
    bits = 8 * photo.pixels.itemsize
    image = Image.fromarray((photo.pixels >> (bits - 8)).astype("uint8"))
    if photo.alpha is not None:
        alpha = Image.fromarray((photo.alpha >> (bits - 8)).astype("uint8"))
        image = Image.composite(image, Image.new("RGB", image.size, "white"), alpha)
    image.thumbnail((_PREVIEW, _PREVIEW))
    return image


def archive(results: Sequence[Result]) -> Path:
    """Writes a ZIP file of all results, uncompressed as images are compressed already, and returns its path.

    Equal names get a number in front. Raises DataError if the file cannot be written.
    """
    path = results[0].file.with_name("all.zip")
    with writing(Path(path.name), DataError), zipfile.ZipFile(path, "w") as file:
        for number, result in enumerate(results, 1):
            name = result.file.name
            while name in file.namelist():
                name = f"{number}-{name}"
            file.write(result.file, name)
    return path
