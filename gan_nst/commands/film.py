"""`gan-nst translate` where a film comes in or goes out."""

import logging
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NoReturn

from gan_nst.core.errors import SettingsError, counted, one_line
from gan_nst.images.finish import Finish
from gan_nst.images.muxing import FILM_SUFFIXES
from gan_nst.inference.outputs import is_finished
from gan_nst.inference.translator import Translator
from gan_nst.inference.video import (
    FilmOutcome,
    FrameFiles,
    VideoOptions,
    is_film,
    names_a_film,
    translate_video,
)

log = logging.getLogger(__name__)

_OF_FILMS = "--crf", "--fps"  # that are written
_OF_FRAMES = "--every", "--start", "--end", "--window", "--smooth"
_OF_PICTURES = "--format", "--suffix", "--quality", "--chroma"


def wants_film(source: Path, output: Path, frames: bool = False) -> bool:
    """Whether something is to be translated as a film: by its name, by that of the output, or because `frames` says
    that a folder's pictures follow each other.
    """
    return frames or is_film(source) or (output.suffix.lower() in FILM_SUFFIXES and not output.is_dir())


def check_options(source: Path, output: Path, frames: bool, resume: bool, given: Collection[str]) -> None:
    """Raises SettingsError, one line, for an option that would do nothing with this input and output.

    given: the options that the user named, "--crf" for example.
    """
    if not source.exists():
        return  # which is told later
    film, to_film = wants_film(source, output, frames), names_a_film(output)

    def refuse(options: Iterable[str], why: str) -> None:
        if idle := [option for option in options if option in given]:
            raise SettingsError(f"{source}: {', '.join(idle)}: {why}")

    if not film:
        refuse(_OF_FILMS, f"for a film, and {output} is none; name one, such as out.mp4, or leave it out")
        way = "--frames says that its pictures are one" if source.is_dir() else "leave it out"
        refuse(_OF_FRAMES, f"for a film, and this is none; {way}")
        return
    if frames and not source.is_dir():
        raise SettingsError(f"{source}: --frames: for a folder of pictures, and this is none; leave it out")
    if not source.is_dir():
        refuse(["--fps"], "for a folder of pictures, and a film keeps its own times; leave it out")
    if to_film:
        refuse(_OF_PICTURES, f"for pictures, and {output} is a film, whose quality is --crf; leave it out")
        return
    refuse(["--crf"], f"for a film, and {output} is none; name one, such as out.mp4, or leave it out")
    if not {"--start", "--end"} & set(given):  # which count frames by it
        refuse(["--fps"], f"for a film, and {output} is none; name one, such as out.mp4, or leave it out")
    if resume:
        _refuse_resume(output)


def translate_film(
    translator: Translator,
    source: Path,
    output: Path,
    options: VideoOptions,
    finish: Finish,
    files: FrameFiles,
    *,
    resume: bool = False,
    processes: int = 1,
) -> FilmOutcome:
    """Translates a film, or a folder of frames, and says what was written. resume: not where the output film is there
    and no older; frames are never taken up again. Raises GanNstError, one line, when nothing can be written.
    """
    if processes > 1:
        raise SettingsError(
            f"{source}: a film is translated by one process, not by {processes}; leave torchrun out"
        )
    if resume and not names_a_film(output):
        _refuse_resume(output)
    if resume and output.is_file() and is_finished(source, output):
        log.info(f"{output}: was finished already")
        return FilmOutcome(finished=1)
    outcome = translate_video(translator, source, output, options, finish, files)
    log.info(one_line(f"{counted(outcome.frames, 'frame')} translated into {output}"))
    return outcome


def _refuse_resume(output: Path) -> NoReturn:
    raise SettingsError(
        f"{output}: --resume: a film's frames are not taken up in between, as each depends on those before; leave it "
        "out, and give an empty folder, or --start"
    )
