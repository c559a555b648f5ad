"""`gan-nst translate`: an image, a folder of images or a video through a generator."""

import logging
from collections.abc import Collection
from pathlib import Path

from gan_nst.core.device import rank_and_count, wait_for_all
from gan_nst.core.errors import DataError, SettingsError, counted, one_line
from gan_nst.core.options import TranslateOptions, flag
from gan_nst.images.video_writer import VIDEO_SUFFIXES
from gan_nst.inference.folder import Outcome, translate_folder
from gan_nst.inference.outputs import is_finished, names_a_file
from gan_nst.inference.video import VideoOutcome, is_video, translate_video
from gan_nst.runs.generators import load_translator

log = logging.getLogger(__name__)


def translate(
    source: Path | str,
    images: Path | str,
    output: Path | str,
    options: TranslateOptions = TranslateOptions(),
) -> Outcome:
    """Translates an image, a folder tree or a video into `output`, and returns what became of it.

    source: a run, a checkpoint, or an exported generator's file. output: a folder; for one image, or for a video, also
    a file's name. Of several processes started by torchrun, each translates its part of a folder.
    Raises GanNstError, one line, for every mistake in what was given.
    """
    images, output, share = Path(images), Path(output), rank_and_count()
    if not images.exists():
        raise DataError(f"{images}: no such file or folder")
    translator = load_translator(source, options)
    if wants_video(images, output, options.frames):
        _check_video(images, output, options, processes=share[1])
        if options.resume and output.is_file() and is_finished(images, output):
            log.info(f"{output}: already finished")
            return VideoOutcome(finished=1)
        video = translate_video(translator, images, output, options)
        log.info(one_line(f"{counted(video.frames, 'frame')} translated into {output}"))
        return video
    if images.is_dir() and (videos := sum(map(is_video, images.rglob("*")))):
        log.warning(f"{images}: skipping {counted(videos, 'video')}; translate them one by one")
    outcome = translate_folder(translator, images, output, options, share)
    log.info(one_line(_summary(outcome, output, share)))
    wait_for_all()
    return outcome


def wants_video(source: Path, output: Path, frames: bool = False) -> bool:
    """Whether to translate as a video: by the name of the input or of the output, or because `frames` says that the
    images of a folder are its frames.
    """
    return frames or is_video(source) or (output.suffix.lower() in VIDEO_SUFFIXES and not output.is_dir())


def translate_as_typed(
    source: Path, images: Path, output: Path, options: TranslateOptions, typed: Collection[str]
) -> Outcome:
    """`translate`, but raises SettingsError, one line, for an option that has no effect with this input and output.

    typed: the names of the options that the user typed.
    """
    if images.exists():
        _check_options(images, output, options, typed)
    return translate(source, images, output, options)


def _check_options(source: Path, output: Path, options: TranslateOptions, typed: Collection[str]) -> None:
    video, into_video = wants_video(source, output, options.frames), names_a_file(output)
    if options.frames and not source.is_dir():
        raise SettingsError(f"{source}: --frames: only for a folder of images; omit it")
    no_video_out = f"only for videos, but {output} is not one; give a name such as out.mp4, or omit it"
    part = {"start", "end"} & set(typed)  # which count frames by --fps
    for idle, names, why in (
        (not video or not into_video, ("crf",), no_video_out),
        (
            video and not source.is_dir(),
            ("fps",),
            "only for a folder of images, as a video keeps its own times; omit it",
        ),
        (not video or not (into_video or part), ("fps",), no_video_out),
        (
            not video,
            ("every", "start", "end", "window", "smooth"),
            "only for videos; " + ("add --frames if its images are frames" if source.is_dir() else "omit it"),
        ),
        (
            video and into_video,
            ("format", "suffix", "quality", "chroma"),
            f"only for images, but {output} is a video, whose quality is --crf; omit it",
        ),
    ):
        flags = ", ".join(flag(name) for name in names if name in typed)
        if idle and flags:
            raise SettingsError(f"{source}: {flags}: {why}")
    if video and not into_video:
        _check_video(source, output, options)


def _check_video(source: Path, output: Path, options: TranslateOptions, processes: int = 1) -> None:
    if processes > 1:
        raise SettingsError(
            f"{source}: a video is translated by one process, not by {processes}; omit torchrun"
        )
    if options.resume and not names_a_file(output):
        raise SettingsError(
            f"{output}: --resume: frames of a video cannot be resumed, as each depends on those before; omit it, and "
            "give an empty folder, or --start"
        )


def _summary(outcome: Outcome, output: Path, share: tuple[int, int]) -> str:
    parts = [f"{counted(len(outcome.written), 'image')} translated into {output}"]
    others = {
        "already finished": outcome.finished,
        "failed": len(outcome.failures),
        "not attempted": outcome.untried,
    }
    parts += [f"{count} {what}" for what, count in others.items() if count]
    number, count = share
    return (f"process {number + 1} of {count}: " if count > 1 else "") + ", ".join(parts)
