"""The curves of one run, or of several over each other, as an image."""

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

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
_WIDTH, _HEIGHT, _HEADING = 4.0, 2.9, 0.45  # inches, of a panel and of the line above all; 100 dots each
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2")
_DASHES: tuple[LineStyleType, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
_WIDE = 4  # more entries than these take a legend of two columns
_SHOWN = 500  # columns of a panel in which a line is drawn; it has fewer pixels
_DECADES = 1.0  # terms that lie further apart than these are drawn over a logarithmic scale

# Whatever a user's own matplotlib settings are, the same histories give the same bytes.
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
    """One curve of a panel. label: what it has of its own within its run, a term or translation."""

    label: str
    run: int
    series: Series
    colour: str
    dash: LineStyleType
    interval: Validation | None = None


@dataclass(frozen=True)
class _Panel:
    """A small image: its title, and what draws it."""

    title: str
    draw: Callable[[Axes], None]


def draw(histories: Sequence[History], *, format: Literal["png", "svg"]) -> bytes:
    """The curves of at least one run as the bytes of a PNG or SVG file, 1,600 pixels wide.

    Panels: the loss terms, smoothed before the raw line; learning rates; validation scores with their intervals and a
    dot at the best; the measures; each term's share of the gradient. In the figure of one run each term has a colour;
    of several runs each run has one, and terms have dashes. What no run has logged is left out. Raises DataError when
    that is everything.
    """
    panels = list(_panels(histories))
    if not panels:
        raise DataError(
            f"{', '.join(history.name for history in histories)}: nothing logged that could be drawn"
        )
    rows = math.ceil(len(panels) / _COLUMNS)
    longest = max(history.last_step() for history in histories)
    with matplotlib.style.context(["default", _STYLE]):
        size = _COLUMNS * _WIDTH, rows * _HEIGHT + _HEADING
        figure = Figure(figsize=size, dpi=100, layout="constrained")
        FigureCanvasAgg(figure)
        for number, panel in enumerate(panels, 1):
            axes = figure.add_subplot(rows, _COLUMNS, number)
            axes.set_title(panel.title)
            axes.set_xlabel("step")
            panel.draw(axes)
            axes.set_xlim(0, longest * 1.03)
            axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        _head(figure, histories)
        file = io.BytesIO()
        figure.savefig(file, format=format, metadata={"Date": None} if format == "svg" else None)
    return file.getvalue()


def _head(figure: Figure, histories: Sequence[History]) -> None:
    """The name of the run, or whose colour is whose."""
    names = [history.name.replace("$", r"\$") for history in histories]  # else $x$ would be a formula
    if len(names) == 1:
        figure.suptitle(names[0], fontsize=12)
        return
    shown = [f"{name} ({run})" if names.count(name) > 1 else name for run, name in enumerate(names, 1)]
    handles = [Line2D([], [], color=_colour(run), linewidth=3, label=name) for run, name in enumerate(shown)]
    fitting = max(1, int(_COLUMNS * _WIDTH * 10 / (max(map(len, shown)) + 8)))
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(shown), fitting), fontsize=10)


def _panels(histories: Sequence[History]) -> Iterator[_Panel]:
    """The panels in the order of the figure."""
    alone = len(histories) == 1
    terms = _grouped(histories, lambda history: _by_role(history, split=not alone))
    for title, lines in terms.items():
        yield _Panel(f"{title}: loss terms" if alone else f"{title} loss", partial(_draw_terms, lines=lines))
    for title, lines in _grouped(
        histories, lambda history: {"learning rate": _learning_rates(history)}
    ).items():
        yield _Panel(title, partial(_draw_rates, lines=lines))
    for name, lines in _scores(histories).items():
        chosen = any(history.score == name for history in histories)
        translation, _, key = name.rpartition("/")
        yield _Panel(
            f"validation, {translation}: {label(key)}{' (chosen)' if chosen else ''}",
            partial(_draw_score, lines=lines),
        )
    for name, lines in _grouped(histories, curves.measures).items():
        title, good = _MEASURES.get(name, (name, None))
        yield _Panel(title, partial(_draw_measure, lines=lines, good=good))
    for role, lines in _grouped(histories, lambda history: _shares(history, merged=not alone)).items():
        how = _draw_stack if alone else _draw_lines
        yield _Panel(f"{role}: shares of the gradient", partial(how, lines=lines))


def _grouped(
    histories: Sequence[History], read: Callable[[History], Mapping[str, Mapping[str, Series]]]
) -> dict[str, list[_Line]]:
    """The lines of every panel, by what `read` calls the panels and, within them, the lines."""
    alone = len(histories) == 1
    found: dict[str, list[_Line]] = {}
    for run, history in enumerate(histories):
        for title, named in read(history).items():
            for number, (name, series) in enumerate(named.items()):
                dash = "-" if alone else _DASHES[number % len(_DASHES)]
                line = _Line(name, run, series, _colour(number if alone else run), dash)
                found.setdefault(title, []).append(line)
    return found


def _by_role(history: History, *, split: bool) -> dict[str, dict[str, Series]]:
    """The terms of each role, or of each kind within it: "generator: cycle" holds "cycle_a" and "cycle_b"."""
    found: dict[str, dict[str, Series]] = {}
    for role, terms in curves.roles(history).items():
        for term, series in terms.items():
            kind = curves.family(term)
            title = role if not split or kind == role else f"{role}: {kind}"
            found.setdefault(title, {})[term] = series
    return found


