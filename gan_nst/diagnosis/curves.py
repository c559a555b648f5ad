"""Reads the history of a run from its folder: every value over the steps, and which values belong together."""

import json
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan_nst.core.errors import DataError, SettingsError, reason
from gan_nst.core.scores import more_is_better
from gan_nst.core.settings import read_yaml

Values = NDArray[np.float64]

# Groups of metrics that are not losses; any other group is a role.
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
    """One value over the steps at which it was logged: float64 (n,) each, steps rising; nan where not finite."""

    steps: Values
    values: Values


@dataclass(frozen=True)
class Validation(Series):
    """One score over the validated steps, with its interval: low and high are (n,), nan where there is none."""

    low: Values
    high: Values
    more_is_better: bool

    def best(self) -> int:
        """The index of the best finite value, the earliest of equal ones. There must be a finite value."""
        values = self.values if self.more_is_better else -self.values
        return int(np.nanargmax(values))


@dataclass(frozen=True)
class History:
    """The logged history of a run.

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
        """The value of a setting, like "method.cycle_weight"; None when the run has no such setting."""
        value: Any = self.settings
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value


def read_run(folder: Path) -> History:
    """The history of the run in a folder, from its metrics.jsonl and settings.yaml.

    Lines that are not JSON objects with a step, such as a last line cut off by an interruption, are skipped. If a step
    was logged twice, the later line counts. Raises DataError when the folder is missing, is not a run, or has no
    metrics.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give a run, a folder that `gan-nst train` wrote")
    if not (folder / "settings.yaml").is_file():
        raise DataError(f"{folder}: not a run (no settings.yaml); give a folder that `gan-nst train` wrote")
    try:
        settings = read_yaml(folder / "settings.yaml")
    except SettingsError as error:
        raise DataError(str(error)) from None
    series = _read_metrics(folder / "metrics.jsonl")
    if not series:
        raise DataError(f"{folder}: no metrics yet; train past the first training.log_every steps")
    history = History(folder.resolve().name, 0, None, series, settings)
    planned, score = history.setting("training.steps"), history.setting("evaluation.score")
    return replace(
        history,
        steps=planned if isinstance(planned, int) else history.last_step(),
        score=score if isinstance(score, str) else None,
    )


def _read_metrics(path: Path) -> dict[str, Series]:
    """The series in a metrics.jsonl by key; none without that file. Raises DataError when it cannot be read."""
    logged: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))  # steps and values by turns
    not_logged = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
    try:
        with open(path, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                with suppress(*not_logged):  # such as a line torn by an interruption
                    entry = json.loads(line)
                    step = index(entry.pop("step"))
                    for key, value in entry.items():
                        logged[key].extend((step, float(value)))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({reason(error)})") from None
    return {key: _series(values) for key, values in logged.items() if values}


def _series(logged: "array[float]") -> Series:
    pairs = np.array(logged).reshape(-1, 2)
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    last = np.diff(pairs[:, 0], append=np.inf) > 0  # the later line of a step logged twice
    steps, values = pairs[last].T
    return Series(steps, np.where(np.isfinite(values), values, np.nan))


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


def _at(series: Series | None, steps: Values) -> Values:
    """The values of a series at some steps, nan where it has none."""
    known = {} if series is None else dict(zip(series.steps.tolist(), series.values.tolist(), strict=True))
    return np.array([known.get(step, np.nan) for step in steps.tolist()])


def measures(history: History) -> dict[str, dict[str, Series]]:
    """The measures by their names, then by translation: {"diversity": {"ab": ..., "ba": ...}, ...}."""
    return _nested(((name, of), series) for (of, name), series in _parts(history, "measure"))


def shares(history: History) -> dict[str, dict[str, Series]]:
    """Each term's share of its role's gradient norm, 0 to 1: {"generator": {"cycle_a": ...}}."""
    return _nested(_parts(history, "gradient_share"))


def _parts(history: History, group: str) -> Iterator[tuple[tuple[str, str], Series]]:
    """The series of a group whose keys have two more parts, with those parts."""
    for key, series in history.series.items():
        first, *parts = key.split("/")
        if first == group and len(parts) == 2:
            yield (parts[0], parts[1]), series


def _nested(keyed: Iterable[tuple[tuple[str, str], Series]]) -> dict[str, dict[str, Series]]:
    found: dict[str, dict[str, Series]] = {}
    for (outer, inner), series in keyed:
        found.setdefault(outer, {})[inner] = series
    return found


def family(term: str) -> str:
    """What terms have in common across translations and domains: "cycle" for "cycle_a", "adversarial" for
    "adversarial_ab".
    """
    name, _, of = term.rpartition("_")
    return name if name and of in ("a", "b", "ab", "ba") else term


def by_family(terms: Mapping[str, Series]) -> dict[str, Series]:
    """The sums of terms of a kind, by family."""
    families: dict[str, list[Series]] = {}
    for term, series in terms.items():
        families.setdefault(family(term), []).append(series)
    return {name: total(series) for name, series in families.items()}


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

    Nothing lags, as it would with an exponential average, and a straight line is kept: towards both ends the window
    shrinks, evenly on either side. nan where the value is not finite; averages skip such values.
    """
    count = len(values)
    reach = round(count * share / 2)
    known = np.isfinite(values)
    sums, counts = (np.concatenate([[0.0], np.cumsum(x)]) for x in (np.where(known, values, 0), known))
    places = np.arange(count)
    reaches = np.minimum(reach, np.minimum(places, count - 1 - places))
    first, end = places - reaches, places + reaches + 1
    averaged = (sums[end] - sums[first]) / np.maximum(counts[end] - counts[first], 1)
    return np.where(known, averaged, np.nan)
