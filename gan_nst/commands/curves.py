"""`gan-nst curves`: draws the curves of runs, and diagnoses them."""

import logging
from collections.abc import Sequence
from pathlib import Path

from gan_nst.core.errors import SettingsError
from gan_nst.core.files import write_file
from gan_nst.diagnosis.curves import read_run
from gan_nst.diagnosis.figure import draw
from gan_nst.diagnosis.rules import Finding, describe, diagnose

log = logging.getLogger(__name__)


def curves(runs: Sequence[Path | str], output: Path | str | None = None) -> dict[str, list[Finding]]:
    """Draws the curves of one or more runs into one figure, and returns the findings by run name.

    output: a PNG or SVG file; by default `curves.png` in the first run. Raises GanNstError for a folder that is not a
    run.
    """
    if not runs:
        raise SettingsError("no run given")
    histories = [read_run(Path(run).resolve()) for run in runs]
    target = Path(runs[0], "curves.png") if output is None else Path(output)
    if target.suffix.lower() not in (".png", ".svg"):
        raise SettingsError(
            f"{target}: figures are written as .png or .svg; give --output one of these suffixes"
        )
    image = draw(histories, format="svg" if target.suffix.lower() == ".svg" else "png")
    write_file(target, image)
    found = {}
    for history in histories:
        found[history.name] = diagnose(history)
        log.info(f"{history.name}:")
        log.info(describe(found[history.name], history))
    log.info(f"figure: {target}")
    return found
