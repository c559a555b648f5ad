"""Writing films: pictures encoded in the form of the film that they were made from, its sound beside them."""

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

from gan_nst.core.errors import DataError, unwritten
from gan_nst.images.form import Form, as_stored
from gan_nst.images.photo import Pixels
from gan_nst.images.sound import Sound, told
from gan_nst.images.video import Film

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
FILM_SUFFIXES = tuple(_CONTAINERS)


@dataclass(frozen=True)
class Clip:
    """The part of a film that is written, from `start` to before `end`, in seconds, and the film, for its sound."""

    film: Film
    start: float = 0.0
    end: float = math.inf


class FilmWriter:
    """Writes a film, whole or not at all: a context, within which pictures are added; an error in it leaves nothing.

    The container is that of the output's suffix. crf: quality, 0 (best) to 51; 18 is hard to tell from the original.
    clip: where the sound comes from. Raises DataError when the film cannot be written.
    """

    def __init__(self, output: Path, crf: int = 18, clip: Clip | None = None) -> None:
        if find_spec("av") is None:
            raise DataError("writing films needs PyAV: pip install 'gan_nst[video]'")
        if output.suffix.lower() not in _CONTAINERS:
            known = " ".join(_CONTAINERS)
            raise DataError(
                f"{output}: films are written as {known}; a name without a suffix is a folder of frames"
            )
        if output.is_dir():
            raise DataError(f"{output}: is a folder; give a film's name")
        self.output, self._crf, self._clip = output, crf, clip
        self._kind = _CONTAINERS[output.suffix.lower()]
        self._unfinished = output.with_name(f".{output.name}.part")
        self._container: OutputContainer | None = None
        self._sound: Sound | None = None
        self._durations: dict[int, int] = {}
        self._last = -1
        with _writing(output):
            output.parent.mkdir(parents=True, exist_ok=True)
            self._unfinished.touch()  # or hours go by before it shows that nothing can be written there

    def __enter__(self) -> "FilmWriter":
        return self

    def add(self, pixels: Pixels, form: Form, pts: int, duration: int) -> None:
        """The film's next picture, RGB, upright. pts: when it is shown, in the form's ticks by the source's clock."""
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
            self._shift = Fraction(max(0, clip.film.container.start_time or 0), 1_000_000)
        if (
            self._kind == "avi"
        ):  # which cannot say how pictures are turned, and whose clock ticks once a frame
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
            film_start = clip.film.start
            self._sound = Sound(clip.film, self._container, self._shift, start, film_start + clip.end)
            self._container.metadata.update(told(clip.film.container.metadata))
            self._stream.metadata.update(told(clip.film.stream.metadata))
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
        raise DataError(f"{self.output}: this PyAV cannot encode such films; pip install --upgrade av")

    def _mux(self, packets: list[Any]) -> None:
        assert self._container is not None
        for packet in packets:
            packet.duration = self._durations.pop(packet.pts, packet.duration)
            if self._sound is not None:
                self._sound.copy(float(packet.pts * packet.time_base))
            self._container.mux(packet)

    def _chapters(self, clip: Clip) -> Iterator[dict[str, Any]]:
        for chapter in clip.film.container.chapters():
            tick = chapter["time_base"]
            shift = round(self._shift / tick)
            start, end = chapter["start"] - shift, chapter["end"] - shift
            last = (clip.film.start + clip.end) / tick - shift
            if end > 0 and start < last:
                yield {**chapter, "start": max(0, start), "end": int(min(end, last))}


@contextmanager
def _writing(output: Path) -> Iterator[None]:
    """Within the context a failing write becomes a DataError that names the output."""
    import av

    try:
        yield
    except (OSError, ValueError, av.FFmpegError) as error:
        raise DataError(unwritten(output, error)) from None


def _layout(form: Form, known: list[str], codec: str) -> str:
    """The pixel layout, of those that the codec knows, nearest to the form's."""
    odd = (form.width % 2 and form.chroma != "444") or (form.height % 2 and form.chroma == "420")
    chroma = "444" if odd and codec == "libx264" else form.chroma  # it halves no odd sizes
    wanted = [f"yuv{chroma}p10le"] if form.deep else []
    return next(name for name in (*wanted, f"yuv{chroma}p", "yuv420p") if name in known)
