"""Reads the frames of a video, or of a folder, one after the other as photos with their times."""

import logging
import math
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from gan_nst.core.errors import DataError, reason
from gan_nst.core.terminal import track
from gan_nst.images.arrays import ImageArray
from gan_nst.images.photo import LARGEST, Photo, Pixels, read_photo

if TYPE_CHECKING:
    from av import VideoFrame

log = logging.getLogger(__name__)

Matrix = tuple[int, ...]

_CUT = 10.0  # mean difference of two thumbnails, of 255, above which there may be a cut
_SPIKE = 3.0  # ratio of a cut to the changes around it; animation on twos reaches 2

_SAMPLED = 48  # frames
_LEAD = 2.0  # seconds before the start to seek to, as seeking is inexact in some formats
_SLACK = 0.0005  # rounding error, in seconds, of times in thousandths
_FRAME_SLACK = 1e-6  # rounding error of decimal times, in seconds
_BT709, _BT601 = 1, 6  # FFmpeg's numbers for colour matrices
_SCALERS = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}  # swscale's numbers for the same
_FULL, _LIMITED = 2, 1
_FINE = 0x4 | 0x40000 | 0x2000  # bicubic, accurate rounding, full chroma interpolation


def is_cut(change: float, around: Collection[float]) -> bool:
    """Whether a frame begins a scene, by how much thumbnails change, of 255: with this frame, and around it."""
    return change > max(_CUT, _SPIKE * sum(around) / max(1, len(around)))


class Video:
    """A video file, read from front to back. Raises DataError when it is not a readable video.

    container, stream: PyAV's, the latter of the video track. start: when the track begins by the file's clock; all
    times here are relative to it, in seconds. faults: a line for each part that could not be read, complete once
    `frames` has ended.
    """

    def __init__(self, path: Path) -> None:
        try:
            import av
        except ImportError:
            raise DataError("reading videos needs PyAV: pip install 'gan_nst[video]'") from None
        if not path.is_file():
            raise DataError(f"{path}: no such video")
        self.path, self._errors = path, av.FFmpegError
        self.faults: list[str] = []
        try:
            self.container = av.open(str(path.absolute()))
        except (av.FFmpegError, OSError) as error:
            raise DataError(f"{path}: not a readable video ({reason(error)})") from None
        # FFmpeg mistakes cover images of audio files, and plain text, for video.
        streams = [s for s in self.container.streams.video if s.width and not s.disposition & 0x400]
        if not streams or self.container.format.name == "tty":
            self.close()
            raise DataError(f"{path}: has no video track")
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
        self, start: float = 0.0, end: float = math.inf, progress: bool = True
    ) -> Iterator[tuple[float, "VideoFrame"]]:
        """Yields the frames of start <= time < end, with their times. Damaged frames are skipped, with a warning at the
        end.
        """
        length = range(math.ceil(self.seconds))
        bar = track(length, f"reading {self.path.name}") if progress else iter(length)
        time, damaged, intact, why, passed = -self._step, 0, True, "no frames", 0
        if start > _LEAD:
            with suppress(self._errors):  # files that cannot be sought are read from the beginning
                self.container.seek(int((self.start + start - _LEAD) * 1e6))
        packets = self.container.demux(self.stream)
        while time < end:
            try:
                decoded = next(packets).decode()
            except StopIteration:
                break
            except self._errors as error:  # of one packet; iteration stops after one that cannot be skipped
                damaged, intact, why = damaged + 1, False, reason(error)
                continue
            for frame in decoded:
                stored = time + self._step if frame.time is None else frame.time - self.start
                time = max(stored, time + 0.001)
                intact = (intact or frame.key_frame) and not frame.is_corrupt
                if time >= end:
                    break
                if time < start - _SLACK:
                    self.read = time + self._step
                    continue
                if not intact:  # frames that depend on a damaged one are smeared, up to the next key frame
                    damaged += 1
                    continue
                self.read = time + self._step
                yield time, frame
            while passed < min(time, self.seconds):
                next(bar, None)
                passed += 1
        for _ in bar:  # ends the bar before the warnings
            pass
        if not self.read:
            raise DataError(f"{self.path}: not a readable video ({why})")
        if damaged:
            self.faults.append(f"{self.path}: {damaged} damaged frames were skipped")
        if self.read < 0.95 * min(self.seconds, end) - 0.5:
            self.faults.append(f"{self.path}: ends early, after {stamp(self.read)} of {stamp(self.seconds)}")
        for fault in self.faults:
            log.warning(fault)

    def sample(self) -> Iterator["VideoFrame"]:
        """Yields about `_SAMPLED` frames spread over the video, fewer if it is damaged."""
        with suppress(self._errors):
            every = max(1, int(self.seconds / self._step / _SAMPLED)) if self.seconds else 25
            if self.seconds < 60:  # too short for many key frames
                yield from islice(self.container.decode(self.stream), 0, every * _SAMPLED, every)
                return
            for number in range(_SAMPLED):
                self.container.seek(int((self.start + (number + 0.5) / _SAMPLED * self.seconds) * 1e6))
                yield from islice(self.container.decode(self.stream), 1)

    def rgb(self, frame: "VideoFrame", width: int, height: int) -> ImageArray:
        """Returns a frame as RGB uint8 of shape (height, width, 3)."""
        how = "AREA" if width < frame.width else "BICUBIC"
        unspecified_hd = frame.colorspace == 2 and frame.height >= 720
        colours = "ITU709" if unspecified_hd else None
        pixels = frame.reformat(width, height, "rgb24", colours, interpolation=how, threads=1).to_ndarray()
        return np.asarray(pixels, np.uint8)


