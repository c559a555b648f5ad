"""`gan-nst translate` where a film comes in or goes out."""

import logging
from pathlib import Path

from gan_nst.errors import SettingsError
from gan_nst.inference.film.muxing import FILM_SUFFIXES
from gan_nst.inference.film.video import FilmOutcome, VideoOptions, is_film, translate_video
from gan_nst.inference.finishing.finish import Finish
from gan_nst.inference.folder.outputs import is_finished
from gan_nst.inference.translator import Translator

log = logging.getLogger(__name__)


def wants_film(source: Path, output: Path, frames: bool = False) -> bool:
    """Whether something is to be translated as a film: by its name, by that of the output, or because `frames` says
    that a folder's pictures follow each other.
    """
    return frames or is_film(source) or (output.suffix.lower() in FILM_SUFFIXES and not output.is_dir())


def translate_film(
    translator: Translator,
    source: Path,
    output: Path,
    options: VideoOptions,
    finish: Finish,
    *,
    resume: bool = False,
    processes: int = 1,
) -> FilmOutcome:
    """Translates a film, or a folder of frames, and says what was written. resume: not where the output film is there
    and no older. Raises GanNstError, one line, when nothing can be written.
    """
    if processes > 1:
        raise SettingsError(
            f"{source}: a film is translated by one process, not by {processes}; leave torchrun out"
        )
    if resume and output.is_file() and is_finished(source, output):
        log.info(f"{output}: was finished already")
        return FilmOutcome(finished=1)
    outcome = translate_video(translator, source, output, options, finish)
    log.info(f"{outcome.frames} frames translated into {output}")
    return outcome
