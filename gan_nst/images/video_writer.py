"""Writing videos: images encoded in the form of the video that they were made from, its sound beside them."""

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from gan_nst.core.errors import DataError, cannot_write, counted, reason
from gan_nst.core.files import temporary_path
from gan_nst.images.photo import Pixels
from gan_nst.images.video import Form, Video, as_stored, stamp

log = logging.getLogger(__name__)


if TYPE_CHECKING:
    from av import Packet, Stream
    from av.container import OutputContainer


# Codecs for sound that a container cannot hold as it is, which open their streams: name, rate.
_ANEW = {"webm": ("libopus", 48000)}
_OWN = {"encoder", "duration", "vendor_id", "number_of_frames", "number_of_bytes"}


class Sound:
    """The sound and the subtitles of a video, on their way into `output`; its streams are added there at once.

    They are read by themselves, as far as the images have come, so that nothing piles up. shift: what is taken from
    all times, in seconds. start, end: packets are copied from and to there, by the video's own clock. What of them
    cannot be read becomes a fault of the video's when they end.
    """

    def __init__(
        self, video: Video, output: "OutputContainer", shift: Fraction, start: float, end: float
    ) -> None:
        import av

        self._av, self._output, self._shift, self._end = av, output, shift, end
        self._video, self._damaged, self._error = video, 0, ""
        self._heard: dict[int, float] = {}  # until when each stream was read, by the video's clock
        # What a sound codec needs to swing in comes before 0, for which some would move everything.
        self._start = start if output.format.name in ("mp4", "mov") else max(start, float(shift))
        self._input = av.open(str(video.path.absolute()))
        self._anew: dict[int, Any] = {}
        streams = {}
        for stream in self._input.streams:
            if stream.type in ("audio", "subtitle", "attachment"):
                if (copy := self._add(stream, video)) is not None:
                    streams[stream.index] = copy
            elif stream.type == "data":
                log.info(f"{video.path}: its stream {stream.index}, of other data, is left out")
        for stream in self._input.streams:
            if stream.index not in streams:
                stream.discard = av.stream.Discard.all
        self._streams = {k: s for k, s in streams.items() if s.type != "attachment"}
        self._packets = self._read()
        self._next = next(self._packets, None)

    def copy(self, until: float) -> None:
        """Carries over what comes before a time, in seconds by the output's clock."""
        while self._next is not None and self._next[0] < until:
            self._mux(self._next[1])
            self._next = next(self._packets, None)

    def finish(self) -> None:
        """Carries over all that is left."""
        self.copy(math.inf)
        for stream in self._anew.values():
            self._output.mux(stream.encode(None))
        faults = [f"{self._video.path}: {fault}" for fault in self._faults()]
        self._video.faults += faults
        for fault in faults:
            log.warning(fault)

    def close(self) -> None:
        self._input.close()

    def _add(self, stream: "Stream", video: Video) -> "Stream | None":
        """The stream's counterpart in the output; None when there can be none, with a warning."""
        kind = self._output.format.name
        codec = stream.codec_context.name if stream.codec_context is not None else "data of an unknown kind"
        try:
            copy = self._output.add_stream_from_template(stream)
        except (ValueError, self._av.FFmpegError):
            if stream.type != "audio" or stream.codec_context is None:
                log.warning(
                    f"{video.path}: its {stream.type} ({codec}) is left out, which {kind} cannot hold"
                )
                return None
            name, rate = _ANEW.get(kind, ("aac", stream.codec_context.sample_rate))
            copy = self._output.add_stream(name, rate=rate)
            copy.codec_context.layout = stream.codec_context.layout
            copy.codec_context.bit_rate = 64000 * max(2, stream.codec_context.layout.nb_channels)
            self._anew[stream.index] = copy
            log.warning(
                f"{video.path}: its sound ({codec}) is encoded anew ({name}), as {kind} cannot hold it"
            )
        copy.metadata.update(told(stream.metadata))
        copy.disposition = stream.disposition
        return copy

    def _faults(self) -> Iterator[str]:
        if self._error:
            yield f"its sound breaks off ({self._error})"
        if self._damaged:
            yield f"{counted(self._damaged, 'piece')} of its sound damaged"
        for stream in self._input.streams.audio:
            if stream.index not in self._streams or stream.duration is None or self._error:
                continue
            begin = float((stream.start_time or 0) * stream.time_base)
            end = min(self._end, begin + float(stream.duration * stream.time_base))
            heard = self._heard.get(stream.index, max(begin, self._start))
            if heard < end - 0.05 * (end - begin) - 0.5:
                yield f"its sound breaks off after {stamp(heard - begin)} of {stamp(end - begin)}"

    def _read(self) -> Iterator[tuple[float, "Packet"]]:
        """The packets with their times by the output's clock, as far as they can be read."""
        if not self._streams:
            return
        wanted = [stream for stream in self._input.streams if stream.index in self._streams]
        if self._start > 0:
            with suppress(self._av.FFmpegError):
                self._input.seek(int(self._start * 1e6))
        try:
            for packet in self._input.demux(wanted):
                at = packet.pts if packet.pts is not None else packet.dts
                if at is None:
                    continue
                time = at * packet.time_base
                length = (packet.duration or 0) * packet.time_base
                self._heard[packet.stream.index] = float(time + length)
                if self._start <= time + length / 2 and time < self._end:
                    self._damaged += packet.is_corrupt
                    yield float(time - self._shift), packet
        except self._av.FFmpegError as error:
            self._error = reason(error)

    def _mux(self, packet: "Packet") -> None:
        ticks = round(self._shift / packet.time_base)
        copy = self._streams[packet.stream.index]
        if packet.stream.index in self._anew:
            try:
                for frame in packet.decode():
                    if frame.pts is not None:
                        frame.pts -= ticks
                    self._output.mux(copy.encode(frame))
            except self._av.FFmpegError:  # sound that cannot be decoded is a gap
                self._damaged += 1
            return
        packet.stream = copy
        packet.pts = packet.pts - ticks if packet.pts is not None else None
        packet.dts = packet.dts - ticks if packet.dts is not None else None
        self._output.mux(packet)


