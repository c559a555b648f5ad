"""What a film's pictures are beside what they show: the form in which they are stored, read and written alike."""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, cast

import numpy as np

from gan_nst.images.photo import Pixels
from gan_nst.images.video import Film

if TYPE_CHECKING:
    from av import VideoFrame

Matrix = tuple[int, ...]

_BT709, _UNTOLD, _BT601 = 1, 2, 6  # FFmpeg's numbers of matrices
_SCALERS = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}  # swscale's numbers of the same
_FULL, _LIMITED = 2, 1
_FINE = 0x4 | 0x40000 | 0x2000  # bicubic, rounded accurately, colours interpolated in full


@dataclass(frozen=True)
class Form:
    """width, height: as stored, before they are turned. chroma: "420", "422" or "444". deep: more than 8 bits.

    space, range, primaries, transfer: what the file says of its colours, by FFmpeg's numbers; what it leaves open stays
    open, and is taken as players do. turn: the display matrix. aspect: of a pixel. tick, rate: the unit of its times,
    in seconds, and frames a second.
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
        """A decoded frame as RGB, (h, w, 3), as stored."""
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
        """A frame to encode, of a pixel layout of FFmpeg's. pixels: RGB as stored, (h, w, 3)."""
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
        """The form of the same pictures stored upright."""
        if not _moves(self.turn)[0]:
            return replace(self, turn=None)
        aspect = 1 / self.aspect if self.aspect else None
        return replace(self, width=self.height, height=self.width, aspect=aspect, turn=None)

    @property
    def _scaler(self) -> int:
        """The matrix, by swscale's number: BT.709 for HD that tells none, and BT.601 for smaller pictures."""
        return _SCALERS.get(self.space, 1 if self.height >= 720 else 5)

    @property
    def _levels(self) -> int:
        return _FULL if self.range == _FULL else _LIMITED


def form_of(film: Film, frame: "VideoFrame") -> Form:
    """The form of a film. frame: its first, which tells more than the file's head."""
    layout = frame.format
    coloured = len(layout.components) >= 3  # gray is written with colours of half the size
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
        tick=film.stream.time_base or 1 / film.rate,
        rate=film.rate,
        chroma=chroma,
        deep=max(component.bits for component in layout.components) > 8,
        space=space,
        range=levels,
        primaries=frame.color_primaries,
        transfer=frame.color_trc,
        turn=_turn(frame),
        aspect=film.stream.sample_aspect_ratio or None,
    )


def upright(pixels: Pixels, turn: Matrix | None) -> Pixels:
    """The picture, (h, w, c), as a player shows it. turn: a display matrix; other than right angles turn nothing."""
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
    """What a display matrix does: whether it swaps rows and columns, then mirrors across, and down."""
    if turn is None:
        return False, False, False
    a, b, c, d = (round(turn[at] / 65536) for at in (0, 1, 3, 4))  # x' = a x + c y; y' = b x + d y
    if a and d and not (b or c):
        return False, a < 0, d < 0
    if b and c and not (a or d):
        return True, c < 0, b < 0
    return False, False, False
