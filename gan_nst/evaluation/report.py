"""The report of a run: one HTML page without scripts or outside files, to read in any browser and to print.

This module prepares the content; report.html.j2 is the layout. `as_text` is its table of scores for a terminal.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, Environment, FileSystemLoader

from gan_nst.core.errors import format_duration, format_large, format_number
from gan_nst.core.scores import COLUMNS, Score, better, is_score, label, more_is_better

# The scores that tell translators apart, the most telling first. Not LPIPS to the input: doing nothing wins it.
_TELLING = ("fid", "kid", "frechet", "kernel", "lpips_to_truth", "error", "ssim")
# What the images of the sample sheets are ranked by: the first of these scores that was computed.
SHEETS_BY = {
    "lpips_to_input": "LPIPS to the input",
    "error": "error against the truth",
    "change": "change of the input",
}


@dataclass(frozen=True)
class Sheet:
    """A grid of sample images as a PNG file, and what it shows."""

    caption: str
    png: bytes


def render(
    *,
    title: str,
    evaluation: Mapping[str, Any],
    score: str | None,
    findings: Sequence[Any],
    curves: bytes | None,
    sheets: Sequence[Sheet],
    settings: str,
) -> str:
    """The page. Every text is escaped, so names may hold any character.

    title: the domain, the method and the run's name. evaluation: the content of evaluation.json; entries may be
    missing. score: the one that picks the best step, like "ab/fid_768". findings: of the curves, alarms first.
    curves: their figure, an SVG file. sheets: sample images, chosen by `SHEETS_BY` or by name. settings: the run's,
    as YAML.
    """
    translations = {
        name: value
        for name, value in evaluation.items()
        if isinstance(value, Mapping) and (value.get("warnings") or _columns(value))
    }
    tables = {name: _columns(value) for name, value in translations.items()}
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "base64": _base64,
        "duration": format_duration,
        "number": format_number,
        "large": format_large,
    }
    page = environment.get_template("report.html.j2").render(
        title=title,
        evaluation=evaluation,
        score=score,
        findings=findings,
        curves=curves,
        sheets=sheets,
        settings=settings.strip(),
        translations=translations,
        tables=tables,
        columns=COLUMNS,
        keys={name: _keys(table) for name, table in tables.items()},
        texts=_texts,
        label=label,
        better=better,
        verdicts={name: _verdict(value, tables[name], score) for name, value in translations.items()},
        mentioned={name for table in tables.values() for name in (*table, *_keys(table))},
        sheets_by=SHEETS_BY,
    )
    return page.strip() + "\n"


def _base64(file: bytes) -> str:
    return base64.b64encode(file).decode()


def as_text(translation: Mapping[str, Any]) -> str:
    """The scores of a translation as a table in plain text: a row a score; a column each for the steps and for what
    they must beat.
    """
    table = _columns(translation)
    rows = [[""]]
    for name in table:
        step = translation[name].get("step")
        exported = " *" if name == translation.get("exported") else ""
        rows[0].append(f"{COLUMNS[name]}{'' if step is None else f' ({step})'}{exported}")
    for key in _keys(table):
        cells = (" ".join(_texts(scores[key])).strip() if key in scores else "-" for scores in table.values())
        rows.append([f"{label(key)}{' (more is better)' if more_is_better(key) else ''}", *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


_Table = Mapping[str, Mapping[str, Score]]


def _columns(translation: Mapping[str, Any]) -> _Table:
    """The scores of a translation by column and key; only columns that have any."""
    table: dict[str, Mapping[str, Score]] = {}
    for name in COLUMNS:
        values = translation.get(name)
        if isinstance(values, Mapping):
            intervals = values.get("intervals") or {}
            scores = {
                key: Score(value, *(intervals.get(key) or ()))
                for key, value in values.items()
                if is_score(key) and value is not None
            }
            if scores:
                table[name] = scores
    return table


def _keys(table: _Table) -> Iterable[str]:
    """The scores that any column has, in order."""
    return dict.fromkeys(key for scores in table.values() for key in scores)


def _texts(score: Score) -> tuple[str, str]:
    """A score and its interval in brackets, with the same decimals; "" without an interval."""
    if score.low is None or score.high is None:
        return format_number(score.value), ""
    scale = max(abs(score.low), abs(score.high))
    value, low, high = (format_number(x, scale) for x in (score.value, score.low, score.high))
    return value, f"[{low}, {high}]"


def _verdict(translation: Mapping[str, Any], table: _Table, chosen: str | None) -> str:
    """How the exported generator compares with doing nothing and with moving the colours alone.

    By the score that picks the best step, or else by the most telling one; "" without either.
    """
    exported = translation.get("exported", "best")
    ours = table.get(exported, {})
    candidates = [(chosen or "").rpartition("/")[2]]
    candidates += [key for start in _TELLING for key in ours if key.startswith(start)]
    key = next((key for key in candidates if key in ours), None)
    if key is None:
        return ""
    step = translation[exported].get("step")
    sentence = f"{label(key)} of {_texts(ours[key])[0]}{'' if step is None else f' at step {step:,}'}"
    clauses = [
        _comparison(ours[key], table[name][key], key).format(
            f"the {COLUMNS[name]} ({format_number(table[name][key].value)})"
        )
        for name in ("untouched", "colour_map")
        if key in table.get(name, {})
    ]
    if key in table.get("noise_floor", {}):
        clauses.append(f"the noise floor is {format_number(table['noise_floor'][key].value)}")
    return f"{sentence}: {'; '.join(clauses)}." if clauses else f"{sentence}."


def _comparison(ours: Score, other: Score, key: str) -> str:
    """A clause with a place for the other's name. "Clearly" means that the 95 % intervals do not overlap."""
    if ours.value == other.value:
        return "the same as {}"
    word = "better" if (ours.value > other.value) == more_is_better(key) else "worse"
    if ours.low is None or ours.high is None or other.low is None or other.high is None:
        return f"{word} than {{}}"
    if ours.low > other.high or ours.high < other.low:
        return f"clearly {word} than {{}}"
    return f"{word} than {{}}, but the intervals overlap"
