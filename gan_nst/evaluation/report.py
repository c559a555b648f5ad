"""The report of a run: one HTML page without scripts or outside files, to read and to print."""

import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from gan_nst.evaluation.numbers import mapping
from gan_nst.evaluation.report_facts import facts, generator, protocol, timing
from gan_nst.evaluation.report_scores import (
    NOTES,
    choice,
    chosen_score,
    shown,
    table_of,
    translations_of,
    verdict,
)

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)

_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Sheet:
    """A grid of sample pictures as a PNG file, and what is to be seen in it."""

    caption: str
    png: bytes


@dataclass(frozen=True)
class Report:
    """What a report tells.

    title: the domain, the method and the run's name. evaluation: what evaluation.json holds, of which anything
    may be missing. findings: each with kind, level ("alarm" or "advice"), step (or None), evidence and advice.
    curves_svg: the figure of the curves, an SVG or a PNG file. sheets: samples chosen by their LPIPS to the input,
    or by their error or else their change where there is no LPIPS, or by name. settings: the run's, as YAML.
    """

    title: str
    evaluation: Mapping[str, Any]
    findings: Sequence[Any]
    curves_svg: bytes | None
    sheets: Sequence[Sheet]
    settings: str


@dataclass(frozen=True)
class _Image:
    """width and height in pixels are None for an SVG file, which has any size."""

    url: str
    width: int | None
    height: int | None


def render(report: Report) -> str:
    """The page, complete in itself. Every text of the report is escaped, so names may hold any character."""
    evaluation = report.evaluation
    chosen = chosen_score(report.settings)
    translations = translations_of(evaluation)
    page = _TEMPLATES.get_template("report.html.j2").render(
        title=report.title,
        translations=list(translations),
        split=evaluation.get("split"),
        verdicts={name: text for name, t in translations.items() if (text := verdict(name, t, chosen))},
        tables=[
            table
            for name, t in translations.items()
            if (table := table_of(name, t, chosen)).rows or table.warnings
        ],
        notes=[text for key, text in NOTES.items() if any(key in shown(t) for t in translations.values())],
        protocol=list(protocol(evaluation, translations)),
        curves=_image(report.curves_svg) if report.curves_svg else None,
        findings=sorted(report.findings, key=lambda finding: finding.level != "alarm"),
        sheets=[(sheet.caption, _image(sheet.png)) for sheet in report.sheets],
        choice=choice(evaluation, translations),
        generator=list(generator(mapping(evaluation, "generator"))),
        timing=list(timing(mapping(evaluation, "training"))),
        settings=report.settings.strip(),
        environment=list(facts(mapping(evaluation, "environment"))),
    )
    return page.strip() + "\n"


def _image(file: bytes) -> _Image:
    """The file inside of a URL. Whatever an SVG file holds, as an image it neither runs nor loads anything."""
    data = base64.b64encode(file).decode()
    if not file.startswith(_PNG):
        return _Image(f"data:image/svg+xml;base64,{data}", None, None)
    width, height = struct.unpack(">II", file[16:24])
    return _Image(f"data:image/png;base64,{data}", width, height)
