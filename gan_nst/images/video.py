"""A film file, read front to back: its frames with their times, whatever is damaged left out."""

import logging
import math
import re
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gan_nst.core.errors import DataError, reason
from gan_nst.core.progress import track
from gan_nst.images.files import Picture

if TYPE_CHECKING:
    from av import VideoFrame

log = logging.getLogger(__name__)

_LOOKS = 48  # frames of a sample
_LEAD = 2.0  # seconds sought ahead of a start, as not every format is sought in exactly
_SLACK = 0.0005  # seconds that times written in thousandths are off by


class Film:
    """A film file, read front to back. Raises DataError when it is none.

    container, stream: PyAV's own, of the moving pictures. start: when these begin, by the file's clock; all times here
    count from it, in seconds. faults: a line for whatever could not be read, known once `frames` has ended.
    """

    def __init__(self, path: Path) -> None:
        try:
            import av
        except ImportError:
            raise DataError("reading films needs PyAV: pip install 'gan_nst[video]'") from None
        if not path.is_file():
            raise DataError(f"{path}: no such film")
        self.path, self._errors = path, av.FFmpegError
        self.faults: list[str] = []
        try:
            self.container = av.open(str(path.absolute()))
        except (av.FFmpegError, OSError) as error:
            raise DataError(f"{path}: not a readable film ({reason(error)})") from None
        # FFmpeg takes a sound file's cover for video, and plain text too.
        streams = [s for s in self.container.streams.video if s.width and not s.disposition & 0x400]
        if not streams or self.container.format.name == "tty":
            self.close()
            raise DataError(f"{path}: has no moving pictures")
        stream = self.stream = streams[0]
        stream.thread_type = "AUTO"
        aspect = stream.sample_aspect_ratio or Fraction(1)
        self.width, self.height = round(stream.width * max(aspect, 1)), round(stream.height / min(aspect, 1))
        tick = stream.time_base or Fraction(0)
        self.start = float((stream.start_time or 0) * tick)
        self.seconds = float((stream.duration or 0) * tick) or (self.container.duration or 0) / 1e6
        self.rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        self._step = float(1 / self.rate)
        self.read = 0.0

    def close(self) -> None:
        self.container.close()

    def frames(
        self, start: float = 0.0, end: float = math.inf, shown: bool = True
    ) -> Iterator[tuple[float, "VideoFrame"]]:
        """The frames of start <= time < end, with their times. What is damaged is left out, with a warning at the end.

        shown: whether with a progress bar.
        """
        length = range(math.ceil(self.seconds))
        bar = track(length, f"reading {self.path.name}") if shown else iter(length)
        time, damaged, sound, why, passed = -self._step, 0, True, "no frame in it", 0
        if start > _LEAD:
            with suppress(self._errors):  # what cannot be sought in is read from its beginning
                self.container.seek(int((self.start + start - _LEAD) * 1e6))
        packets = self.container.demux(self.stream)
        while time < end:
            try:
                decoded = next(packets).decode()
            except StopIteration:
                break
            except self._errors as error:  # of one piece; after one that reading cannot pass, iteration stops
                damaged, sound, why = damaged + 1, False, reason(error)
                continue
            for frame in decoded:
                told = time + self._step if frame.time is None else frame.time - self.start
                time = max(told, time + 0.001)
                sound = (sound or frame.key_frame) and not frame.is_corrupt
                if time >= end:
                    break
                if time < start - _SLACK:
                    self.read = time + self._step
                    continue
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
            raise DataError(f"{self.path}: not a readable film ({why})")
        if damaged:
            self.faults.append(f"{self.path}: {damaged} damaged frames were left out")
        if self.read < 0.95 * min(self.seconds, end) - 0.5:
            self.faults.append(f"{self.path}: breaks off after {stamp(self.read)} of {stamp(self.seconds)}")
        for fault in self.faults:
            log.warning(fault)

    def sample(self) -> Iterator["VideoFrame"]:
        """About `_LOOKS` frames spread over the film, fewer where it is damaged."""
        with suppress(self._errors):
            every = max(1, int(self.seconds / self._step / _LOOKS)) if self.seconds else 25
            if self.seconds < 60:  # too short to have many frames that can be decoded by themselves
                yield from islice(self.container.decode(self.stream), 0, every * _LOOKS, every)
                return
            for number in range(_LOOKS):
                self.container.seek(int((self.start + (number + 0.5) / _LOOKS * self.seconds) * 1e6))
                yield from islice(self.container.decode(self.stream), 1)

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


def moment(text: str) -> float:
    """The time that a text names, in seconds: "1:30", "00:01:30.500", "90", "2s". Raises ValueError for others."""
    match = re.fullmatch(r"(?:(\d+):)?(\d+):(\d+\.?\d*)", text.strip(), re.ASCII)
    if match is None:
        return 0.0 if re.fullmatch(r"0+\.?0*s?", text.strip()) else seconds(text)
    return 3600 * int(match[1] or 0) + 60 * int(match[2]) + float(match[3])


def seconds(text: str) -> float:
    """The seconds that a text names: "2s", "0.5", "500ms", "1m". Raises ValueError for anything else and for 0."""
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+) *(ms|s|m|)", text.strip(), re.ASCII)
    value = float(match[1]) * {"ms": 0.001, "m": 60.0}.get(match[2], 1.0) if match else 0.0
    if not 0 < value < math.inf:
        raise ValueError(f"expected a time above 0, 2s, 0.5 or 1m for example, got {text!r}")
    return value
