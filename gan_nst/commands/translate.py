"""`gan-nst translate`: a run or an exported generator, and images."""

import logging
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NoReturn

from gan_nst.core.device import rank_and_count, wait_for_all
from gan_nst.core.errors import SettingsError, counted, one_line
from gan_nst.images.finish import Finish, PreserveColor
from gan_nst.images.photo import LARGEST, Chroma, Encoding
from gan_nst.images.video_writer import VIDEO_SUFFIXES
from gan_nst.inference.folder import FolderOptions, Outcome, translate_folder
from gan_nst.inference.outputs import Format, Naming, is_finished
from gan_nst.inference.translator import MEMORY, Translator
from gan_nst.inference.video import (
    FrameFiles,
    VideoOptions,
    VideoOutcome,
    is_video,
    names_a_video,
    translate_video,
)
from gan_nst.runs.generators import load_translator

log = logging.getLogger(__name__)


_OF_VIDEOS = "--crf", "--fps"  # that are written
_OF_FRAMES = "--every", "--start", "--end", "--window", "--smooth"
_OF_IMAGES = "--format", "--suffix", "--quality", "--chroma"


def wants_video(source: Path, output: Path, frames: bool = False) -> bool:
    """Whether something is to be translated as a video: by its name, by that of the output, or because `frames` says
    that a folder's images follow each other.
    """
    return frames or is_video(source) or (output.suffix.lower() in VIDEO_SUFFIXES and not output.is_dir())


def check_options(source: Path, output: Path, frames: bool, resume: bool, given: Collection[str]) -> None:
    """Raises SettingsError, one line, for an option that would do nothing with this input and output.

    given: the options that the user named, "--crf" for example.
    """
    if not source.exists():
        return  # which is told later
    video, to_video = wants_video(source, output, frames), names_a_video(output)

    def refuse(options: Iterable[str], why: str) -> None:
        if idle := [option for option in options if option in given]:
            raise SettingsError(f"{source}: {', '.join(idle)}: {why}")

    if not video:
        refuse(_OF_VIDEOS, f"for a video, and {output} is none; name one, such as out.mp4, or leave it out")
        way = "--frames says that its images are one" if source.is_dir() else "leave it out"
        refuse(_OF_FRAMES, f"for a video, and this is none; {way}")
        return
    if frames and not source.is_dir():
        raise SettingsError(f"{source}: --frames: for a folder of images, and this is none; leave it out")
    if not source.is_dir():
        refuse(["--fps"], "for a folder of images, and a video keeps its own times; leave it out")
    if to_video:
        refuse(_OF_IMAGES, f"for images, and {output} is a video, whose quality is --crf; leave it out")
        return
    refuse(["--crf"], f"for a video, and {output} is none; name one, such as out.mp4, or leave it out")
    if not {"--start", "--end"} & set(given):  # which count frames by it
        refuse(["--fps"], f"for a video, and {output} is none; name one, such as out.mp4, or leave it out")
    if resume:
        _refuse_resume(output)


def translate_video_file(
    translator: Translator,
    source: Path,
    output: Path,
    options: VideoOptions,
    finish: Finish,
    files: FrameFiles,
    *,
    resume: bool = False,
    processes: int = 1,
) -> VideoOutcome:
    """Translates a video, or a folder of frames, and says what was written. resume: not where the output video is there
    and no older; frames are never taken up again. Raises GanNstError, one line, when nothing can be written.
    """
    if processes > 1:
        raise SettingsError(
            f"{source}: a video is translated by one process, not by {processes}; leave torchrun out"
        )
    if resume and not names_a_video(output):
        _refuse_resume(output)
    if resume and output.is_file() and is_finished(source, output):
        log.info(f"{output}: was finished already")
        return VideoOutcome(finished=1)
    outcome = translate_video(translator, source, output, options, finish, files)
    log.info(one_line(f"{counted(outcome.frames, 'frame')} translated into {output}"))
    return outcome


def _refuse_resume(output: Path) -> NoReturn:
    raise SettingsError(
        f"{output}: --resume: a video's frames are not taken up in between, as each depends on those before; leave it "
        "out, and give an empty folder, or --start"
    )


def translate(
    source: Path | str,
    images: Path | str,
    output: Path | str,
    *,
    direction: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    format: Format | None = None,
    suffix: str = "",
    quality: int = Encoding.quality,
    chroma: Chroma = Encoding.chroma,
    resume: bool = False,
    preserve_color: PreserveColor = "none",
    strength: float = 1.0,
    scale: float = 1.0,
    memory: int = MEMORY,
    scratch: Path | str | None = None,
    max_pixels: int = LARGEST,
    video: VideoOptions | None = None,
    frames: bool = False,
) -> Outcome:
    """Translates an image or a folder tree into the folder `output`, and returns what became of it; for one image,
    `output` may also be the file's name.

    source: a run, a checkpoint, or an exported generator's file. direction: "ab" or "ba"; by default the
    file's own, or the run's first. format, suffix: see Naming. quality, chroma: see Encoding. resume: leave out what
    is finished. preserve_color, strength, scale: see Finish. memory, in bytes, scratch: see Translator.
    max_pixels: pixels that an image may have. video: how videos, and folders that are a video's `frames`, are
    translated.
    Of several processes that torchrun started, each takes its part.
    Raises GanNstError, one line, for every mistake in what was given.
    """
    options = FolderOptions(
        Naming(format, suffix),
        Encoding(quality, chroma),
        Finish(preserve_color, strength, scale),
        resume=resume,
        largest=max_pixels,
        share=rank_and_count(),
    )
    translator = load_translator(source, direction, device, precision, memory=memory, scratch=scratch)
    if wants_video(Path(images), Path(output), frames):
        return translate_video_file(
            translator,
            Path(images),
            Path(output),
            video or VideoOptions(),
            options.finish,
            FrameFiles(options.naming, options.encoding, options.largest),
            resume=resume,
            processes=options.share[1],
        )
    _warn_of_videos(Path(images))
    outcome = translate_folder(translator, Path(images), Path(output), options)
    log.info(one_line(_summary(outcome, Path(output), options.share)))
    wait_for_all()
    return outcome


def _warn_of_videos(folder: Path) -> None:
    """A folder of images may hold videos, which are translated one by one."""
    videos = sum(is_video(path) for path in folder.rglob("*")) if folder.is_dir() else 0
    if videos:
        log.warning(f"{folder}: leaving out {counted(videos, 'video')} in it; give them one by one")


def _summary(outcome: Outcome, output: Path, share: tuple[int, int]) -> str:
    parts = [f"{counted(len(outcome.written), 'image')} translated into {output}"]
    if outcome.finished:
        parts.append(f"{outcome.finished} finished already")
    if outcome.failures:
        parts.append(f"{len(outcome.failures)} failed")
    if outcome.untried:
        parts.append(f"{outcome.untried} left")
    number, count = share
    return (f"process {number + 1} of {count}: " if count > 1 else "") + ", ".join(parts)
