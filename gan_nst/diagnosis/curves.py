"""What a run logged, read back: every value over the steps, and which of them belong together."""

import json
import math
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan_nst.core.errors import DataError, SettingsError, reason
from gan_nst.core.scores import more_is_better
from gan_nst.core.settings import read_yaml

Values = NDArray[np.float64]

# Groups of metrics that are no losses; the name of any other is a role.
RESERVED = frozenset(
    {
        "gradient_norm",
        "learning_rate",
        "speed",
        "memory",
        "validation",
        "measure",
        "gradient_share",
        "skipped",
    }
)


@dataclass(frozen=True)
class Series:
    """One value over the steps at which it was logged: float64 (n,) each, steps rising; nan where it was not
    finite.
    """

    steps: Values
    values: Values


@dataclass(frozen=True)
class Validation:
    """One score over the validated steps: float64 (n,) each; low and high are nan where there is no interval."""

    steps: Values
    values: Values
    low: Values
    high: Values
    more_is_better: bool

    def best(self) -> int:
        """The index of the best finite value, the earliest of equals. There must be one."""
        values = self.values if self.more_is_better else -self.values
        return int(np.nanargmax(values))


@dataclass(frozen=True)
class History:
    """What a run logged.

    name: the run folder's. steps: the planned length, or the last step logged when none was planned.
    score: the chosen one, like "ab/error"; None when the run has none. series: by key, like "generator/cycle_a".
    settings: the run's, as plain data.
    """

    name: str
    steps: int
    score: str | None
    series: Mapping[str, Series]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def last_step(self) -> int:
        """The last step at which anything was logged."""
        return int(max(series.steps[-1] for series in self.series.values()))

    def setting(self, path: str) -> Any:
        """The value of a setting, "method.cycle_weight" for example; None when the run has no such setting."""
        return _setting(self.settings, path)


