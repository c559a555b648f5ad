"""Translates a video, keeping its sound, frame times and format, and reducing flicker."""

import logging
import os
import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path

import torch
from torch import Tensor

from gan_nst.core.errors import DataError, counted
from gan_nst.core.options import Naming, TranslateOptions
from gan_nst.core.terminal import progress_bar
from gan_nst.images.finish import complete, prepare
from gan_nst.images.photo import FORMATS, Photo, write_photo
from gan_nst.images.video import Footage, FrameFolder, Shot
from gan_nst.images.video_writer import VIDEO_SUFFIXES, Clip, VideoWriter
from gan_nst.inference.folder import Outcome, read_ahead
from gan_nst.inference.outputs import inputs, make_folder, names_a_file, output_name, plan_outputs
from gan_nst.inference.translator import Translator
from gan_nst.networks.resnet import ResnetGenerator
from gan_nst.tiling.flow import CutDetector, Smoother
from gan_nst.tiling.segments import stages

log = logging.getLogger(__name__)


class Window:
    """Shares a norm's statistics over a sliding window of frames; pass it to Translator.translate.

    length: frames in the window, the current one included; 1 shares nothing. norm: the name of the norm. The frames
    must come in order, any number at a time.
    """

    def __init__(self, length: int, norm: str) -> None:
        self.norm = norm
        self._kept: deque[tuple[Tensor, Tensor]] = deque(maxlen=length)

    def reset(self) -> None:
        """Forgets the frames so far; call it at a cut."""
        self._kept.clear()

    def __call__(self, name: str, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the mean and biased variance over all pixels of each frame's window; (n, c) in and out.

        By the law of total variance, the variance is the mean of the frames' variances plus the variance of their
        means.
        """
        if name != self.norm:
            return mean, variance
        pooled = []
        for frame in zip(mean, variance, strict=True):
            self._kept.append(frame)
            means, variances = (torch.stack(one) for one in zip(*self._kept, strict=True))
            centre = means.mean(0)
            pooled.append((centre, variances.mean(0) + (means - centre).square().mean(0)))
        means, variances = (torch.stack(one) for one in zip(*pooled, strict=True))
        return means, variances


SUFFIXES = frozenset(
    {*VIDEO_SUFFIXES, ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ogv", ".vob", ".y4m"}
)

_READ_AHEAD = 64 * 2**20  # bytes


@dataclass
class VideoOutcome(Outcome):
    """The result of translating a video. written: the video, or its frames. failures: parts that were unreadable."""

    frames: int = 0

    @property
    def trouble(self) -> str:
        return f"the video could only be read in part ({counted(len(self.failures), 'fault')})"


def is_video(path: Path) -> bool:
    """Whether a path has a video's suffix and is not a folder."""
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


def translate_video(
    translator: Translator,
    source: Path,
    output: Path,
    options: TranslateOptions = TranslateOptions(),
) -> VideoOutcome:
    """Translates a video or a folder of frames into a video or a folder of frames (000001.png and so on).

    An output without a suffix is a folder. A damaged or truncated video is translated as far as it can be read, and
    the outcome reports it. Raises DataError, and leaves no video, when nothing can be read or written.
    """
    outcome = VideoOutcome()
    with (
        closing(_source(source, output, options)) as video,
        _sink(video, output, options, outcome) as sink,
    ):
        if options.window > 1 and not translator.takes_statistics:
            log.warning("this generator cannot share statistics between frames; ignoring --window")
            options = replace(options, window=1)
        with (
            progress_bar(f"translating {source.name}") as report,
            closing(_decode_ahead(video)) as shots,
        ):
            for shot, photo in translate_shots(translator, shots, options):
                sink(shot, photo)
                outcome.frames += 1
                if report is not None:
                    report(shot.share)
    outcome.failures += video.faults
    return outcome


def _decode_ahead(video: Footage | FrameFolder) -> Generator[Shot, None, None]:
    """Yields the video's shots in order, decoded in a thread ahead of the caller."""
    shots = video.shots()

    def size(shot: Shot | None) -> int:
        return 0 if shot is None else shot.photo.pixels.nbytes

    with closing(read_ahead(lambda _: next(shots, None), repeat(None), size, 1, _READ_AHEAD)) as decoded:
        yield from iter(lambda: next(decoded), None)


def translate_shots(
    translator: Translator, shots: Iterable[Shot], options: TranslateOptions
) -> Iterator[tuple[Shot, Photo]]:
    """Yields the shots with their translations, in order; shared statistics and smoothing restart at every cut."""
    window = Window(options.window, _last_norm(translator)) if options.window > 1 else None
    smoother = Smoother(options.smooth) if options.smooth else None
    for batch, begins in _batches(shots, translator.fits):
        if begins and window is not None:
            window.reset()
        if begins and smoother is not None:
            smoother.reset()
        images = [prepare(shot.photo, options) for shot in batch]
        for shot, translated in zip(batch, translator.translate(images, window), strict=True):
            photo = complete(shot.photo, translated, options)
            if smoother is not None:
                photo = replace(photo, pixels=smoother(shot.photo.pixels, photo.pixels))
            yield shot, photo


def _batches(shots: Iterable[Shot], fits: Callable[[int, int], int]) -> Iterator[tuple[list[Shot], bool]]:
    """Yields consecutive shots that may be translated together, and whether they begin a scene."""
    cuts, batch, begins = CutDetector(), list[Shot](), True
    for shot in shots:
        pixels, cut = shot.photo.pixels, cuts(shot.photo.pixels)
        if batch:
            first = batch[0].photo.pixels
            most = max(1, fits(*first.shape[:2]))
            if cut or len(batch) >= most or (pixels.shape, pixels.dtype) != (first.shape, first.dtype):
                yield batch, begins
                batch, begins = [], False
        batch.append(shot)
        begins = begins or cut
    if batch:
        yield batch, begins


@contextmanager
def _sink(
    video: Footage | FrameFolder, output: Path, options: TranslateOptions, outcome: VideoOutcome
) -> Iterator[Callable[[Shot, Photo], None]]:
    """A context whose value is called with each shot and its translation, in order, to write them."""
    if names_a_file(output):
        clip = Clip(video.video, options.start, options.end) if isinstance(video, Footage) else None
        if clip is not None and output.exists() and output.samefile(clip.video.path):
            raise DataError(f"{output}: would overwrite the input; give another name")
        with VideoWriter(output, options.crf, clip) as writer:
            yield lambda shot, photo: writer.add(photo.pixels, shot.form, shot.pts, shot.duration)
        outcome.written.append(output)
        return
    if isinstance(video, Footage):
        _make_empty(output, options)
    names = plan_outputs(video.folder, output, options) if isinstance(video, FrameFolder) else {}

    def write(shot: Shot, photo: Photo) -> None:
        number = Path(f"{outcome.frames + 1:06}")
        target = output / output_name(number, options) if shot.file is None else names[shot.file]
        write_photo(photo, target, options)
        outcome.written.append(target)

    yield write


def _source(source: Path, output: Path, options: TranslateOptions) -> Footage | FrameFolder:
    """Opens the input. Raises DataError when there is none, or when a video's frames have too many pixels."""
    if not source.exists():
        raise DataError(f"{source}: no such video or folder")
    part = options.every, options.start, options.end
    if not source.is_dir():
        footage = Footage(source, *part)
        width, height = footage.video.stream.width, footage.video.stream.height
        if width * height > options.max_pixels:
            footage.close()
            raise DataError(
                f"{source}: frames have {width}x{height} pixels, more than the {options.max_pixels} allowed; "
                "raise --max-pixels"
            )
        return footage
    return FrameFolder(
        source,
        inputs(source, output),
        options.fps,
        *part,
        largest=options.max_pixels,
        same=names_a_file(output),
    )


def _make_empty(folder: Path, naming: Naming) -> None:
    """Creates a folder for a video's frames. Raises DataError when it has older frames, which would mix with them."""
    if folder.exists() and not folder.is_dir():
        raise DataError(
            f"{folder}: is a file; give a folder for frames, or a name ending in one of {' '.join(VIDEO_SUFFIXES)}"
        )
    make_folder(folder)
    frame = re.compile(rf"\d{{6,}}({re.escape(naming.suffix)})?\.({'|'.join(s[1:] for s in FORMATS)})", re.I)
    earlier = min(filter(frame.fullmatch, os.listdir(folder)), default=None)
    if earlier is not None:
        raise DataError(f"{folder}: already has frames ({earlier}); remove them or give another folder")


def _last_norm(translator: Translator) -> str:
    """The name of the generator's last instance norm."""
    assert isinstance(translator.generator, ResnetGenerator)
    return [link.name for link in stages(translator.generator) if link.segment.norm is not None][-1]
