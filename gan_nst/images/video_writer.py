"""Writes videos in the form of their source, with its sound and subtitles."""

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

if TYPE_CHECKING:
    from av import Packet, Stream
    from av.container import OutputContainer

log = logging.getLogger(__name__)

_CONTAINERS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
    ".avi": "avi",
}
# Encoders by container, in order of preference; "": any other container.
_ENCODERS = {
    "webm": (
        ("libvpx-vp9", {"b:v": "0", "row-mt": "1", "cpu-used": "4"}),
        ("libsvtav1", {"preset": "8"}),
    ),
    "avi": (("mpeg4", {}),),  # AVI stores no times, which delays H.264
    "": (("libx264", {"preset": "medium"}),),
}
VIDEO_SUFFIXES = tuple(_CONTAINERS)
# Audio codecs, with their sample rates, for containers that cannot hold the source's; others get AAC.
_REENCODED = {"webm": ("libopus", 48000)}
_NOT_COPIED = {
    "encoder", "duration", "vendor_id", "number_of_frames", "number_of_bytes", "major_brand", "minor_version",
    "compatible_brands",
}  # fmt: skip


@dataclass(frozen=True)
class Clip:
    """The part of a video to write, from `start` to before `end`, in seconds, and the video, for its sound."""

    video: Video
    start: float = 0.0
    end: float = math.inf


class VideoWriter:
    """Writes a video atomically: a context within which frames are added; an error in it leaves no file.

    The suffix of the output determines the container. crf: quality, 0 (best) to 51; 18 is visually close to lossless.
    clip: the source of the sound. Raises DataError when the video cannot be written.
    """

    def __init__(self, output: Path, crf: int = 18, clip: Clip | None = None) -> None:
        if find_spec("av") is None:
            raise DataError("writing videos needs PyAV: pip install 'gan_nst[video]'")
        if output.suffix.lower() not in _CONTAINERS:
            known = " ".join(_CONTAINERS)
            raise DataError(
                f"{output}: videos are written as {known}; for a folder of frames, omit the suffix"
            )
        if output.is_dir():
            raise DataError(f"{output}: is a folder; give a video file name")
        self.output, self._crf, self._clip = output, crf, clip
        self._kind = _CONTAINERS[output.suffix.lower()]
        self._unfinished = temporary_path(output)
        self._container: OutputContainer | None = None
        self._sound: Sound | None = None
        self._durations: dict[int, int] = {}
        self._last = -1
        with _writing(output):
            output.parent.mkdir(parents=True, exist_ok=True)
            self._unfinished.touch()  # fails now rather than after hours

    def __enter__(self) -> "VideoWriter":
        return self

    def add(self, pixels: Pixels, form: Form, pts: int, duration: int) -> None:
        """Adds the next frame, RGB, upright. pts: its time, in the form's ticks by the source's clock."""
        with _writing(self.output):
            if self._container is None:
                self._open(form, pts)
            form = self._form
            at = round((pts * self._source_tick - self._shift) / form.tick)
            if at <= self._last:  # the container's clock is too coarse
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
            with suppress(Exception):  # a second error must not hide the first
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
        if self._kind == "avi":  # which stores no rotation, and whose clock ticks once per frame
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
            self._container.metadata.update(_copied_metadata(clip.video.container.metadata))
            self._stream.metadata.update(_copied_metadata(clip.video.stream.metadata))
            self._container.set_chapters(cast(Any, list(self._chapters(clip))))

    def _add_stream(self, container: "OutputContainer", form: Form) -> Any:
        import av

        for name, options in _ENCODERS.get(self._kind, _ENCODERS[""]):
            try:
                codec = av.codec.Codec(name, "w")
            except av.codec.codec.UnknownCodecError:
                continue
            self._layout = _layout(form, [known.name for known in codec.video_formats or []], name)
            if name == "mpeg4":  # whose quality ranges from 1 to 31
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
        raise DataError(
            f"{self.output}: this version of PyAV cannot encode such videos; pip install --upgrade av"
        )

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
    """The codec's pixel layout closest to the form."""
    odd = (form.width % 2 and form.chroma != "444") or (form.height % 2 and form.chroma == "420")
    chroma = "444" if odd and codec == "libx264" else form.chroma  # which cannot subsample odd sizes
    wanted = [f"yuv{chroma}p10le"] if form.deep else []
    return next(name for name in (*wanted, f"yuv{chroma}p", "yuv420p") if name in known)