def stamp(seconds: float) -> str:
    """Formats a time as hours, minutes, seconds and thousandths: 00:01:23.480."""
    thousandths = round(seconds * 1000)
    minutes, rest = divmod(thousandths, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}.{rest % 1000:03}"


@dataclass(frozen=True)
class Form:
    """How a video's frames are stored.

    width, height: as stored, before rotation. chroma: "420", "422" or "444". deep: more than 8 bits. space, range,
    primaries, transfer: the file's colour tags, by FFmpeg's numbers; unspecified ones stay so, and are interpreted like
    players do. turn: the display matrix. aspect: of a pixel. tick: unit of times, in seconds. rate: frames per second.
    """

    width: int
    height: int
    tick: Fraction
    rate: Fraction
    chroma: str = "420"
    deep: bool = False
    space: int = _BT709
    range: int = _LIMITED
    primaries: int = 1
    transfer: int = 1
    turn: Matrix | None = None
    aspect: Fraction | None = None

    def decode(self, frame: "VideoFrame") -> Pixels:
        """Converts a decoded frame to RGB, (h, w, 3), as stored."""
        rgb = frame.format.is_rgb
        pixels: Pixels = frame.reformat(
            self.width,
            self.height,
            "rgb48le" if self.deep else "rgb24",
            src_colorspace=None if rgb else self._scaler,
            src_color_range=None if rgb else self._levels,
            interpolation=_FINE,
            threads=1,
        ).to_ndarray()
        return pixels

    def encode(self, pixels: Pixels, layout: str) -> "VideoFrame":
        """Converts pixels, RGB as stored, (h, w, 3), to a frame in one of FFmpeg's pixel layouts."""
        from av import VideoFrame

        kind = "rgb48le" if pixels.dtype == np.uint16 else "rgb24"
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=kind).reformat(
            format=layout,
            dst_colorspace=self._scaler,
            dst_color_range=self._levels,
            interpolation=_FINE,
            threads=1,
        )
        frame.colorspace, frame.color_range = self.space, self.range
        frame.color_primaries, frame.color_trc = self.primaries, self.transfer
        return frame

    def upright(self) -> "Form":
        """The form of the same frames stored upright."""
        if not _moves(self.turn)[0]:
            return replace(self, turn=None)
        aspect = 1 / self.aspect if self.aspect else None
        return replace(self, width=self.height, height=self.width, aspect=aspect, turn=None)

    @property
    def _scaler(self) -> int:
        """The matrix, by swscale's number; if unspecified, BT.709 for HD and BT.601 for smaller frames."""
        return _SCALERS.get(self.space, 1 if self.height >= 720 else 5)

    @property
    def _levels(self) -> int:
        return _FULL if self.range == _FULL else _LIMITED


def form_of(video: Video, frame: "VideoFrame") -> Form:
    """The form of a video. frame: its first frame, which knows more than the file's header."""
    layout = frame.format
    coloured = len(layout.components) >= 3  # gray is written as 4:2:0
    chroma = "422" if coloured and layout.chroma_height(64) == 64 else "420"
    if coloured and layout.chroma_width(64) == 64:
        chroma = "444"
    space, levels = frame.colorspace, frame.color_range
    if layout.is_rgb:
        space, levels = _BT709 if frame.height >= 720 else _BT601, _LIMITED
    elif layout.name.startswith("yuvj"):
        levels = _FULL
    return Form(
        width=frame.width,
        height=frame.height,
        tick=video.stream.time_base or 1 / video.rate,
        rate=video.rate,
        chroma=chroma,
        deep=max(component.bits for component in layout.components) > 8,
        space=space,
        range=levels,
        primaries=frame.color_primaries,
        transfer=frame.color_trc,
        turn=_turn(frame),
        aspect=video.stream.sample_aspect_ratio or None,
    )


