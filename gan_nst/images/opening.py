"""Opens picture files for both readers: by their content, whole, and as pictures only."""

import contextlib
import stat
import struct
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from PIL import Image, ImageFile

from gan_nst.core.errors import DataError, reason
from gan_nst.images.whole import check_whole

# Formats that Pillow opens but that are no pictures, or whose pixels need another program.
NOT_PICTURES = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "MPEG", "WMF"}

_lock, _readers, _filters = threading.Lock(), 0, contextlib.ExitStack()


@contextlib.contextmanager
def opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """The picture in a file, opened as `Image.open` does, but without its limit of pixels, which is the process's, and
    without the formats that run another program.

    Within the context whatever goes wrong with the file becomes a DataError, one line that names it, and Pillow does
    not warn of odd EXIF and the like: the pixels count. May be called from several threads.
    """
    with _reading(path), _pillow_silenced(), open(path, "rb") as file:
        check_whole(file)
        with _open(file) as image:
            yield image


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Within the context whatever goes wrong with a picture file becomes a DataError, one line that names it."""
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a pipe would keep its reader waiting
            raise DataError("not a file, but a pipe, a socket or a device")
        yield
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (IsADirectoryError, PermissionError) as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # Pillow's plugins raise whatever a broken file makes them stumble over
        raise DataError(f"{path}: not a readable picture ({reason(error)})") from None


@contextlib.contextmanager
def _pillow_silenced() -> Iterator[None]:
    """Within the context Pillow does not warn.

    The filters are the process's, so the first thread to come in sets them and the last to go out resets them.
    """
    global _readers
    with _lock:
        _readers += 1
        if _readers == 1:
            _filters.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        yield
    finally:
        with _lock:
            _readers -= 1
            if _readers == 0:
                _filters.close()


def _open(file: IO[bytes]) -> ImageFile.ImageFile:
    Image.preinit()
    Image.init()
    file.seek(0)
    head = file.read(16)
    if not head:
        raise DataError("not a readable picture (is empty)")
    for name in Image.ID:
        factory, accept = Image.OPEN[name]
        try:
            fits = name not in NOT_PICTURES and (accept is None or accept(head))
            if fits and not isinstance(fits, str):  # a string says why a format is not supported here
                file.seek(0)
                return factory(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue  # how plugins say that it is none of theirs
    raise DataError("not a readable picture (of no known format)")
