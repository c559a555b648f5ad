"""What an evaluation leaves in a run: evaluation.json, sheets of pictures, and report.html."""

import io
import json
import logging
import os
import platform
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from gan_nst import __version__
from gan_nst.commands.assess import Sheet
from gan_nst.core.errors import DataError, writing
from gan_nst.diagnosis.curves import History, read_run
from gan_nst.diagnosis.finding import Finding
from gan_nst.diagnosis.rules import describe, diagnose
from gan_nst.evaluation import report
from gan_nst.images.files import Picture, write_picture
from gan_nst.runs.folder import write_whole

log = logging.getLogger(__name__)


def record(run: Path, staged: Path, evaluation: Mapping[str, Any], sheets: Sequence[Sheet]) -> None:
    """Completes a folder of translated pictures to all that an evaluation leaves, and moves it into the run.

    staged: holds `translated/` and lies in the run. Ctrl-C waits while the old is replaced by the new.
    """
    page, told, findings = _compose(run, evaluation, sheets)
    for sheet in sheets:
        write_picture(sheet.picture, staged / "samples" / f"{sheet.name}.png")
    write_whole(staged / "report.html", page)
    write_whole(staged / "evaluation.json", told)
    with _uninterrupted(), writing(run):
        shutil.rmtree(run / "translated", ignore_errors=True)
        os.replace(staged / "translated", run / "translated")
        (run / "samples").mkdir(exist_ok=True)
        for path in (staged / "samples").iterdir():
            os.replace(path, run / "samples" / path.name)
        for name in ("report.html", "evaluation.json"):
            os.replace(staged / name, run / name)
    if findings:
        log.info(findings)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Holds Ctrl-C back until the end of the context."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = []
    before = signal.signal(signal.SIGINT, lambda *_: asked.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt


def _compose(run: Path, evaluation: Mapping[str, Any], sheets: Sequence[Sheet]) -> tuple[str, str, str]:
    """The texts of report.html and evaluation.json, and what the curves say."""
    from gan_nst.diagnosis import (
        figure,  # with matplotlib, most of a second that a training need not wait for
    )

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
            curves_svg=None if history is None else figure.draw([history], format="svg"),
            sheets=[report.Sheet(sheet.caption, _png(sheet.picture)) for sheet in sheets],
            settings=settings.read_text(encoding="utf-8") if settings.exists() else "",
        )
    )
    return page, to_json(told), "" if history is None else describe(findings, history)


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
