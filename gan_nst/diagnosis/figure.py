"""The curves of one run, or of several runs together, as an image."""

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator
from matplotlib.typing import LineStyleType

from gan_nst.core.errors import DataError
from gan_nst.core.scores import label
from gan_nst.diagnosis import curves
from gan_nst.diagnosis.curves import History, Series, Validation

_COLUMNS = 4
_WIDTH, _HEIGHT, _HEADING = 4.0, 2.9, 0.45  # inches, of a panel and of the figure's title; 100 dots each
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2")
_DASHES: tuple[LineStyleType, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
_WIDE = 4  # a legend of more entries has two columns
_STACKED = 500  # points of a stack of shares, which matplotlib does not simplify as it does lines
_DECADES = 1.0  # terms further apart than this are drawn on a logarithmic scale

# The same histories give the same bytes under any matplotlib settings of the user.
_STYLE = {
    "svg.hashsalt": "gan_nst",
    "font.size": 9,
    "axes.titlesize": 10,
    "legend.fontsize": 8,
    "legend.framealpha": 0.75,
    "legend.handlelength": 2.2,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.4,
}
_MEASURES = {
    "diversity": ("diversity (targets: 1)", 1.0),
    "change": ("change (untouched: 0)", 0.0),
    "correlation": ("correlation with the input", 0.0),
    "checkerboard": ("checkerboard (targets: 1)", 1.0),
}


@dataclass(frozen=True)
class _Line:
    """One curve of a panel. label: a term or translation. legend_colour: gray where the colour is the run's."""

    label: str
    series: Series
    colour: str
    dash: LineStyleType
    legend_colour: str


_Lines = Sequence[_Line]


def draw(histories: Sequence[History], *, format: Literal["png", "svg"]) -> bytes:
    """The curves of at least one run as the bytes of a PNG or SVG file, 1,600 pixels wide.

    Panels: the loss terms, smoothed on top of the raw values; learning rates; validation scores with their intervals
    and a dot at the best; the measures; each term's share of the gradient. In the figure of one run each term has a
    colour; of several runs each run has one, and terms differ by their dashes. Panels without data are omitted. Raises
    DataError when that leaves none.
    """
    panels = list(_panels(histories))
    if not panels:
        names = ", ".join(history.name for history in histories)
        raise DataError(
            f"{names}: nothing logged that could be drawn; train past the first training.log_every steps"
        )
    rows = math.ceil(len(panels) / _COLUMNS)
    longest = max(history.last_step() for history in histories)
    with matplotlib.style.context(["default", _STYLE]):
        size = _COLUMNS * _WIDTH, rows * _HEIGHT + _HEADING
        figure = Figure(figsize=size, dpi=100, layout="constrained")
        FigureCanvasAgg(figure)
        for number, (title, fill) in enumerate(panels, 1):
            axes = figure.add_subplot(rows, _COLUMNS, number)
            axes.set_title(title)
            axes.set_xlabel("step")
            fill(axes)
            axes.set_xlim(0, longest * 1.03)
            axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        _title(figure, histories)
        file = io.BytesIO()
        figure.savefig(file, format=format, metadata={"Date": None} if format == "svg" else None)
    return file.getvalue()


def _title(figure: Figure, histories: Sequence[History]) -> None:
    """The name of the run, or a legend of the runs' colours."""
    names = [history.name.replace("$", r"\$") for history in histories]  # else $x$ would be a formula
    if len(names) == 1:
        figure.suptitle(names[0], fontsize=12)
        return
    labels = [f"{name} ({run})" if names.count(name) > 1 else name for run, name in enumerate(names, 1)]
    handles = [Line2D([], [], color=_colour(run), linewidth=3, label=name) for run, name in enumerate(labels)]
    fitting = max(1, int(_COLUMNS * _WIDTH * 10 / (max(map(len, labels)) + 8)))
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(labels), fitting), fontsize=10)


def _panels(histories: Sequence[History]) -> Iterator[tuple[str, Callable[[Axes], None]]]:
    """The panels in order: their titles, and what draws into their axes."""
    alone = len(histories) == 1
    for title, lines in _lines(histories, partial(_terms, alone=alone)).items():
        yield title, partial(_draw_terms, lines=lines, alone=alone)
    for title, lines in _lines(histories, _learning_rates).items():
        yield title, partial(_draw_lines, lines=lines, bottom=0)
    for name, lines in _lines(histories, _scores).items():
        translation, _, key = name.rpartition("/")
        chosen = " (chosen)" if any(history.score == name for history in histories) else ""
        yield f"validation, {translation}: {label(key)}{chosen}", partial(_draw_score, lines=lines)
    for name, lines in _lines(histories, curves.measures).items():
        title, good = _MEASURES.get(name, (name, None))
        yield title, partial(_draw_lines, lines=lines, target=good)
    for role, lines in _lines(histories, partial(_shares, alone=alone)).items():
        yield f"{role}: shares of the gradient", partial(_draw_stack if alone else _draw_lines, lines=lines)


