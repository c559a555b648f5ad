"""What the page does with images that were uploaded: translates them one at a time, and keeps the results a while."""

import contextlib
import logging
import os
import re
import secrets
import shutil
import threading
import zipfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from gan_nst.core.errors import DataError, GanNstError
from gan_nst.core.options import Encoding, Finish, Naming
from gan_nst.images.photo import Photo, read_photo, write_photo
from gan_nst.inference.folder import translate_photo
from gan_nst.inference.outputs import output_name
from gan_nst.web.gate import file_in
from gan_nst.web.offer import Offer

log = logging.getLogger(__name__)

_SHOWN = 1600  # pixels at most of a preview's longer side


@dataclass(frozen=True)
class Result:
    """A translated image: its file in full quality, and previews of before and after."""

    file: Path
    before: Path
    after: Path


class Store:
    """A folder of uploads and results that does not outgrow `largest` bytes: the oldest files go first."""

    def __init__(self, folder: Path, largest: int) -> None:
        self.folder = folder.resolve()
        self.largest = largest
        self._lock = threading.Lock()  # uploads and translations make room from threads of their own

    def make_room(self, keep: Collection[Path] = ()) -> bool:
        """Deletes the oldest files, and the folders that leaves empty, until the rest is at most `largest` bytes.

        keep: files and folders that stay, whatever their age. Returns whether the rest is that small now.
        """
        stays = set(keep)
        with self._lock:
            found = sorted(self._files())
            total = sum(size for _, size, _ in found)
            for _, size, path in found:
                if total <= self.largest:
                    break
                if stays.isdisjoint((path, *path.parents)):
                    self._delete(path)
                    total -= size
        return total <= self.largest

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """When each file was written, its bytes, and its path; what vanishes meanwhile is passed over."""
        for folder, _, names in os.walk(self.folder):
            for path in (Path(folder, name) for name in names):
                with contextlib.suppress(FileNotFoundError):
                    about = path.lstat()
                    yield about.st_mtime, about.st_size, path

    def _delete(self, path: Path) -> None:
        """Deletes a file, and the folders it was the last one in; new folders, still empty, are somebody's."""
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty
            while (path := path.parent) != self.folder:
                path.rmdir()

    def new_folder(self) -> Path:
        """An empty folder whose name nobody guesses."""
        folder = self.folder / "results" / secrets.token_hex(16)
        with self._lock:
            folder.mkdir(parents=True)
        return folder

    def uploaded(self, name: object) -> Path:
        """The file of an upload. Raises DataError for what is no file of this folder, whatever it points to."""
        path = file_in(self.folder, name)
        if path is None:
            raise DataError("no such upload here; drop the image again")
        return path


class Jobs:
    """Translates uploads with the translators of an offer, one image at a time whoever asks.

    largest: pixels of an image. upload: bytes of its file. count: images at a time.
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
            raise DataError("no image yet; drop one first")
        if len(uploads) > self.count:
            raise DataError(f"{len(uploads)} images; this page takes {self.count} at a time")
        paths = [self.store.uploaded(upload) for upload in uploads]
        kept = set(paths)
        self.store.make_room(kept)
        for path in paths:
            try:
                with self._turn:
                    made: Result | str = self._one(path, kept, number, direction, finish, naming)
            except Exception as error:  # whatever an image does to a network, the page goes on
                made = self._line(error, path)
            yield made

    def _one(
        self, path: Path, kept: set[Path], number: object, direction: object, finish: Finish, naming: Naming
    ) -> Result:
        """The result, whose folder joins those that are kept. Raises DataError where the store has no room for it."""
        translator = self.offer.translator(number, direction)
        photo = read_photo(path, self.largest)
        translated = translate_photo(translator, photo, finish)
        folder = self.store.new_folder()
        previews = folder / "previews"  # apart from the result, which may be called anything
        previews.mkdir()
        result = Result(
            folder / output_name(Path(path.name), naming), previews / "before.webp", previews / "after.webp"
        )
        try:
            write_photo(translated, result.file)
            write_photo(preview(photo), result.before, Encoding(quality=90))
            write_photo(preview(translated), result.after, Encoding(quality=90))
            if not self.store.make_room({*kept, folder}):
                raise DataError(
                    f"{path.name}: no room for its result; translate fewer or smaller images at a time"
                )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        kept.add(folder)
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
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:  # images are compressed already
        for at, result in enumerate(results, 1):
            name = result.file.name
            while name in taken:
                name = f"{at}-{name}"
            taken.add(name)
            file.write(result.file, name)
    return path
