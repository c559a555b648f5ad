"""`gan-nst translate`: a run or an exported generator, and pictures."""

import logging
from pathlib import Path

from gan_nst.commands.film import translate_film, wants_film
from gan_nst.core import processes
from gan_nst.core.errors import counted, one_line
from gan_nst.images.finish import Finish, PreserveColor
from gan_nst.images.photo import LARGEST, Chroma, Encoding
from gan_nst.inference.folder import FolderOptions, Outcome, translate_folder
from gan_nst.inference.outputs import Format, Naming
from gan_nst.inference.translator import MEMORY
from gan_nst.inference.video import FrameFiles, VideoOptions, is_film
from gan_nst.runs.generators import load_translator

log = logging.getLogger(__name__)


def translate(
    source: Path | str,
    pictures: Path | str,
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
    fast: bool = False,
    scratch: Path | str | None = None,
    max_pixels: int = LARGEST,
    video: VideoOptions | None = None,
    frames: bool = False,
) -> Outcome:
    """Translates a picture or a folder tree into the folder `output`, and returns what became of it; for one picture,
    `output` may also be the file's name.

    source: a run, a checkpoint, or an exported generator's file. direction: "ab" or "ba"; by default the
    file's own, or the run's first. format, suffix: see Naming. quality, chroma: see Encoding. resume: leave out what
    is finished. preserve_color, strength, scale: see Finish. memory, in bytes, fast, scratch: see Translator.
    max_pixels: pixels that a picture may have. video: how films are translated, and folders that are a film's `frames`.
    Of several processes that torchrun started, each takes its part.
    Raises GanNstError, one line, for every mistake in what was given.
    """
    options = FolderOptions(
        Naming(format, suffix),
        Encoding(quality, chroma),
        Finish(preserve_color, strength, scale),
        resume=resume,
        largest=max_pixels,
        share=processes.share(),
    )
    translator = load_translator(
        source, direction, device, precision, memory=memory, fast=fast, scratch=scratch
    )
    if wants_film(Path(pictures), Path(output), frames):
        return translate_film(
            translator,
            Path(pictures),
            Path(output),
            video or VideoOptions(),
            options.finish,
            FrameFiles(options.naming, options.encoding, options.largest),
            resume=resume,
            processes=options.share[1],
        )
    _warn_of_films(Path(pictures))
    outcome = translate_folder(translator, Path(pictures), Path(output), options)
    log.info(one_line(_summary(outcome, Path(output), options.share)))
    processes.wait_for_all()
    return outcome


def _warn_of_films(folder: Path) -> None:
    """A folder of pictures may hold films, which are translated one by one."""
    films = sum(is_film(path) for path in folder.rglob("*")) if folder.is_dir() else 0
    if films:
        log.warning(f"{folder}: leaving out {counted(films, 'film')} in it; give them one by one")


def _summary(outcome: Outcome, output: Path, share: tuple[int, int]) -> str:
    parts = [f"{counted(len(outcome.written), 'picture')} translated into {output}"]
    if outcome.finished:
        parts.append(f"{outcome.finished} finished already")
    if outcome.failures:
        parts.append(f"{len(outcome.failures)} failed")
    if outcome.untried:
        parts.append(f"{outcome.untried} left")
    number, count = share
    return (f"process {number + 1} of {count}: " if count > 1 else "") + ", ".join(parts)
