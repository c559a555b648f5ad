"""Scores as lines of text."""

from collections.abc import Mapping, Sequence
from typing import Any

from gan_nst.core.scores import COLUMNS, is_score, label, more_is_better


def as_text(result: Mapping[str, Any]) -> str:
    """The table of one translation's scores: a row a score, a column each for best, last and what they must beat."""
    columns = [(name, result[name]) for name in COLUMNS if result.get(name)]
    keys = dict.fromkeys(key for _, column in columns for key in column if is_score(key))
    head = ["", *(_title(name, column, result.get("exported")) for name, column in columns)]
    rows = [[_row_title(key), *(_cell(column, key) for _, column in columns)] for key in keys]
    return "\n".join(_aligned([head, *rows]))


def _title(name: str, column: Mapping[str, Any], exported: str | None) -> str:
    step = f" ({column['step']})" if "step" in column else ""
    return f"{COLUMNS[name]}{step}{' *' if name == exported else ''}"


def _row_title(key: str) -> str:
    return f"{label(key)} {'(more is better)' if more_is_better(key) else ''}".strip()


def _cell(column: Mapping[str, Any], key: str) -> str:
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