def _lines(
    histories: Sequence[History], read: Callable[[History], Mapping[str, Mapping[str, Series]]]
) -> dict[str, list[_Line]]:
    """The lines of every panel; `read` gives the series of a history by panel and label."""
    found: dict[str, list[_Line]] = {}
    for run, history in enumerate(histories):
        for panel, named in read(history).items():
            for number, (name, series) in enumerate(named.items()):
                if len(histories) == 1:
                    line = _Line(name, series, _colour(number), "-", _colour(number))
                else:
                    line = _Line(name, series, _colour(run), _DASHES[number % len(_DASHES)], "0.3")
                found.setdefault(panel, []).append(line)
    return found


def _terms(history: History, alone: bool) -> dict[str, dict[str, Series]]:
    """The loss terms: a panel for each role, or with several runs for each family of terms within it."""
    found: dict[str, dict[str, Series]] = {}
    for role, terms in curves.roles(history).items():
        for term, series in terms.items():
            family = curves.family(term)
            apart = f"{role} loss" if family == role else f"{role}: {family} loss"
            found.setdefault(f"{role}: loss terms" if alone else apart, {})[term] = series
    return found


def _learning_rates(history: History) -> dict[str, dict[str, Series]]:
    """The learning rates by role; equal ones share a line."""
    found: dict[str, Series] = {}
    for key, series in history.series.items():
        group, _, role = key.partition("/")
        if group == "learning_rate":
            same = next(
                (r for r, other in found.items() if np.array_equal(other.values, series.values)), None
            )
            found[f"{same}, {role}" if same else role] = found.pop(same) if same else series
    return {"learning rate": found} if found else {}


def _scores(history: History) -> dict[str, dict[str, Series]]:
    return {name: {"": validation} for name, validation in curves.validations(history).items()}


def _shares(history: History, alone: bool) -> Mapping[str, Mapping[str, Series]]:
    """The shares of the terms of each role, or with several runs of their families."""
    shares = curves.shares(history)
    return shares if alone else {role: curves.by_family(terms) for role, terms in shares.items()}


def _draw_terms(axes: Axes, lines: _Lines, alone: bool) -> None:
    """Loss terms: the raw values, pale, and the smoothed ones on top."""
    smoothed = []
    for line in lines:
        axes.plot(line.series.steps, line.series.values, color=line.colour, alpha=0.3, linewidth=0.7)
        series = Series(line.series.steps, curves.smooth(line.series.values))
        smoothed.append(_Line(line.label, series, line.colour, line.dash, line.legend_colour))
    _draw_lines(axes, smoothed)
    raw = np.concatenate([line.series.values for line in lines])
    levels = [np.nanmedian(line.series.values) for line in smoothed if np.isfinite(line.series.values).any()]
    positive = not (raw[np.isfinite(raw)] <= 0).any() and len(levels) > 0
    if positive and np.log10(max(levels) / min(levels)) > _DECADES:
        axes.set_yscale("log")
    if alone and len(lines) > _WIDE:  # leaves the upper third to the legend
        low, high = axes.get_ylim()
        top = high * math.sqrt(high / low) if axes.get_yscale() == "log" else high + (high - low) / 2
        axes.set_ylim(low, top)


def _draw_lines(axes: Axes, lines: _Lines, target: float | None = None, bottom: float | None = None) -> None:
    """Lines, with a legend of the labels that distinguish them.

    target: where to draw a line to compare them with. bottom: where the axis begins.
    """
    if target is not None:
        axes.axhline(target, color="0.6", linewidth=0.8)
    handles = {}
    for line in lines:
        few = np.isfinite(line.series.values).sum() < 20
        marker = "." if few else ""
        axes.plot(
            line.series.steps, line.series.values, color=line.colour, linestyle=line.dash, marker=marker
        )
        handles[line.label] = Line2D([], [], color=line.legend_colour, linestyle=line.dash, label=line.label)
    if len(handles) > 1 or (lines[0].legend_colour == lines[0].colour and "" not in handles):
        axes.legend(handles=list(handles.values()), loc="best", ncols=2 if len(handles) > _WIDE else 1)
    if bottom is not None:
        axes.set_ylim(bottom=bottom)


def _draw_score(axes: Axes, lines: _Lines) -> None:
    """A score with its interval, and a dot at the best step."""
    for line in lines:
        validation = line.series
        assert isinstance(validation, Validation)
        interval = validation.steps, validation.low, validation.high
        axes.fill_between(*interval, color=line.colour, alpha=0.15, linewidth=0)
        axes.vlines(*interval, color=line.colour, alpha=0.25, linewidth=1)
        best = validation.best()
        step, value = validation.steps[best], validation.values[best]
        best_label = f"best: {value:.3g} at {step:.0f}"
        axes.plot([step], [value], "o", color=line.colour, markersize=7, label=best_label)
    _draw_lines(axes, lines)
    axes.legend(loc="best", handlelength=1)


def _draw_stack(axes: Axes, lines: _Lines) -> None:
    """Shares stacked on each other; together they are 1."""
    steps = curves.total(line.series for line in lines).steps
    steps = steps[:: max(1, len(steps) // _STACKED)]
    values = [line.series.values[np.isin(line.series.steps, steps)] for line in lines]
    if len(steps) == 1:  # a single step would have no area
        steps, values = np.array([0.9, 1]) * steps[0], [value.repeat(2) for value in values]
    labels, colours = [line.label for line in lines], [line.colour for line in lines]
    axes.stackplot(steps, values, labels=labels, colors=colours, alpha=0.7)
    axes.set_ylim(0, 1)
    axes.legend(loc="best", ncols=2)


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]