def _learning_rates(history: History) -> dict[str, Series]:
    """The learning rates by role; roles of the same share a line."""
    found: dict[str, Series] = {}
    for key, series in history.series.items():
        group, _, role = key.partition("/")
        if group != "learning_rate":
            continue
        same = [name for name, other in found.items() if np.array_equal(other.values, series.values)]
        found[f"{same[0]}, {role}" if same else role] = found.pop(same[0]) if same else series
    return found


def _scores(histories: Sequence[History]) -> dict[str, list[_Line]]:
    found: dict[str, list[_Line]] = {}
    for run, history in enumerate(histories):
        for name, validation in curves.validations(history).items():
            series = Series(validation.steps, validation.values)
            found.setdefault(name, []).append(_Line("", run, series, _colour(run), "-", validation))
    return found


def _shares(history: History, *, merged: bool) -> dict[str, dict[str, Series]]:
    """The shares of the terms of each role, or of their kinds."""
    found: dict[str, dict[str, Series]] = {}
    for role, terms in curves.shares(history).items():
        kinds: dict[str, list[Series]] = {}
        for term, series in terms.items():
            kinds.setdefault(curves.family(term) if merged else term, []).append(series)
        found[role] = {kind: curves.total(series) for kind, series in kinds.items()}
    return found


def _draw_terms(axes: Axes, lines: Sequence[_Line]) -> None:
    """Loss terms, smoothed, before the raw ones."""
    smoothed = [
        replace(line, series=Series(line.series.steps, curves.smooth(line.series.values))) for line in lines
    ]
    for line in lines:
        _plot(axes, line.series, color=line.colour, alpha=0.3, linewidth=0.7)
    _draw_lines(axes, smoothed)
    raw = np.concatenate([line.series.values for line in lines])
    levels = np.array(
        [np.nanmedian(line.series.values) for line in smoothed if np.isfinite(line.series.values).any()]
    )
    positive = not (raw[np.isfinite(raw)] <= 0).any() and len(levels) > 0
    if positive and np.log10(levels.max() / levels.min()) > _DECADES:
        axes.set_yscale("log")
    if len(lines) > _WIDE and _alone(lines):
        _make_room(axes)


def _draw_lines(axes: Axes, lines: Sequence[_Line]) -> None:
    """Lines, with a legend of what tells them apart within a run."""
    for line in lines:
        few = np.isfinite(line.series.values).sum() < 20
        _plot(axes, line.series, color=line.colour, linestyle=line.dash, marker="." if few else "")
    handles = {
        line.label: Line2D(
            [], [], color=line.colour if _alone(lines) else "0.3", linestyle=line.dash, label=line.label
        )
        for line in lines
    }
    if len(handles) > 1 or (_alone(lines) and "" not in handles):
        axes.legend(handles=list(handles.values()), loc="best", ncols=2 if len(handles) > _WIDE else 1)


def _plot(axes: Axes, series: Series, **style: Any) -> None:
    """A line, of as many of its points as can be seen."""
    shown = curves.extremes(series, _SHOWN)
    axes.plot(series.steps[shown], series.values[shown], **style)


def _make_room(axes: Axes) -> None:
    """Leaves the upper third of a panel to its legend."""
    low, high = axes.get_ylim()
    top = high * math.sqrt(high / low) if axes.get_yscale() == "log" else high + (high - low) / 2
    axes.set_ylim(low, top)


def _draw_rates(axes: Axes, lines: Sequence[_Line]) -> None:
    """Learning rates, from 0."""
    _draw_lines(axes, lines)
    axes.set_ylim(bottom=0)


def _draw_score(axes: Axes, lines: Sequence[_Line]) -> None:
    """A score with its interval, and a dot at the best step."""
    for line in lines:
        validation = line.interval
        assert validation is not None
        shown = curves.extremes(line.series, _SHOWN)
        interval = validation.steps[shown], validation.low[shown], validation.high[shown]
        axes.fill_between(*interval, color=line.colour, alpha=0.15, linewidth=0)
        axes.vlines(*interval, color=line.colour, alpha=0.25, linewidth=1)
        best = validation.best()
        step, value = validation.steps[best], validation.values[best]
        axes.plot(
            [step], [value], "o", color=line.colour, markersize=7, label=f"best: {value:.3g} at {step:.0f}"
        )
    _draw_lines(axes, lines)
    axes.legend(loc="best", handlelength=1)


def _draw_measure(axes: Axes, lines: Sequence[_Line], good: float | None) -> None:
    """A measure, with a line at the value to compare it with."""
    if good is not None:
        axes.axhline(good, color="0.6", linewidth=0.8)
    _draw_lines(axes, lines)


def _draw_stack(axes: Axes, lines: Sequence[_Line]) -> None:
    """Shares upon each other; together they are 1."""
    steps = curves.total(line.series for line in lines).steps
    steps = steps[:: max(1, len(steps) // _SHOWN)]
    values = [line.series.values[np.isin(line.series.steps, steps)] for line in lines]
    if len(steps) == 1:  # a single step would have no area
        steps, values = np.array([0.9, 1]) * steps[0], [value.repeat(2) for value in values]
    labels, colours = [line.label for line in lines], [line.colour for line in lines]
    axes.stackplot(steps, values, labels=labels, colors=colours, alpha=0.7)
    axes.set_ylim(0, 1)
    axes.legend(loc="best", ncols=2)


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _alone(lines: Sequence[_Line]) -> bool:
    """Whether the lines have colours of their own, and not their run's."""
    return len({line.run for line in lines}) == 1 and all(line.dash == "-" for line in lines)