class Sound:
    """Copies the sound and subtitles of a video to `output`, whose streams it adds on construction.

    They are read separately, only as far as the frames have been written, so that nothing piles up. shift: seconds to
    subtract from all times. start, end: the part to copy, by the video's clock. Parts that cannot be read become faults
    of the video when the copy ends.
    """

    def __init__(
        self, video: Video, output: "OutputContainer", shift: Fraction, start: float, end: float
    ) -> None:
        import av

        self._av, self._output, self._shift, self._end = av, output, shift, end
        self._video, self._damaged, self._error = video, 0, ""
        self._heard: dict[int, float] = {}  # how far each stream was read, by the video's clock
        # Audio codecs need packets before 0 to start up; some containers would shift everything for them.
        self._start = start if output.format.name in ("mp4", "mov") else max(start, float(shift))
        self._input = av.open(str(video.path.absolute()))
        self._reencoded: dict[int, Any] = {}
        streams = {}
        for stream in self._input.streams:
            if stream.type in ("audio", "subtitle", "attachment"):
                if (copy := self._add(stream, video)) is not None:
                    streams[stream.index] = copy
            elif stream.type == "data":
                log.info(f"{video.path}: skipping its data stream {stream.index}")
        for stream in self._input.streams:
            if stream.index not in streams:
                stream.discard = av.stream.Discard.all
        self._streams = {k: s for k, s in streams.items() if s.type != "attachment"}
        self._packets = self._read()
        self._next = next(self._packets, None)

    def copy(self, until: float) -> None:
        """Copies everything before a time, in seconds by the output's clock."""
        while self._next is not None and self._next[0] < until:
            self._mux(self._next[1])
            self._next = next(self._packets, None)

    def finish(self) -> None:
        """Copies the rest, and records the faults."""
        self.copy(math.inf)
        for stream in self._reencoded.values():
            self._output.mux(stream.encode(None))
        faults = [f"{self._video.path}: {fault}" for fault in self._faults()]
        self._video.faults += faults
        for fault in faults:
            log.warning(fault)

    def close(self) -> None:
        self._input.close()

    def _add(self, stream: "Stream", video: Video) -> "Stream | None":
        """Adds the stream's counterpart to the output; returns None, with a warning, when that is impossible."""
        kind = self._output.format.name
        codec = stream.codec_context.name if stream.codec_context is not None else "data of an unknown kind"
        try:
            copy = self._output.add_stream_from_template(stream)
        except (ValueError, self._av.FFmpegError):
            if stream.type != "audio" or stream.codec_context is None:
                log.warning(
                    f"{video.path}: skipping its {stream.type} ({codec}), which {kind} does not support"
                )
                return None
            name, rate = _REENCODED.get(kind, ("aac", stream.codec_context.sample_rate))
            copy = self._output.add_stream(name, rate=rate)
            copy.codec_context.layout = stream.codec_context.layout
            copy.codec_context.bit_rate = 64000 * max(2, stream.codec_context.layout.nb_channels)
            self._reencoded[stream.index] = copy
            log.warning(
                f"{video.path}: re-encoding its sound ({codec}) as {name}, as {kind} does not support it"
            )
        copy.metadata.update(_copied_metadata(stream.metadata))
        copy.disposition = stream.disposition
        return copy

    def _faults(self) -> Iterator[str]:
        if self._error:
            yield f"its sound ends early ({self._error})"
        if self._damaged:
            yield f"{counted(self._damaged, 'packet')} of its sound damaged"
        for stream in self._input.streams.audio:
            if stream.index not in self._streams or stream.duration is None or self._error:
                continue
            begin = float((stream.start_time or 0) * stream.time_base)
            end = min(self._end, begin + float(stream.duration * stream.time_base))
            heard = self._heard.get(stream.index, max(begin, self._start))
            if heard < end - 0.05 * (end - begin) - 0.5:
                yield f"its sound ends early, after {stamp(heard - begin)} of {stamp(end - begin)}"

    def _read(self) -> Iterator[tuple[float, "Packet"]]:
        """Yields the packets with their times by the output's clock, as far as they can be read."""
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
        if packet.stream.index in self._reencoded:
            try:
                for frame in packet.decode():
                    if frame.pts is not None:
                        frame.pts -= ticks
                    self._output.mux(copy.encode(frame))
            except self._av.FFmpegError:  # undecodable sound becomes a gap
                self._damaged += 1
            return
        packet.stream = copy
        packet.pts = packet.pts - ticks if packet.pts is not None else None
        packet.dts = packet.dts - ticks if packet.dts is not None else None
        self._output.mux(packet)


def _copied_metadata(metadata: dict[str, str]) -> dict[str, str]:
    """The part of a stream's or file's metadata that also holds for a copy."""
    return {
        key: text
        for key, text in metadata.items()
        if key.lower() not in _NOT_COPIED and not key.startswith("_STAT")
    }
