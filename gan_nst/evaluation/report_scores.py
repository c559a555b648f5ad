"""What a report says of the scores: a table and a verdict for each translation."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gan_nst.core.bounded import parse_yaml
from gan_nst.core.scores import COLUMNS, Score, label, more_is_better
from gan_nst.evaluation.numbers import mapping, number, text

_COUNTS = {"generated": "generated pictures", "real": "real pictures", "pairs": "pairs"}
_NO_SCORES = ("step", "pictures", *_COUNTS)
_BESIDE_A_SCORE = ("_std", "_subset_size")
# What speaks for a translator, the most telling first. LPIPS to the input is no such score: doing nothing wins it.
_TELLING = ("fid", "kid", "frechet", "kernel", "lpips_to_truth", "error", "ssim")
# What the sheets' pictures are ranked by: the first of these that there is.
SHEETS_BY = {
    "lpips_to_input": "LPIPS to the input",
    "error": "error against the truth",
    "change": "change of the input",
}

NOTES = {
    "untouched": "The untouched input is what doing nothing scores.",
    "colour_map": "The colour map is what moving the colours alone scores.",
    "noise_floor": "The noise floor is what one half of the real pictures scores against the other. Fewer pictures "
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
    """A score as text. deviation: of KID over its subsets, of so many pictures."""

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
    """The scores of one translation. pictures: how many they are computed from, in words."""

    translation: str
    pictures: str
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
        notes += [f"{values['pictures']:,} pictures"] if isinstance(values.get("pictures"), int) else []
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
    """Like "60 generated pictures, 60 real pictures, 60 pairs", "" where nothing is known."""
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
    """How the pictures of the sheets were chosen."""
    there = {key for translation in translations.values() for key in shown(translation)}
    score = next((words for key, words in SHEETS_BY.items() if key in there), None)
    chosen = (
        f"the lowest, the median and the highest {score}"
        if score
        else "the best, the median and the worst score"
    )
    split = evaluation.get("split")
    whole = f"all pictures of the split {split}" if split else "all pictures"
    return (
        f"Chosen by a rule, not by hand: of {whole} those with {chosen}, or the first by name, as captioned."
    )
