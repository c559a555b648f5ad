"""A film file, read front to back: its frames with their times, whatever is damaged left out."""

import logging
import math
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gan_nst.errors import DataError
from gan_nst.images import Picture
from gan_nst.progress import track

if TYPE_CHECKING:
    from av import VideoFrame

log = logging.getLogger(__name__)

_LOOKS = 48  # frames of a sample


class Film:
    """A film file, read front to back. Raises DataError when it is none."""

    def __init__(self, path: Path) -> None:
        try:
            import av
        except ImportError:
            raise DataError("reading films needs PyAV: pip install 'gan_nst[video]'") from None
        if not path.is_file():
            raise DataError(f"{path}: no such film")
        self.path, self._errors = path, av.FFmpegError
        try:
            self._container = av.open(str(path.absolute()))
        except (av.FFmpegError, OSError) as error:
            raise DataError(f"{path}: not a readable film ({_reason(error)})") from None
        # FFmpeg takes a sound file's cover for video, and plain text too.
        streams = [s for s in self._container.streams.video if s.width and not s.disposition & 0x400]
        if not streams or self._container.format.name == "tty":
            self.close()
            raise DataError(f"{path}: has no moving pictures")
        stream = self._stream = streams[0]
        stream.thread_type = "AUTO"
        aspect = stream.sample_aspect_ratio or Fraction(1)
        self.width, self.height = round(stream.width * max(aspect, 1)), round(stream.height / min(aspect, 1))
        tick = stream.time_base or Fraction(0)
        self._start = float((stream.start_time or 0) * tick)
        self.seconds = float((stream.duration or 0) * tick) or (self._container.duration or 0) / 1e6
        self._step = float(1 / (stream.average_rate or 25))
        self.read = 0.0

    def close(self) -> None:
        self._container.close()

    def frames(self) -> Iterator[tuple[float, "VideoFrame"]]:
        """The frames with their times in seconds. What is damaged is left out, with a warning at the end."""
        bar, passed = track(range(math.ceil(self.seconds)), f"reading {self.path.name}"), 0
        time, damaged, sound, reason = -self._step, 0, True, "no frame in it"
        packets = self._container.demux(self._stream)
        while True:
            try:
                decoded = next(packets).decode()
            except StopIteration:
                break
            except self._errors as error:  # of one piece; after one that reading cannot pass, iteration stops
                damaged, sound, reason = damaged + 1, False, _reason(error)
                continue
            for frame in decoded:
                told = time + self._step if frame.time is None else frame.time - self._start
                time = max(told, time + 0.001)
                sound = (sound or frame.key_frame) and not frame.is_corrupt
                if not sound:  # what builds on a damaged frame is smeared, up to the next that stands alone
                    damaged += 1
                    continue
                self.read = time + self._step
                yield time, frame
            while passed < min(time, self.seconds):
                next(bar, None)
                passed += 1
        for _ in bar:  # a bar that is gone does not cross the warnings
            pass
        if not self.read:
            raise DataError(f"{self.path}: not a readable film ({reason})")
        if damaged:
            log.warning(f"{self.path}: {damaged} damaged frames were left out")
        if self.read < 0.95 * self.seconds - 0.5:
            log.warning(f"{self.path}: breaks off after {stamp(self.read)} of {stamp(self.seconds)}")

    def sample(self) -> Iterator["VideoFrame"]:
        """About `_LOOKS` frames spread over the film, fewer where it is damaged."""
        with suppress(self._errors):
            every = max(1, int(self.seconds / self._step / _LOOKS)) if self.seconds else 25
            if self.seconds < 60:  # too short to have many frames that can be decoded by themselves
                yield from islice(self._container.decode(self._stream), 0, every * _LOOKS, every)
                return
            for number in range(_LOOKS):
                self._container.seek(int((self._start + (number + 0.5) / _LOOKS * self.seconds) * 1e6))
                yield from islice(self._container.decode(self._stream), 1)

    def rgb(self, frame: "VideoFrame", width: int, height: int) -> Picture:
        """A frame as RGB uint8 of shape (height, width, 3)."""
        how = "AREA" if width < frame.width else "BICUBIC"
        untold = frame.colorspace == 2 and frame.height >= 720  # HD that names no colours has HD's
        colours = "ITU709" if untold else None
        pixels = frame.reformat(width, height, "rgb24", colours, interpolation=how, threads=1).to_ndarray()
        return np.asarray(pixels, np.uint8)


def stamp(seconds: float) -> str:
    """The time as hours, minutes, seconds and thousandths: 00:01:23.480."""
    thousandths = round(seconds * 1000)
    minutes, rest = divmod(thousandths, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}.{rest % 1000:03}"


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())
