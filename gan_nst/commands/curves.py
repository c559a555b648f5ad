"""`gan-nst curves`: what a run's curves look like and what they say."""

import logging
from collections.abc import Sequence
from pathlib import Path

from gan_nst.core.errors import SettingsError
from gan_nst.core.files import write_file
from gan_nst.diagnosis.curves import read_run
from gan_nst.diagnosis.figure import draw
from gan_nst.diagnosis.rules import Finding, describe, diagnose

log = logging.getLogger(__name__)


def curves(runs: Sequence[Path | str], *, out: Path | str | None = None) -> dict[str, list[Finding]]:
    """Draws the curves of one or more runs into one figure, and returns what each of them says, by the run's name.

    out: a PNG or SVG file; by default `curves.png` in the (first) run. Raises GanNstError for a folder that is no run.
    """
    if not runs:
        raise SettingsError("no run given")
    histories = [read_run(Path(run).resolve()) for run in runs]
    target = Path(runs[0], "curves.png") if out is None else Path(out)
    if target.suffix.lower() not in (".png", ".svg"):
        raise SettingsError(f"{target}: --out is a .png or .svg file")
    image = draw(histories, format="svg" if target.suffix.lower() == ".svg" else "png")
    write_file(target, image)
    found = {}
    for history in histories:
        found[history.name] = diagnose(history)
        log.info(f"{history.name}:")
        log.info(describe(found[history.name], history))
    log.info(f"figure: {target}")
    return found
