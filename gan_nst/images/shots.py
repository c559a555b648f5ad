"""A film's frames, or a folder's pictures, one after the other as photos with their times."""

import logging
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from gan_nst.core.errors import DataError
from gan_nst.images.form import Form, form_of, upright
from gan_nst.images.photo import LARGEST, Photo, read_photo
from gan_nst.images.video import Film, stamp

log = logging.getLogger(__name__)

_SLACK = 1e-6  # seconds that decimal times are off by


class Shot(NamedTuple):
    """A picture of a film, upright. pts, duration: in the form's ticks. share: of the work that is done with it.

    file: where it was read from, if it was a file of its own.
    """

    photo: Photo
    form: Form
    pts: int
    duration: int
    share: float
    file: Path | None = None


class Footage:
    """Every `every`-th frame of a film, of those from `start` to before `end`, in seconds.

    Raises DataError when the file is no film, and when the part has no frame.
    """

    def __init__(self, path: Path, every: int = 1, start: float = 0.0, end: float = math.inf) -> None:
        self.film = Film(path)
        self.faults = self.film.faults
        self._every, self._start, self._end = every, start, end

    def close(self) -> None:
        self.film.close()

    def shots(self) -> Iterator[Shot]:
        film, form, number = self.film, None, 0
        last = min(self._end, film.seconds or math.inf)
        for time, frame in film.frames(self._start, self._end, shown=False):
            number += 1
            if (number - 1) % self._every:
                continue
            if form is None:
                form = form_of(film, frame)
                form = replace(form, rate=form.rate / self._every)
            tick = form.tick
            pts = frame.pts if frame.pts is not None else round((film.start + time) / float(tick))
            length = min((frame.duration * tick or 1 / film.rate) * self._every, max(last - time, 0.001))
            photo = Photo(upright(form.decode(frame), form.turn))
            share = (time - self._start) / (last - self._start) if last < math.inf else 0.0
            yield Shot(photo, form, pts, max(1, round(length / tick)), min(max(share, 0.0), 1.0))
        if number == 0:
            about = f"; it is {stamp(film.seconds)} long" if film.seconds else ""
            raise DataError(f"{film.path}: no frame after {stamp(self._start)}{about}")


class Stills:
    """The pictures of a folder, in the order that the numbers in their names have, as `rate` frames a second.

    every, start, end: see Footage. largest: pixels that a picture may have. same: leave out pictures of other sizes
    than the first. What is left out is a fault, and in a film the picture before it is held. Raises DataError when
    there is none.
    """

    def __init__(
        self,
        folder: Path,
        files: list[Path],
        rate: Fraction,
        every: int = 1,
        start: float = 0.0,
        end: float = math.inf,
        *,
        largest: int = LARGEST,
        same: bool = False,
    ) -> None:
        self.folder = folder
        self.faults: list[str] = []
        self._largest = largest
        numbered = enumerate(sorted(files, key=_natural))
        part = [(number, file) for number, file in numbered if start - _SLACK <= number / rate < end - _SLACK]
        self._files, self._rate, self._every, self._same = part[::every], rate, every, same
        if not part:
            raise DataError(
                f"{folder}: no picture from {stamp(start)}; its {len(files)} are shown until then"
            )

    def close(self) -> None: ...

    def shots(self) -> Iterator[Shot]:
        form: Form | None = None
        for number, file in self._files:
            try:
                photo = read_photo(file, self._largest)
                height, width = photo.pixels.shape[:2]
                if form is None:
                    form = Form(width, height, tick=1 / self._rate, rate=self._rate / self._every)
                elif self._same and (form.width, form.height) != (width, height):
                    size = f"{form.width}x{form.height}"
                    raise DataError(f"{file}: is {width}x{height} pixels, the film {size}")
            except DataError as error:
                self.faults.append(str(error))
                log.error(f"skipped: {error}")
                continue
            share = number / (self._files[-1][0] + 1)
            yield Shot(photo, form, number, self._every, share, file)
        if form is None:
            raise DataError(f"{self.folder}: none of its {len(self._files)} pictures can be read")


def _natural(path: Path) -> list[tuple[str, int]]:
    """What files are sorted by, so that 10 follows 9."""
    parts = re.findall(r"(\D*)(\d*)", str(path))
    return [(text.lower(), int(number or -1)) for text, number in parts]