def upright(pixels: Pixels, turn: Matrix | None) -> Pixels:
    """Rotates pixels, (h, w, c), as a player shows them. turn: a display matrix; only right angles are applied."""
    transposed, across, down = _moves(turn)
    pixels = pixels.swapaxes(0, 1) if transposed else pixels
    return cast(Pixels, np.ascontiguousarray(pixels[:: -1 if down else 1, :: -1 if across else 1]))


def as_stored(pixels: Pixels, turn: Matrix | None) -> Pixels:
    """The reverse of `upright`."""
    transposed, across, down = _moves(turn)
    pixels = pixels[:: -1 if down else 1, :: -1 if across else 1]
    return cast(Pixels, np.ascontiguousarray(pixels.swapaxes(0, 1) if transposed else pixels))


def _turn(frame: "VideoFrame") -> Matrix | None:
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    matrix = tuple(np.frombuffer(bytes(data), np.int32).tolist())
    return matrix if any(_moves(matrix)) else None


def _moves(turn: Matrix | None) -> tuple[bool, bool, bool]:
    """Decomposes a display matrix: whether it transposes, then mirrors horizontally, and vertically."""
    if turn is None:
        return False, False, False
    a, b, c, d = (round(turn[at] / 65536) for at in (0, 1, 3, 4))  # x' = a x + c y; y' = b x + d y
    if a and d and not (b or c):
        return False, a < 0, d < 0
    if b and c and not (a or d):
        return True, c < 0, b < 0
    return False, False, False


class Shot(NamedTuple):
    """A frame of a video, upright. pts, duration: in the form's ticks. share: of the work done with this frame. file:
    the frame's own file, if it has one.
    """

    photo: Photo
    form: Form
    pts: int
    duration: int
    share: float
    file: Path | None = None


class Footage:
    """Every `every`-th frame of a video, from `start` to before `end`, in seconds.

    Raises DataError when the file is not a video, and when there is no frame in that part.
    """

    def __init__(self, path: Path, every: int = 1, start: float = 0.0, end: float = math.inf) -> None:
        self.video = Video(path)
        self.faults = self.video.faults
        self._every, self._start, self._end = every, start, end

    def close(self) -> None:
        self.video.close()

    def shots(self) -> Iterator[Shot]:
        video, form, number = self.video, None, 0
        last = min(self._end, video.seconds or math.inf)
        for time, frame in video.frames(self._start, self._end, progress=False):
            number += 1
            if (number - 1) % self._every:
                continue
            if form is None:
                form = form_of(video, frame)
                form = replace(form, rate=form.rate / self._every)
            tick = form.tick
            pts = frame.pts if frame.pts is not None else round((video.start + time) / float(tick))
            length = min((frame.duration * tick or 1 / video.rate) * self._every, max(last - time, 0.001))
            photo = Photo(upright(form.decode(frame), form.turn))
            share = (time - self._start) / (last - self._start) if last < math.inf else 0.0
            yield Shot(photo, form, pts, max(1, round(length / tick)), min(max(share, 0.0), 1.0))
        if number == 0:
            about = f"; it is {stamp(video.seconds)} long" if video.seconds else ""
            raise DataError(f"{video.path}: no frame after {stamp(self._start)}{about}")


class FrameFolder:
    """The images of a folder as frames, ordered by the numbers in their names, `rate` per second.

    every, start, end: see Footage. largest: pixels that an image may have. same: skip images whose size differs from
    the first one's. A skipped image is a fault, and in a video the previous one is held. Raises DataError when there is
    no image.
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
        part = [
            (number, file)
            for number, file in numbered
            if start - _FRAME_SLACK <= number / rate < end - _FRAME_SLACK
        ]
        self._files, self._rate, self._every, self._same = part[::every], rate, every, same
        if not part:
            raise DataError(f"{folder}: no image from {stamp(start)} on; its {len(files)} images end before")

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
                    raise DataError(f"{file}: has {width}x{height} pixels, but the video {size}")
            except DataError as error:
                self.faults.append(str(error))
                log.error(f"skipped: {error}")
                continue
            share = number / (self._files[-1][0] + 1)
            yield Shot(photo, form, number, self._every, share, file)
        if form is None:
            raise DataError(f"{self.folder}: none of its {len(self._files)} images can be read")


def _natural(path: Path) -> list[tuple[str, int]]:
    """A sort key by which 10 follows 9."""
    parts = re.findall(r"(\D*)(\d*)", str(path))
    return [(text.lower(), int(number or -1)) for text, number in parts]