def read_run(folder: Path) -> History:
    """The history of the run in a folder, from its metrics.jsonl and settings.yaml.

    A line that is no JSON object with a step, like a last one torn by an interruption, is left out, and so is a
    value that is no number. Where a step is told twice the later line holds. Raises DataError when the folder is
    missing, is no run, or logged nothing.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give a run, a folder that `gan-nst train` wrote")
    if not (folder / "settings.yaml").is_file():
        raise DataError(
            f"{folder}: not a run (it has no settings.yaml); give a folder that `gan-nst train` wrote"
        )
    try:
        settings = read_yaml(folder / "settings.yaml")
    except SettingsError as error:
        raise DataError(str(error)) from None
    series = _read_metrics(folder / "metrics.jsonl")
    if not series:
        raise DataError(f"{folder}: no metrics in it yet; train past the first training.log_every steps")
    planned, score = _setting(settings, "training.steps"), _setting(settings, "evaluation.score")
    last = int(max(one.steps[-1] for one in series.values()))
    return History(
        name=folder.resolve().name,
        steps=planned if isinstance(planned, int) else last,
        score=score if isinstance(score, str) else None,
        series=series,
        settings=settings,
    )


def roles(history: History) -> dict[str, dict[str, Series]]:
    """The loss terms of each role, by their names: {"generator": {"cycle_a": ...}, ...}."""
    found: dict[str, dict[str, Series]] = {}
    for key, series in history.series.items():
        role, slash, term = key.partition("/")
        if slash and role not in RESERVED:
            found.setdefault(role, {})[term] = series
    return found


def validations(history: History) -> dict[str, Validation]:
    """The scores by translation and key, like "ab/fid_768", with their intervals; only those with a finite value."""
    found = {}
    for key, series in history.series.items():
        group, _, name = key.partition("/")
        if group != "validation" or name.endswith(("/low", "/high")) or not np.isfinite(series.values).any():
            continue
        low, high = (_at(history.series.get(f"{key}/{end}"), series.steps) for end in ("low", "high"))
        score = name.rpartition("/")[2]
        found[name] = Validation(series.steps, series.values, low, high, more_is_better(score))
    return found


def measures(history: History) -> dict[str, dict[str, Series]]:
    """The measures by their names, then by translation: {"diversity": {"ab": ..., "ba": ...}, ...}."""
    return _nested(history, "measure", outer=2, inner=1)


def shares(history: History) -> dict[str, dict[str, Series]]:
    """Each term's share of its role's gradient norm, 0 to 1: {"generator": {"cycle_a": ...}}."""
    return _nested(history, "gradient_share", outer=1, inner=2)


def family(term: str) -> str:
    """What the terms of all translations and domains have in common: "cycle" of "cycle_a", "adversarial" of
    "adversarial_ab".
    """
    name, _, of = term.rpartition("_")
    return name if name and of in ("a", "b", "ab", "ba") else term


def total(series: Iterable[Series]) -> Series:
    """The sum of at least one series, at the steps that all of them have."""
    first, *others = series
    for other in others:
        both = np.intersect1d(first.steps, other.steps)
        mine, theirs = np.isin(first.steps, both), np.isin(other.steps, both)
        first = Series(both, first.values[mine] + other.values[theirs])
    return first


def smooth(values: Values, share: float = 0.08) -> Values:
    """The centred moving average of values (n,), over about a share of them.

    Nothing lags, as it would with an exponential average, and a straight line stays as it is: towards both ends the
    window shrinks, evenly to either side. nan where the value is not finite; others leave it out.
    """
    count = len(values)
    reach = round(count * share / 2)
    told = np.isfinite(values)
    sums, counts = (np.concatenate([[0.0], np.cumsum(x)]) for x in (np.where(told, values, 0), told))
    places = np.arange(count)
    reaches = np.minimum(reach, np.minimum(places, count - 1 - places))
    first, end = places - reaches, places + reaches + 1
    averaged = (sums[end] - sums[first]) / np.maximum(counts[end] - counts[first], 1)
    return np.where(told, averaged, np.nan)


def extremes(series: Series, columns: int) -> NDArray[np.int64]:
    """The indices (n,) of a long series' least and greatest value in each of so many columns of a figure: a line
    through them covers what the line through all of them would cover. All indices of a short one.
    """
    count = len(series.steps)
    if count <= 2 * columns:
        return np.arange(count)
    first, last = series.steps[0], series.steps[-1]
    column = np.floor((series.steps - first) / (last - first) * (columns - 1))
    kept = []
    for part in np.split(np.arange(count), np.flatnonzero(np.diff(column)) + 1):
        told = part[np.isfinite(series.values[part])]
        values = series.values[told]
        kept += sorted({told[values.argmin()], told[values.argmax()]}) if len(told) else [part[0]]
    return np.array(kept)


def _read_metrics(path: Path) -> dict[str, Series]:
    """The series of a metrics.jsonl by key; none when there is no such file. Raises DataError when it cannot be
    read.
    """
    steps: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
    values: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
    try:
        with open(path, encoding="utf-8", errors="replace") as lines:  # of weeks, more than one would hold
            for step, key, value in _entries(lines):
                steps[key].append(step)
                values[key].append(value)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({reason(error)})") from None
    return {key: _series(np.array(steps[key]), np.array(values[key])) for key in steps}


def _series(steps: Values, values: Values) -> Series:
    """The values in the order of their steps; of those of one step the last."""
    order = np.argsort(steps, kind="stable")
    last = order[np.diff(steps[order], append=np.inf) > 0]
    return Series(steps[last], values[last])


def _entries(lines: Iterable[str]) -> Iterator[tuple[int, str, float]]:
    """(step, key, value) for every number in lines of metrics; nan for one that is not finite."""
    for line in lines:
        try:
            told = json.loads(line)
        except (ValueError, RecursionError):
            continue
        step = told.get("step") if isinstance(told, dict) else None
        if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step < 2**53:
            continue
        for key, value in told.items():
            if key == "step" or isinstance(value, bool):
                continue
            try:
                number = float(value)
            except (TypeError, ValueError, OverflowError):
                continue
            yield step, key, number if math.isfinite(number) else math.nan


def _at(series: Series | None, steps: Values) -> Values:
    """The values of a series at some steps, nan where it has none."""
    if series is None:
        return np.full(len(steps), np.nan)
    values = dict(zip(series.steps.tolist(), series.values.tolist(), strict=True))
    return np.array([values.get(step, np.nan) for step in steps.tolist()])


def _setting(settings: Mapping[str, Any], path: str) -> Any:
    value: Any = settings
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _nested(history: History, group: str, outer: int, inner: int) -> dict[str, dict[str, Series]]:
    """A group's series by two parts of their three-part names."""
    found: dict[str, dict[str, Series]] = {}
    for key, series in history.series.items():
        parts = key.split("/")
        if len(parts) == 3 and parts[0] == group:
            found.setdefault(parts[outer], {})[parts[inner]] = series
    return found