def told(metadata: dict[str, str]) -> dict[str, str]:
    """What of a stream's or a file's metadata is true of a copy too."""
    own = {*_OWN, "major_brand", "minor_version", "compatible_brands"}
    return {
        key: text for key, text in metadata.items() if key.lower() not in own and not key.startswith("_STAT")
    }


if TYPE_CHECKING:
    from av.container import OutputContainer

_CONTAINERS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
    ".avi": "avi",
}
# Encoders by container, the first that PyAV has; other containers take the last row's.
_ENCODERS = {
    "webm": (
        ("libvpx-vp9", {"b:v": "0", "row-mt": "1", "cpu-used": "4"}),
        ("libsvtav1", {"preset": "8"}),
    ),
    "avi": (("mpeg4", {}),),  # H.264 in AVI is shown late, as AVI tells no times
    "": (("libx264", {"preset": "medium"}),),
}
VIDEO_SUFFIXES = tuple(_CONTAINERS)


@dataclass(frozen=True)
class Clip:
    """The part of a video that is written, from `start` to before `end`, in seconds, and the video, for its sound."""

    video: Video
    start: float = 0.0
    end: float = math.inf


class VideoWriter:
    """Writes a video, whole or not at all: a context, within which images are added; an error in it leaves nothing.

    The container is that of the output's suffix. crf: quality, 0 (best) to 51; 18 is hard to tell from the original.
    clip: where the sound comes from. Raises DataError when the video cannot be written.
    """

    def __init__(self, output: Path, crf: int = 18, clip: Clip | None = None) -> None:
        if find_spec("av") is None:
            raise DataError("writing videos needs PyAV: pip install 'gan_nst[video]'")
        if output.suffix.lower() not in _CONTAINERS:
            known = " ".join(_CONTAINERS)
            raise DataError(
                f"{output}: videos are written as {known}; a name without a suffix is a folder of frames"
            )
        if output.is_dir():
            raise DataError(f"{output}: is a folder; give a video's name")
        self.output, self._crf, self._clip = output, crf, clip
        self._kind = _CONTAINERS[output.suffix.lower()]
        self._unfinished = temporary_path(output)
        self._container: OutputContainer | None = None
        self._sound: Sound | None = None
        self._durations: dict[int, int] = {}
        self._last = -1
        with _writing(output):
            output.parent.mkdir(parents=True, exist_ok=True)
            self._unfinished.touch()  # or hours go by before it shows that nothing can be written there

    def __enter__(self) -> "VideoWriter":
        return self

    def add(self, pixels: Pixels, form: Form, pts: int, duration: int) -> None:
        """The video's next image, RGB, upright. pts: when it is shown, in the form's ticks by the source's clock."""
        with _writing(self.output):
            if self._container is None:
                self._open(form, pts)
            form = self._form
            at = round((pts * self._source_tick - self._shift) / form.tick)
            if at <= self._last:  # times that the container's clock is too coarse for
                at = self._last + 1
            self._last = at
            frame = form.encode(as_stored(pixels, form.turn), self._layout)
            frame.pts, frame.time_base = at, form.tick
            self._durations[at] = max(1, round(duration * self._source_tick / form.tick))
            self._mux(self._stream.encode(frame))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._container is not None:
                with _writing(self.output):
                    self._mux(self._stream.encode(None))
                    if self._sound is not None:
                        self._sound.finish()
                    self._container.close()
                    self._container = None
                    os.replace(self._unfinished, self.output)
        finally:
            if self._sound is not None:
                self._sound.close()
            with suppress(Exception):  # a second error would hide the first
                if self._container is not None:
                    self._container.close()
            self._unfinished.unlink(missing_ok=True)

    def _open(self, form: Form, first: int) -> None:
        import av

        clip = self._clip
        self._source_tick = form.tick
        self._shift = Fraction(0)
        if clip is not None and clip.start > 0:
            self._shift = first * form.tick
        elif clip is not None:
            self._shift = Fraction(max(0, clip.video.container.start_time or 0), 1_000_000)
        if self._kind == "avi":  # which cannot say how images are turned, and whose clock ticks once a frame
            form = replace(form.upright(), tick=1 / form.rate)
        self._form = form = replace(form, rate=form.rate.limit_denominator(100_000))
        clock = {}
        if self._kind in ("mp4", "mov") and form.tick.numerator == 1:
            clock = {"video_track_timescale": str(form.tick.denominator)}
        self._container = av.open(str(self._unfinished), "w", format=self._kind, container_options=clock)
        self._stream = self._add_stream(self._container, form)
        if form.turn is not None:
            self._stream.set_display_matrix(form.turn)
        if clip is not None:
            start = float(self._shift) if clip.start > 0 else -math.inf
            video_start = clip.video.start
            self._sound = Sound(clip.video, self._container, self._shift, start, video_start + clip.end)
            self._container.metadata.update(told(clip.video.container.metadata))
            self._stream.metadata.update(told(clip.video.stream.metadata))
            self._container.set_chapters(cast(Any, list(self._chapters(clip))))

    def _add_stream(self, container: "OutputContainer", form: Form) -> Any:
        import av

        for name, options in _ENCODERS.get(self._kind, _ENCODERS[""]):
            try:
                codec = av.codec.Codec(name, "w")
            except av.codec.codec.UnknownCodecError:
                continue
            self._layout = _layout(form, [known.name for known in codec.video_formats or []], name)
            if name == "mpeg4":  # whose quality goes from 1 to 31
                quantiser = str(1 + self._crf // 8)
                options = {"qmin": quantiser, "qmax": quantiser}
            else:
                options = {"crf": str(self._crf), **options}
            stream: Any = container.add_stream(name, rate=form.rate, options=options, time_base=form.tick)
            stream.width, stream.height, stream.pix_fmt = form.width, form.height, self._layout
            context = stream.codec_context
            context.colorspace, context.color_range = form.space, form.range
            context.color_primaries, context.color_trc = form.primaries, form.transfer
            if form.aspect:
                context.sample_aspect_ratio = form.aspect
            return stream
        raise DataError(f"{self.output}: this PyAV cannot encode such videos; pip install --upgrade av")

    def _mux(self, packets: list[Any]) -> None:
        assert self._container is not None
        for packet in packets:
            packet.duration = self._durations.pop(packet.pts, packet.duration)
            if self._sound is not None:
                self._sound.copy(float(packet.pts * packet.time_base))
            self._container.mux(packet)

    def _chapters(self, clip: Clip) -> Iterator[dict[str, Any]]:
        for chapter in clip.video.container.chapters():
            tick = chapter["time_base"]
            shift = round(self._shift / tick)
            start, end = chapter["start"] - shift, chapter["end"] - shift
            last = (clip.video.start + clip.end) / tick - shift
            if end > 0 and start < last:
                yield {**chapter, "start": max(0, start), "end": int(min(end, last))}


@contextmanager
def _writing(output: Path) -> Iterator[None]:
    """Within the context a failing write becomes a DataError that names the output."""
    import av

    try:
        yield
    except (OSError, ValueError, av.FFmpegError) as error:
        raise DataError(cannot_write(output, error)) from None


def _layout(form: Form, known: list[str], codec: str) -> str:
    """The pixel layout, of those that the codec knows, nearest to the form's."""
    odd = (form.width % 2 and form.chroma != "444") or (form.height % 2 and form.chroma == "420")
    chroma = "444" if odd and codec == "libx264" else form.chroma  # it halves no odd sizes
    wanted = [f"yuv{chroma}p10le"] if form.deep else []
    return next(name for name in (*wanted, f"yuv{chroma}p", "yuv420p") if name in known)
