"""The report of a run: one HTML page without scripts or outside files, to read and to print."""

import base64
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from gan_nst.core.scores import COLUMNS, Score, is_score, label, more_is_better
from gan_nst.core.settings import parse_yaml


def mapping(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The mapping under a key, empty where there is none."""
    value = parent.get(key)
    return value if isinstance(value, Mapping) else {}


def number(value: Any) -> float | None:
    """The value as a number, None for anything else. JSON has no nan: the file holds it as the text "nan"."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return float(value) if value in ("nan", "inf", "-inf") else None


def text(value: float, scale: float = 0.0) -> str:
    """The number with four significant digits, three below 0.1. With a scale that is larger than the number, it
    has those decimals that the scale would have.
    """
    if not math.isfinite(value):
        return "not finite"
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(max(abs(value), abs(scale))))
    digits = 4 if exponent >= -1 else 3
    text = f"{value:.{digits}g}" if exponent < -4 else f"{value:,.{max(0, digits - 1 - exponent)}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def large(number: float) -> str:
    """The number with three digits, in millions or billions where it is that large."""
    for unit, name in ((1e9, "billion"), (1e6, "million")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return f"{number:,.0f}"


def duration(seconds: float) -> str:
    """Like "1 h 5 min", "6 min 40 s" or "8.2 s"."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def as_text(result: Mapping[str, Any]) -> str:
    """The table of one translation's scores: a row a score, a column each for best, last and what they must beat."""
    columns = [(name, result[name]) for name in COLUMNS if result.get(name)]
    keys = dict.fromkeys(key for _, column in columns for key in column if is_score(key))
    head = ["", *(_title(name, column, result.get("exported")) for name, column in columns)]
    rows = [[_row_title(key), *(_text_cell(column, key) for _, column in columns)] for key in keys]
    return "\n".join(_aligned([head, *rows]))


def _title(name: str, column: Mapping[str, Any], exported: str | None) -> str:
    step = f" ({column['step']})" if "step" in column else ""
    return f"{COLUMNS[name]}{step}{' *' if name == exported else ''}"


def _row_title(key: str) -> str:
    return f"{label(key)} {'(more is better)' if more_is_better(key) else ''}".strip()


def _text_cell(column: Mapping[str, Any], key: str) -> str:
    if key not in column:
        return "-"
    low, high = column.get("intervals", {}).get(key, (None, None))
    interval = "" if low is None else f" [{low:.4g}, {high:.4g}]"
    return f"{column[key]:.4g}{interval}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


_COUNTS = {"generated": "generated images", "real": "real images", "pairs": "pairs"}
_NO_SCORES = ("step", "images", *_COUNTS)
_BESIDE_A_SCORE = ("_std", "_subset_size")
# What speaks for a translator, the most telling first. LPIPS to the input is no such score: doing nothing wins it.
_TELLING = ("fid", "kid", "frechet", "kernel", "lpips_to_truth", "error", "ssim")
# What the sheets' images are ranked by: the first of these that there is.
SHEETS_BY = {
    "lpips_to_input": "LPIPS to the input",
    "error": "error against the truth",
    "change": "change of the input",
}

NOTES = {
    "untouched": "The untouched input is what doing nothing scores.",
    "colour_map": "The colour map is what moving the colours alone scores.",
    "noise_floor": "The noise floor is what one half of the real images scores against the other. Fewer images "
    "raise a Fréchet distance, so a translation may lie below its floor; a kernel distance may be compared.",
    "lpips_to_input": "LPIPS to the input tells how little of the input is kept: doing nothing has 0.",
}


@dataclass(frozen=True)
class Column:
    name: str
    note: str
    exported: bool


@dataclass(frozen=True)
class Cell:
    """A score as text. deviation: of KID over its subsets, of so many images."""

    value: str
    interval: str
    deviation: str
    subset: str


@dataclass(frozen=True)
class Row:
    """A score's line of the table. arrow: up, down, or "" where neither is better. chosen: picks the best step."""

    label: str
    arrow: str
    chosen: bool
    cells: Sequence[Cell | None]


@dataclass(frozen=True)
class Table:
    """The scores of one translation. images: how many they are computed from, in words."""

    translation: str
    images: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    warnings: Sequence[str]


def translations_of(evaluation: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The parts of an evaluation that are a translation's: those with a column of scores or with warnings."""
    return {
        name: value
        for name, value in evaluation.items()
        if isinstance(value, Mapping) and ("warnings" in value or any(mapping(value, c) for c in COLUMNS))
    }


def chosen_score(settings: str) -> str | None:
    """The score that picks the best step, like "ab/fid_768"; None where the settings name none."""
    try:
        loaded = parse_yaml(settings)
    except ValueError:
        return None
    score = mapping(loaded, "evaluation").get("score") if isinstance(loaded, Mapping) else None
    return score if isinstance(score, str) else None


def _score(column: Mapping[str, Any], key: str) -> Score | None:
    """A score of a column with its interval, None where the column lacks it."""
    value = number(column.get(key))
    if value is None:
        return None
    interval = mapping(column, "intervals").get(key)
    if isinstance(interval, Sequence) and len(interval) == 2:
        low, high = (number(end) for end in interval)
        if low is not None and high is not None and math.isfinite(low) and math.isfinite(high):
            return Score(value, low, high)
    return Score(value)


def _cell(column: Mapping[str, Any], key: str) -> Cell | None:
    score = _score(column, key)
    if score is None:
        return None
    scale, interval = abs(score.value), ""
    if score.low is not None and score.high is not None:
        scale = max(abs(score.low), abs(score.high))
        interval = f"[{text(score.low, scale)}, {text(score.high, scale)}]"
    deviation, subset = (number(column.get(f"{key}{end}")) for end in _BESIDE_A_SCORE)
    return Cell(
        text(score.value, scale),
        interval,
        "" if deviation is None else text(deviation, scale),
        "" if subset is None else f"{subset:,.0f}",
    )


def _arrow(key: str) -> str:
    """Where the better values lie; "" for LPIPS to the input, of which neither end is good, and for a number that
    is no score we know.
    """
    if more_is_better(key):
        return "up"
    return "down" if key.startswith(_TELLING) else ""


def _columns(translation: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The columns that a translation has, in the order of the table."""
    return {name: translation[name] for name in COLUMNS if mapping(translation, name)}


def shown(translation: Mapping[str, Any]) -> set[str]:
    """The names of the columns of a translation and of all that stands in them."""
    columns = _columns(translation)
    return {*columns, *(key for column in columns.values() for key in column)}


def table_of(name: str, translation: Mapping[str, Any], chosen: str | None) -> Table:
    columns = _columns(translation)
    keys = dict.fromkeys(
        key
        for column in columns.values()
        for key, value in column.items()
        if key not in _NO_SCORES and not key.endswith(_BESIDE_A_SCORE) and number(value) is not None
    )
    heads = []
    for column, values in columns.items():
        notes = [f"step {values['step']:,}"] if isinstance(values.get("step"), int) else []
        notes += [f"{values['images']:,} images"] if isinstance(values.get("images"), int) else []
        heads.append(Column(COLUMNS[column], ", ".join(notes), column == translation.get("exported")))
    return Table(
        name,
        counts(translation),
        heads,
        [
            Row(label(key), _arrow(key), f"{name}/{key}" == chosen, [_cell(c, key) for c in columns.values()])
            for key in keys
        ],
        [_sentence(str(warning)) for warning in translation.get("warnings") or ()],
    )


def _sentence(text: str) -> str:
    """The text with a capital at its start and a full stop at its end."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def counts(translation: Mapping[str, Any]) -> str:
    """Like "60 generated images, 60 real images, 60 pairs", "" where nothing is known."""
    return ", ".join(
        f"{translation[key]:,} {kind}"
        for key, kind in _COUNTS.items()
        if isinstance(translation.get(key), int) and translation[key]
    )


def verdict(name: str, translation: Mapping[str, Any], chosen: str | None) -> str:
    """How the exported generator compares with doing nothing and with moving colours, by the score that picks
    the best step or else the most telling one; "" where no score tells.
    """
    columns = _columns(translation)
    judged = next((c for c in (translation.get("exported"), "best", "last") if c in columns), None)
    if judged is None:
        return ""
    ours = columns[judged]
    keys = [chosen.rpartition("/")[2]] if chosen else []
    keys += sorted(
        (key for key in ours if key.startswith(_TELLING) and not key.endswith(_BESIDE_A_SCORE)),
        key=lambda key: next(place for place, start in enumerate(_TELLING) if key.startswith(start)),
    )
    for key in keys:
        score = _score(ours, key)
        if score is not None and math.isfinite(score.value):
            break
    else:
        return ""
    clauses = []
    for baseline in ("untouched", "colour_map"):
        other = _score(columns.get(baseline, {}), key)
        if other is not None and math.isfinite(other.value):
            name = f"the {COLUMNS[baseline]} ({text(other.value)})"
            clauses.append(_comparison(score, other, key).format(name))
    floor = _score(columns.get("noise_floor", {}), key)
    if floor is not None and math.isfinite(floor.value):
        clauses.append(f"the noise floor is {text(floor.value)}")
    step = f" at step {ours['step']:,}" if isinstance(ours.get("step"), int) else ""
    start = f"{label(key)} of {text(score.value)}{step}"
    return (f"{start}: " + "; ".join(clauses) if clauses else start) + "."


def _comparison(ours: Score, other: Score, key: str) -> str:
    """A clause with a place for the other's name. Clear is what the two 95 % intervals tell apart."""
    if ours.value == other.value:
        return "the same as {}"
    word = "better" if (ours.value > other.value) == more_is_better(key) else "worse"
    if ours.low is None or ours.high is None or other.low is None or other.high is None:
        return f"{word} than {{}}"
    if ours.low > other.high or ours.high < other.low:
        return f"clearly {word} than {{}}"
    return f"{word} than {{}}, but the intervals overlap"


def choice(evaluation: Mapping[str, Any], translations: Mapping[str, Mapping[str, Any]]) -> str:
    """How the images of the sheets were chosen."""
    there = {key for translation in translations.values() for key in shown(translation)}
    score = next((words for key, words in SHEETS_BY.items() if key in there), None)
    chosen = (
        f"the lowest, the median and the highest {score}"
        if score
        else "the best, the median and the worst score"
    )
    split = evaluation.get("split")
    whole = f"all images of the split {split}" if split else "all images"
    return (
        f"Chosen by a rule, not by hand: of {whole} those with {chosen}, or the first by name, as captioned."
    )


_NAMES = {
    "dimension": "feature dimension",
    "features": "feature network",
    "file": "weights",
    "gan_nst": "gan_nst",
    "kid_subsets": "KID subsets",
    "libraries": "",
    "lpips": "LPIPS",
    "name": "protocol",
}


@dataclass(frozen=True)
class Fact:
    """full: the whole of a text that is shown shortened, or "" where all of it is shown."""

    label: str
    text: str
    full: str = ""


def facts(values: Mapping[str, Any], prefix: str = "") -> Iterator[Fact]:
    """A fact for every entry that has a value; those of a mapping inside carry its name."""
    for key, value in values.items():
        name = f"{prefix} {_NAMES.get(key, key.replace('_', ' '))}".strip()
        if isinstance(value, Mapping):
            yield from facts(value, name)
        elif key == "sha256" and isinstance(value, str) and len(value) > 16:
            yield Fact(name, f"{value[:12]}…", value)
        elif isinstance(value, bool):
            yield Fact(name, "yes" if value else "no")
        elif isinstance(value, float):
            yield Fact(name, text(value))
        elif value is not None and value != "":
            yield Fact(name, str(value))


def protocol(evaluation: Mapping[str, Any], translations: Mapping[str, Mapping[str, Any]]) -> Iterator[Fact]:
    yield from facts(mapping(evaluation, "protocol"))
    if evaluation.get("split"):
        yield Fact("split", str(evaluation["split"]))
    for name, translation in translations.items():
        if counted := counts(translation):
            yield Fact(f"judged of {name}", counted)


def generator(values: Mapping[str, Any]) -> Iterator[Fact]:
    """Size and speed, as measured by `cost.generator_cost`."""
    size = values.get("size")
    a_image = f"an image of {size} by {size} pixels" if size else "an image"
    for key, value in values.items():
        found = number(value)
        if found is None or key == "size":
            continue
        if key == "parameters":
            yield Fact("parameters", f"{found:,.0f}")
        elif key == "multiply_adds":
            yield Fact("multiply-adds", f"{large(found)} {a_image}")
        elif key == "milliseconds":
            yield Fact("time", f"{text(found)} ms {a_image}")
        else:
            yield Fact(key.replace("_", " "), text(found))


def timing(values: Mapping[str, Any]) -> Iterator[Fact]:
    seconds, steps = number(values.get("seconds")), number(values.get("steps"))
    share = number(values.get("validation_share"))
    if steps is not None:
        yield Fact("steps", f"{steps:,.0f}")
    if seconds is not None:
        yield Fact("training", duration(seconds))
    if seconds and steps:
        yield Fact("speed", f"{text(steps / seconds)} steps a second")
    if share is not None:
        yield Fact("spent on validation", f"{100 * share:.3g} %")


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
    """A grid of sample images as a PNG file, and what is to be seen in it."""

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
