"""A video in, the translated video out: with its sound, its times and its form, and without flicker."""

import logging
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from gan_nst.core.errors import DataError, counted
from gan_nst.core.options import Naming, TranslateOptions
from gan_nst.core.terminal import progress_bar
from gan_nst.images.finish import complete, prepare
from gan_nst.images.photo import FORMATS, Photo, write_photo
from gan_nst.images.video import Footage, Shot, Stills
from gan_nst.images.video_writer import VIDEO_SUFFIXES, Clip, VideoWriter
from gan_nst.inference.folder import Outcome, ahead
from gan_nst.inference.outputs import inputs, make_folder, output_name, plan_outputs
from gan_nst.inference.translator import Translator
from gan_nst.networks.resnet import ResnetGenerator
from gan_nst.tiling.flow import Cuts, Smoother
from gan_nst.tiling.segments import links

log = logging.getLogger(__name__)


class Window:
    """Statistics, for Translator.translate, of each frame and the `length` - 1 before it; 1: of the frame alone.

    norm: the name of the one that shares them. The frames come in their order, any number at a time.
    """

    def __init__(self, length: int, norm: str) -> None:
        self.norm = norm
        self._kept: deque[tuple[Tensor, Tensor]] = deque(maxlen=length)

    def reset(self) -> None:
        """Forgets the frames so far: at a cut."""
        self._kept.clear()

    def __call__(self, name: str, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the biased variance of all pixels of each frame's window; (n, c) in and out.

        name: of the norm. By the law of total variance: the mean of the frames' variances, and the variance of their
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
    """What became of a video: `written` is the video, or its images; `failures` are parts that could not be read."""

    frames: int = 0

    @property
    def trouble(self) -> str:
        return f"not everything could be read, {counted(len(self.failures), 'fault')}"


def is_video(path: Path) -> bool:
    """Whether a path is named like a video's file."""
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


def translate_video(
    translator: Translator,
    source: Path,
    output: Path,
    options: TranslateOptions = TranslateOptions(),
) -> VideoOutcome:
    """Translates a video, or a folder of its frames, into a video, or a folder of frames named 000001.png and so on.

    What an output without a video's suffix names is a folder. A video that is damaged or breaks off is translated as
    far as it can be read, and the outcome says so. Raises DataError, and leaves no video, when nothing can be read or
    the output not be written.
    """
    outcome = VideoOutcome()
    with (
        closing(_source(source, output, options)) as video,
        _sink(video, output, options, outcome) as sink,
    ):
        if options.window > 1 and not translator.takes_statistics:
            log.warning("this generator's statistics cannot be shared between frames; --window is left out")
            options = replace(options, window=1)
        with (
            progress_bar(f"translating {source.name}") as report,
            closing(ahead(_itself, video.shots(), _bytes, 1, _READ_AHEAD)) as shots,
        ):
            for shot, photo in stylize(translator, shots, options):
                sink(shot, photo)
                outcome.frames += 1
                if report is not None:
                    report(shot.share)
    outcome.failures += video.faults
    return outcome


def stylize(
    translator: Translator, shots: Iterable[Shot], options: TranslateOptions
) -> Iterator[tuple[Shot, Photo]]:
    """The shots with their translations, in order; shared statistics and smoothing begin anew at every cut."""
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
    """Shots in a row that may pass the network together, and whether they begin a scene."""
    cuts, batch, begins = Cuts(), list[Shot](), True
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
    video: Footage | Stills, output: Path, options: TranslateOptions, outcome: VideoOutcome
) -> Iterator[Callable[[Shot, Photo], None]]:
    """Where translations go: within the context, call it with each."""
    if names_a_video(output):
        clip = Clip(video.video, options.start, options.end) if isinstance(video, Footage) else None
        if clip is not None and output.exists() and output.samefile(clip.video.path):
            raise DataError(f"{output}: would be written over the input; give another name")
        with VideoWriter(output, options.crf, clip) as writer:
            yield lambda shot, photo: writer.add(photo.pixels, shot.form, shot.pts, shot.duration)
        outcome.written.append(output)
        return
    if isinstance(video, Footage):
        _make_empty(output, options)
    names = plan_outputs(video.folder, output, options) if isinstance(video, Stills) else {}

    def write(shot: Shot, photo: Photo) -> None:
        number = Path(f"{outcome.frames + 1:06}")
        target = output / output_name(number, options) if shot.file is None else names[shot.file]
        write_photo(photo, target, options)
        outcome.written.append(target)

    yield write


def _source(source: Path, output: Path, options: TranslateOptions) -> Footage | Stills:
    """What is to be translated. Raises DataError when there is nothing, or a video's frames have too many pixels."""
    if not source.exists():
        raise DataError(f"{source}: no such video or folder")
    part = options.every, options.start, options.end
    if not source.is_dir():
        footage = Footage(source, *part)
        width, height = footage.video.stream.width, footage.video.stream.height
        if width * height > options.max_pixels:
            footage.close()
            raise DataError(
                f"{source}: has frames of {width}x{height} pixels, more than the {options.max_pixels} that are "
                "allowed; --max-pixels allows more"
            )
        return footage
    return Stills(
        source,
        inputs(source, output),
        options.fps,
        *part,
        largest=options.max_pixels,
        same=names_a_video(output),
    )


def names_a_video(output: Path) -> bool:
    """Whether an output is a video; else it is a folder. VideoWriter refuses suffixes that it does not know."""
    return bool(output.suffix) and not output.is_dir()


def _make_empty(folder: Path, naming: Naming) -> None:
    """A folder for a video's frames, without earlier ones, of whatever format, which would mix with them."""
    if folder.exists() and not folder.is_dir():
        raise DataError(
            f"{folder}: is a file; a video's frames need a folder, a video one of {' '.join(VIDEO_SUFFIXES)}"
        )
    make_folder(folder)
    ending = "|".join(map(re.escape, FORMATS))
    frame = re.compile(rf"\d{{6,}}({re.escape(naming.suffix)})?({ending})", re.I)
    try:
        earlier = next(filter(frame.fullmatch, sorted(os.listdir(folder))), None)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from None
    if earlier is not None:
        raise DataError(f"{folder}: has frames already ({earlier}); remove them or give another folder")


def _last_norm(translator: Translator) -> str:
    """The name of the generator's last instance norm."""
    assert isinstance(translator.generator, ResnetGenerator)
    return [link.name for link in links(translator.generator) if link.segment.norm is not None][-1]


def _itself(shot: Shot) -> Shot:
    return shot


def _bytes(shot: Shot) -> int:
    return shot.photo.pixels.nbytes
