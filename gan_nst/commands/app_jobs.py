"""What the page does with pictures that were uploaded: translates them one at a time, and keeps the results a while."""

import logging
import re
import secrets
import threading
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from gan_nst.commands.app_runs import Offer
from gan_nst.errors import DataError, GanNstError
from gan_nst.inference.finishing.finish import Finish
from gan_nst.inference.folder.outputs import Naming
from gan_nst.inference.folder.translate import translate_photo
from gan_nst.photo import Encoding, Photo, read_photo, write_photo

log = logging.getLogger(__name__)

_SHOWN = 1600  # pixels at most of a preview's longer side


@dataclass(frozen=True)
class Result:
    """A translated picture: its file in full quality, and previews of before and after."""

    file: Path
    before: Path
    after: Path


class Store:
    """A folder of uploads and results that does not outgrow `largest` bytes: the oldest files go first."""

    def __init__(self, folder: Path, largest: int) -> None:
        self.folder = folder.resolve()
        self.largest = largest

    def make_room(self) -> None:
        """Deletes the oldest files, and folders left empty, until the rest is at most `largest` bytes."""
        found = [(path, path.lstat()) for path in self.folder.rglob("*") if not path.is_dir()]
        total = sum(about.st_size for _, about in found)
        for path, about in sorted(found, key=lambda pair: pair[1].st_mtime):
            if total <= self.largest:
                return
            path.unlink(missing_ok=True)
            total -= about.st_size

    def new_folder(self) -> Path:
        """An empty folder whose name nobody guesses."""
        folder = self.folder / "results" / secrets.token_hex(16)
        folder.mkdir(parents=True)
        return folder

    def uploaded(self, name: object) -> Path:
        """The file of an upload. Raises DataError for what is no file of this folder, whatever it points to."""
        try:
            path = Path(str(name)).resolve()
            if self.folder in path.parents and path.is_file():
                return path
        except (OSError, ValueError, RuntimeError):
            pass
        raise DataError("no such upload here; drop the picture again")


class Jobs:
    """Translates uploads with the translators of an offer, one picture at a time whoever asks.

    largest: pixels of a picture. upload: bytes of its file. count: pictures at a time.
    """

    def __init__(self, offer: Offer, store: Store, largest: int, upload: int, count: int) -> None:
        self.offer, self.store = offer, store
        self.largest, self.upload, self.count = largest, upload, count
        self._turn = threading.Lock()

    def run(
        self, uploads: Sequence[object], number: object, direction: object, finish: Finish, naming: Naming
    ) -> Iterator[Result | str]:
        """For each upload its result, or one line that says why there is none. Raises GanNstError before the first."""
        if not uploads:
            raise DataError("no picture yet; drop one first")
        if len(uploads) > self.count:
            raise DataError(f"{len(uploads)} pictures; this page takes {self.count} at a time")
        paths = [self.store.uploaded(upload) for upload in uploads]
        self.store.make_room()
        folder = self.store.new_folder()
        for at, path in enumerate(paths):
            try:
                with self._turn:
                    made: Result | str = self._one(path, folder / str(at), number, direction, finish, naming)
            except Exception as error:  # whatever a picture does to a network, the page goes on
                made = self._line(error, path)
            yield made

    def _one(
        self, path: Path, folder: Path, number: object, direction: object, finish: Finish, naming: Naming
    ) -> Result:
        translator = self.offer.translator(number, direction)
        photo = read_photo(path, self.largest)
        translated = translate_photo(translator, photo, finish)
        result = Result(folder / naming.plain(Path(path.name)), folder / "before.webp", folder / "after.webp")
        folder.mkdir()
        write_photo(translated, result.file)
        write_photo(preview(photo), result.before, Encoding(quality=90))
        write_photo(preview(translated), result.after, Encoding(quality=90))
        return result

    def _line(self, error: Exception, path: Path) -> str:
        """What a visitor is told: one line, without this machine's folders."""
        if isinstance(error, GanNstError):
            return re.sub(re.escape(str(self.store.folder)) + r"/([^/\s]+/)*", "", str(error))
        log.error(f"{path.name}: {type(error).__name__}: {' '.join(str(error).split())}")
        return f"{path.name}: could not be translated ({type(error).__name__})"


def preview(photo: Photo) -> Photo:
    """The photo as a page shows it: 8 bits, over white, of a bounded size, nothing else in it."""
    height, width = photo.pixels.shape[:2]
    scale = min(1.0, _SHOWN / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    most = np.iinfo(photo.pixels.dtype).max

    def small(values: np.ndarray) -> np.ndarray:
        shown = cv2.resize(values, size, interpolation=cv2.INTER_AREA) if scale < 1 else values
        return shown.astype(np.float32) / most

    pixels = small(photo.pixels)
    if photo.alpha is not None:
        pixels = 1 + (pixels - 1) * small(photo.alpha)[..., None]
    return Photo((pixels * 255).round().astype(np.uint8))


def archive(results: Sequence[Result], folder: Path) -> Path:
    """One ZIP file of all results, names made different where they are not."""
    path = folder / "all.zip"
    taken: set[str] = set()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:  # pictures are compressed already
        for at, result in enumerate(results, 1):
            name = result.file.name if result.file.name not in taken else f"{at}-{result.file.name}"
            taken.add(name)
            file.write(result.file, name)
    return path
