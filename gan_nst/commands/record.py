"""What an evaluation leaves in a run: evaluation.json, sheets of pictures, and report.html."""

import io
import json
import logging
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from gan_nst import __version__
from gan_nst.commands.assess import Sheet
from gan_nst.commands.runs import write_whole
from gan_nst.errors import DataError
from gan_nst.evaluation import report
from gan_nst.evaluation.curves import History, read_run
from gan_nst.evaluation.diagnosis import Finding, describe, diagnose
from gan_nst.evaluation.figure import draw
from gan_nst.images import Picture, write_picture

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """An evaluation ready to be written: the texts of evaluation.json and report.html, sheets, and what to say."""

    evaluation: str
    page: str
    sheets: Sequence[Sheet]
    findings: str

    def write(self, run: Path) -> None:
        """Leaves it in a run, in place of what was there."""
        for sheet in self.sheets:
            write_picture(sheet.picture, run / "samples" / f"{sheet.name}.png")
        write_whole(run / "report.html", self.page)
        write_whole(run / "evaluation.json", self.evaluation)


def prepare_record(run: Path, evaluation: Mapping[str, Any], sheets: Sequence[Sheet]) -> Record:
    """A run's evaluation with its curves and what they say, its times and the machine."""
    history = _history(run)
    findings: list[Finding] = [] if history is None else diagnose(history)
    told = {
        **evaluation,
        **({} if history is None else {"training": _training(history)}),
        "environment": _environment(),
    }
    settings = run / "settings.yaml"
    page = report.render(
        report.Report(
            title=_title(run, history),
            evaluation=told,
            findings=findings,
            curves_svg=None if history is None else draw([history], format="svg"),
            sheets=[report.Sheet(sheet.caption, _png(sheet.picture)) for sheet in sheets],
            settings=settings.read_text(encoding="utf-8") if settings.exists() else "",
        )
    )
    return Record(to_json(told), page, sheets, "" if history is None else describe(findings, history))


def to_json(result: Mapping[str, Any]) -> str:
    """The text of a result's file."""
    return json.dumps(result, indent=2, default=str, ensure_ascii=False) + "\n"


def _title(run: Path, history: History | None) -> str:
    settings = {} if history is None else history.settings
    parts = [
        settings.get("data", {}).get("domain"),
        settings.get("method", {}).get("name"),
        run.resolve().name,
    ]
    return " / ".join(str(part) for part in parts if part)


def _history(run: Path) -> History | None:
    try:
        return read_run(run)
    except DataError as error:  # a run may be judged without its curves
        log.warning(f"no curves in the report: {error}")
        return None


def _training(history: History) -> dict[str, float]:
    """How long the run took, and the validations' share of it, from what it logged as it went."""
    speed, spent = (
        history.series.get("speed/steps_per_second"),
        history.series.get("speed/validation_seconds"),
    )
    if speed is None or not len(speed.steps):
        return {}
    logged = speed.steps
    before = [0, *logged[:-1]]
    training = sum(
        (step - last) / value
        for step, last, value in zip(logged, before, speed.values, strict=True)
        if value > 0
    )
    validation = 0.0 if spent is None else float(sum(spent.values))
    return {
        "steps": int(logged[-1]),
        "seconds": float(training + validation),
        "validation_seconds": validation,
        "validation_share": float(validation / (training + validation)),
    }


def _environment() -> dict[str, str]:
    return {
        "gan_nst": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "processor": f"{platform.machine()}, {os.cpu_count()} cores",
        "system": platform.system(),
    }


def _png(picture: Picture) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()
