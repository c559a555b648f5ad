"""What a film holds beside its pictures, sound and subtitles, carried into another file packet by packet."""

import logging
import math
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from gan_nst.core.errors import counted, reason
from gan_nst.images.video import Film, stamp

if TYPE_CHECKING:
    from av import Packet, Stream
    from av.container import OutputContainer

log = logging.getLogger(__name__)

# Codecs for sound that a container cannot hold as it is, which open their streams: name, rate.
_ANEW = {"webm": ("libopus", 48000)}
_OWN = {"encoder", "duration", "vendor_id", "number_of_frames", "number_of_bytes"}


class Sound:
    """The sound and the subtitles of a film, on their way into `output`; its streams are added there at once.

    They are read by themselves, as far as the pictures have come, so that nothing piles up. shift: what is taken from
    all times, in seconds. start, end: packets are copied from and to there, by the film's own clock. What of them
    cannot be read becomes a fault of the film's when they end.
    """

    def __init__(
        self, film: Film, output: "OutputContainer", shift: Fraction, start: float, end: float
    ) -> None:
        import av

        self._av, self._output, self._shift, self._end = av, output, shift, end
        self._film, self._damaged, self._error = film, 0, ""
        self._heard: dict[int, float] = {}  # until when each stream was read, by the film's clock
        # What a sound codec needs to swing in comes before 0, for which some would move everything.
        self._start = start if output.format.name in ("mp4", "mov") else max(start, float(shift))
        self._input = av.open(str(film.path.absolute()))
        self._anew: dict[int, Any] = {}
        streams = {}
        for stream in self._input.streams:
            if stream.type in ("audio", "subtitle", "attachment"):
                if (copy := self._add(stream, film)) is not None:
                    streams[stream.index] = copy
            elif stream.type == "data":
                log.info(f"{film.path}: its stream {stream.index}, of other data, is left out")
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
        faults = [f"{self._film.path}: {fault}" for fault in self._faults()]
        self._film.faults += faults
        for fault in faults:
            log.warning(fault)

    def close(self) -> None:
        self._input.close()

    def _add(self, stream: "Stream", film: Film) -> "Stream | None":
        """The stream's counterpart in the output; None when there can be none, with a warning."""
        kind = self._output.format.name
        codec = stream.codec_context.name if stream.codec_context is not None else "data of an unknown kind"
        try:
            copy = self._output.add_stream_from_template(stream)
        except (ValueError, self._av.FFmpegError):
            if stream.type != "audio" or stream.codec_context is None:
                log.warning(f"{film.path}: its {stream.type} ({codec}) is left out, which {kind} cannot hold")
                return None
            name, rate = _ANEW.get(kind, ("aac", stream.codec_context.sample_rate))
            copy = self._output.add_stream(name, rate=rate)
            copy.codec_context.layout = stream.codec_context.layout
            copy.codec_context.bit_rate = 64000 * max(2, stream.codec_context.layout.nb_channels)
            self._anew[stream.index] = copy
            log.warning(
                f"{film.path}: its sound ({codec}) is encoded anew ({name}), as {kind} cannot hold it"
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
