"""Finds what went wrong in a run from its history, with one thing to try for each finding.

No finding rests on one noisy point: what is measured at validations must show at the last two, what is logged must show
over the last quarter of the steps. The exception is a value that is not finite.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from gan_nst.core.errors import counted
from gan_nst.core.scores import label
from gan_nst.diagnosis.curves import (
    History,
    Series,
    Validation,
    Values,
    by_family,
    family,
    measures,
    roles,
    shares,
    total,
    validations,
)

Level = Literal["alarm", "advice"]


@dataclass(frozen=True)
class Finding:
    """Something that a history shows.

    kind: which of the findings. level: "alarm" when the run is spoiled unless something changes. step: where it shows.
    evidence: one sentence with the numbers. advice: one thing to try.
    """

    kind: str
    level: Level
    step: int
    evidence: str
    advice: str


def diagnose(history: History) -> list[Finding]:
    """All findings of a history, alarms first."""
    findings = [finding for rule in _RULES for finding in rule(history)]
    return sorted(findings, key=lambda finding: finding.level != "alarm")


def describe(findings: Iterable[Finding], history: History) -> str:
    """The findings as lines to print, two each; without any, one line that says so, and how much was examined."""
    lines = []
    for finding in findings:
        lines += [f"{finding.level}, step {finding.step}: {finding.evidence}", f"  try: {finding.advice}"]
    if lines:
        return "\n".join(lines)
    groups = ("validation/", "measure/")
    validated = [set(s.steps.tolist()) for key, s in history.series.items() if key.startswith(groups)]
    count = len(set[float]().union(*validated))
    few = "" if count > 2 else ", too few to say much"
    return (
        f"Nothing alarming was found over {history.last_step()} of {history.steps} steps and "
        f"{counted(count, 'validation')}{few}."
    )


# Least-squares loss: 0.25 is chance. 10 healthy runs on demo images, photo2hayao and monet2photo never fell below
# 0.17; one with cycle_weight 200, whose generators could not move, ended at 0.02 to 0.04.
_SATURATED = 0.05
# Terms that may be low: smoothed edges are easy to recognise, translations are not.
_EASY = ("penalty", "smoothed")
_SUSTAINED = 0.8  # share of the last quarter's points that are below
_FEWEST_POINTS = 5

# A spike, in means over at least so many steps, since single steps say nothing: so many times the median of the
# points before it, more of their spread (of logarithms) than chance has, and beyond what the term ever was. Seven good
# runs reached 4.4 times. Of 1680 simulated runs of ten good terms 3 showed one; of 240 whose terms vary by a factor of
# 2.2 from point to point, 18.
_SPIKE_STEPS, _SPIKE_POINTS = 10, 20
_SPIKE, _SPIKE_SPREADS, _SPIKE_BEYOND = 10.0, 6.0, 3.0
_GUESSING = 0.7  # a discriminator whose loss rises to that alone recovers from having been too good

# Of its median in the first quarter, in the last one; healthy runs kept 73 % and more.
_VANISHED = 0.01
# Spread of a discriminator's loss, of its median; healthy runs, whose images differ, had 1.4 % and more.
_CONSTANT = 0.001


def _not_finite(history: History) -> Iterator[Finding]:
    """Any value that is not finite, except the ends of intervals."""
    broken = {
        key: series.steps[~np.isfinite(series.values)]
        for key, series in history.series.items()
        if not key.endswith(("/low", "/high")) and not np.isfinite(series.values).all()
    }
    if not broken:
        return
    first = min(broken, key=lambda key: float(broken[key][0]))
    count, others = len(broken[first]), len(broken) - 1
    more = f", and so {'was' if others == 1 else 'were'} {counted(others, 'other value')}" if others else ""
    yield Finding(
        "not finite",
        "alarm",
        int(broken[first][0]),
        f"{first} was not finite at {count} of the {len(history.series[first].steps)} steps at which it was logged, "
        f"first at step {broken[first][0]:.0f}{more}.",
        _lower_rate(history),
    )


def _saturated(history: History) -> Iterator[Finding]:
    """A discriminator that recognises fakes without effort: its gradient teaches the generator nothing."""
    low, since = [], 0
    for term, series in _discriminator_losses(history).items():
        part = _last_quarter(series)
        enough = len(part) >= _FEWEST_POINTS and np.mean(np.abs(part) < _SATURATED) >= _SUSTAINED
        if enough and not _is_easy(term):
            low.append(f"{term} {np.median(part):.3f}")
            since = int(series.steps[-len(part)])
    if low:
        yield Finding(
            "saturated discriminator",
            "alarm",
            history.last_step(),
            f"Since step {since} the discriminator has hardly made a mistake: median loss {', '.join(low)} (an even "
            "match is 0.25 with lsgan, 0.69 with bce).",
            _weaker_discriminator(history),
        )


def _idle(history: History) -> Iterator[Finding]:
    """A discriminator that learns nothing: no gradient moves it, or its scores are the same for all images."""
    signs = []
    parts = [
        _last_quarter(series) for term, series in _discriminator_losses(history).items() if not _is_easy(term)
    ]
    if any(len(part) < _FEWEST_POINTS or np.median(np.abs(part)) < _SATURATED for part in parts):
        return  # too early to say, or the discriminator is too good
    if parts and all(_spread(part) < _CONSTANT for part in parts):
        signs.append("its losses hardly vary between images")
    for key, series in history.series.items():
        if key.startswith("gradient_norm/discriminator") and len(series.values) >= 4 * _FEWEST_POINTS:
            quarters = _finite(series.values[: len(series.values) // 4]), _last_quarter(series)
            first, last = (float(np.median(part)) if len(part) else np.nan for part in quarters)
            if last < _VANISHED * first:
                signs.append(f"{key} fell to {last:.2g} from {first:.2g}")
    if signs:
        yield Finding(
            "idle discriminator",
            "alarm",
            history.last_step(),
            f"The discriminator learns nothing and teaches the generator nothing: {' and '.join(signs)}.",
            _lower_rate(history),
        )


def _spiked(history: History) -> Iterator[Finding]:
    """The largest jump of a loss or a gradient norm above what it was."""
    found = []
    for key, series in history.series.items():
        group, _, term = key.partition("/")
        if (group == "gradient_norm" or group in roles(history)) and not _is_easy(term):
            least = _GUESSING if group.startswith("discriminator") else 0.0
            if (spike := _largest_spike(series, least)) is not None:
                step, factor, stays = spike
                found.append((factor, key, step, stays))
    if not found:
        return
    factor, key, step, stays = max(found)
    others = len(found) - 1
    also = f", {counted(others, 'other value')} too" if others else ""
    clips = history.setting("training.gradient_clip") is not None
    yield Finding(
        "loss spike",
        "alarm" if stays else "advice",
        step,
        f"{key} jumped to {factor:.3g} times what it was before step {step}{also}, and "
        f"{'stayed there' if stays else 'fell back'}.",
        _lower_rate(history) if clips else "training.gradient_clip=1, which limits what a single step can do",
    )


def _largest_spike(series: Series, least: float) -> tuple[int, float, bool] | None:
    """(step, times the median before, whether it stayed) of the highest spike that reaches `least`."""
    steps, values = _means(series)
    logs = np.log(np.maximum(np.abs(values), np.finfo(float).tiny))
    if len(logs) <= _SPIKE_POINTS:
        return None
    before = np.lib.stride_tricks.sliding_window_view(logs[:-1], _SPIKE_POINTS)
    middle = np.median(before, axis=1)
    spread = 1.4826 * np.median(np.abs(before - middle[:, None]), axis=1)
    rise = logs[_SPIKE_POINTS:] - middle
    high = np.abs(values[_SPIKE_POINTS:]) > least
    jumps = np.flatnonzero(high & (rise > np.maximum(np.log(_SPIKE), _SPIKE_SPREADS * spread)))
    for jump in sorted(jumps.tolist(), key=lambda jump: -rise[jump]):
        i = jump + _SPIKE_POINTS
        if logs[i] - np.quantile(logs[:i], 0.9) > np.log(_SPIKE_BEYOND):
            later = logs[i + 1 :]
            stays = len(later) >= _FEWEST_POINTS and np.median(later) - middle[jump] > rise[jump] / 2
            return int(steps[i]), float(np.exp(min(rise[jump], 700.0))), bool(stays)
    return None


def _means(series: Series) -> tuple[Values, Values]:
    """The finite values, averaged over at least `_SPIKE_STEPS` steps each, and the steps at which these end."""
    finite = np.isfinite(series.values)
    steps, values = series.steps[finite], series.values[finite]
    every = float(np.median(np.diff(steps))) if len(steps) > 1 else 1.0
    size = int(np.ceil(_SPIKE_STEPS / max(every, 1.0)))
    count = len(steps) // size
    return steps[: count * size].reshape(count, size)[:, -1], values[: count * size].reshape(
        count, size
    ).mean(1)


def _discriminator_losses(history: History) -> dict[str, Series]:
    """The losses of all discriminators by term."""
    return {
        term: series
        for role, terms in roles(history).items()
        if role.startswith("discriminator")
        for term, series in terms.items()
    }


def _is_easy(term: str) -> bool:
    return any(word in term for word in _EASY)


def _last_quarter(series: Series) -> Values:
    """The finite values of the last quarter, of at least `_FEWEST_POINTS` points if there are as many."""
    return _finite(series.values[-max(len(series.values) // 4, _FEWEST_POINTS) :])


def _finite(values: Values) -> Values:
    return values[np.isfinite(values)]


def _spread(values: Values) -> float:
    """The spread of the middle half of the values, relative to their median."""
    low, middle, high = np.quantile(np.abs(values), [0.25, 0.5, 0.75])
    return float((high - low) / middle)


# A share of the planned steps. What a generator shows before that is how it was initialised: untrained ones have a
# diversity of 0.26 to 0.65 and correlations of -0.20 to 0.70.
_EARLY = 0.1
# Generators that start from the image return it at first and may take long to leave it.
_EARLY_FOR_NOTHING = 0.25

# Measured on 24 images, of 16 good translators and 4 trained ones with transposed convolutions.
_COLLAPSED = 0.3  # sound: 0.91 to 1.12; the untouched input: at least 0.45; a constant image: 0
_UNCHANGED = 0.01  # 2.5 gray levels; sound: 0.18 on the demo, 0.05 on photo2hayao, 0.02 on monet2photo
_INVERTED = -0.2  # sound: 0.66 to 0.99; negatives: -1
# Sound: 0.7 to 2.4, at most 2.9 on 8 images; transposed: 3.9 to 5.5, at least 3.2 on 8 images.
_CHECKERBOARD = 3.0

_SILENT = 0.001  # of the role's gradient norm: its direction is lost in the noise of the others
_DROWNING = 0.95


def _collapsed(history: History) -> Iterator[Finding]:
    found = _sustained(measures(history).get("diversity"), lambda share: share < _COLLAPSED, history)
    if found:
        yield Finding(
            "collapse",
            "alarm",
            _step(found),
            f"The outputs hardly depend on the input: they differ from each other {_values(found)} times as much as "
            "the targets do.",
            _scaled(history, "method.cycle_weight", 2, instead_of_zero=10)
            or _scaled(history, "method.content_weight", 2, instead_of_zero=1)
            or _lower_rate(history),
        )


def _does_nothing(history: History) -> Iterator[Finding]:
    change = measures(history).get("change")
    found = _sustained(change, lambda change: change < _UNCHANGED, history, _EARLY_FOR_NOTHING)
    if found:
        yield Finding(
            "does nothing",
            "alarm",
            _step(found),
            f"The generator returns its input: the mean difference is {_values(found)} on a scale of 0 to 1.",
            _scaled(history, "method.identity_weight", 0.5)
            or _scaled(history, "method.cycle_weight", 0.5)
            or _scaled(history, "method.content_weight", 0.5)
            or "a longer run: raise training.steps",
        )


def _inverted(history: History) -> Iterator[Finding]:
    found = _sustained(measures(history).get("correlation"), lambda r: r < _INVERTED, history)
    if found:
        start = history.setting("method.generator.start_from")
        yield Finding(
            "inverted",
            "alarm",
            _step(found),
            f"Light and dark are swapped: the correlation of input and output brightness is {_values(found)}.",
            "method.generator.start_from=image"
            if start == "nothing"
            else _scaled(history, "method.identity_weight", 2, instead_of_zero=5)
            or "another seed: inversion is decided in the first steps",
        )


def _checkerboard(history: History) -> Iterator[Finding]:
    found = _sustained(measures(history).get("checkerboard"), lambda ratio: ratio > _CHECKERBOARD, history)
    if found:
        transposed = history.setting("method.generator.upsampling") in (None, "transposed")
        yield Finding(
            "checkerboard",
            "alarm",
            _step(found),
            f"The outputs have a pattern of 2 or 4 pixels: their spectrum peaks {_values(found)} times as much there "
            "as the targets' does.",
            "method.generator.upsampling=resize" if transposed else _lower_rate(history),
        )


def _over_trained(history: History) -> Iterator[Finding]:
    """The chosen score worse than its best, by more than its noise, at the last two validations.

    An alarm when the cycle terms, if there are any, no longer fall since then: more steps gain nothing. While they
    still fall, it is advice: the training images are learned better and better, other images worse.
    """
    validation = _chosen_score(history)
    if validation is None:
        return
    best, spread = validation.best(), _noise(validation)
    worse = _loss(validation) - _loss(validation)[best]
    if len(worse) - best < 3 or spread is None or not (worse[-2:] > spread).all():
        return
    step = int(validation.steps[best])
    terms = [s for group in roles(history).values() for term, s in group.items() if family(term) == "cycle"]
    falling = bool(terms) and _falls(total(terms), step)
    meanwhile = f", while the cycle terms {'still fell' if falling else 'no longer fall'}" if terms else ""
    yield Finding(
        "over-training",
        "advice" if falling else "alarm",
        int(validation.steps[-1]),
        f"{_name(history.score)} was best at step {step} ({validation.values[best]:.4g}) and is "
        f"{validation.values[-1]:.4g} now, {abs(worse[-1]):.2g} worse where {spread:.2g} is noise{meanwhile}.",
        f"the best checkpoint, of step {step}: evaluation.export=best",
    )


def _still_improving(history: History) -> Iterator[Finding]:
    """The chosen score best at the planned end, and still improving by more than its noise.

    The rule for how many more steps pay: each further stretch as long as the last half brings half of what the one
    before brought, as long as that is more than the noise.
    """
    validation = _chosen_score(history)
    if validation is None or history.last_step() < history.steps:
        return
    count, noise = len(validation.values), _noise(validation)
    if validation.best() != count - 1 or count < _FEWEST or noise is None:
        return
    start = min(count // 2, count - _FEWEST)
    steps = validation.steps[start:]
    gain, error = _fall(steps, _loss(validation)[start:])
    if gain <= max(noise, _SURE * error):
        return
    stretch = int(steps[-1] - steps[0])
    every = max(1, stretch // (len(steps) - 1))
    stretches = min(max(math.ceil(math.log2(gain / noise)), 1), 10) if noise > 0 else 10
    more = min(max(every, stretch * stretches // every * every), history.steps)
    yield Finding(
        "still improving",
        "advice",
        int(validation.steps[-1]),
        f"{_name(history.score)} was best at the end ({validation.values[-1]:.4g}) and gained {gain:.2g} over the last "
        f"{stretch} steps, more than its noise.",
        f"training.steps={history.steps + more}, about {more} more",
    )


def _unbalanced(history: History) -> Iterator[Finding]:
    """A kind of term that takes nearly all of the gradient, or a term that takes nearly none."""
    for role, terms in shares(history).items():
        families = by_family(terms)
        loud = _sustained(families, lambda share: share > _DROWNING, history) if len(families) > 1 else {}
        for name, (step, share) in loud.items():
            yield Finding(
                "drowning term",
                "advice",
                step,
                f"{role}/{name} has {share:.1%} of the gradient and drowns out the other terms.",
                _rebalance(history, name, list(families), louder=False),
            )
        quiet = _sustained(terms, lambda share: share < _SILENT, history) if len(terms) > 1 else {}
        for name, (step, share) in quiet.items():
            yield Finding(
                "silent term",
                "advice",
                step,
                f"{role}/{name} has {share:.2%} of the gradient and decides nothing.",
                _rebalance(history, family(name), list(families), louder=True),
            )


_RULES: tuple[Callable[[History], Iterator[Finding]], ...] = (
    _not_finite,
    _spiked,
    _saturated,
    _idle,
    _collapsed,
    _does_nothing,
    _inverted,
    _over_trained,
    _checkerboard,
    _unbalanced,
    _still_improving,
)


def _sustained(
    series: Mapping[str, Series] | None,
    broken: Callable[[float], bool],
    history: History,
    early: float = _EARLY,
) -> dict[str, tuple[int, float]]:
    """(step, value) at the last validation, for every series that is broken at the last two, past the early steps."""
    found = {}
    for name, one in (series or {}).items():
        finite = np.isfinite(one.values)
        steps, values = one.steps[finite], one.values[finite]
        if len(values) > 1 and steps[-1] >= early * history.steps and all(map(broken, values[-2:].tolist())):
            found[name] = (int(steps[-1]), float(values[-1]))
    return found


def _step(found: Mapping[str, tuple[int, float]]) -> int:
    return max(step for step, _ in found.values())


def _values(found: Mapping[str, tuple[int, float]]) -> str:
    """The last values by translation: "0.02 (ab) and 0.04 (ba)"."""
    return " and ".join(f"{value:.2g} ({name})" for name, (_, value) in found.items())


def _name(score: str | None) -> str:
    """ "ab: FID-768" for "ab/fid_768"."""
    translation, _, key = (score or "").rpartition("/")
    return f"{translation}: {label(key)}" if translation else label(key)


_FEWEST = 4  # validations that a trend is read from
_SURE = 2.0  # standard errors
_FALLING = 0.05  # of a loss; a smaller fall over all the steps does not count


def _chosen_score(history: History) -> Validation | None:
    """The chosen score at the steps where it is finite; None when there are fewer than two."""
    validation = validations(history).get(history.score or "")
    if validation is None:
        return None
    finite = np.isfinite(validation.values)
    arrays = {name: getattr(validation, name)[finite] for name in ("steps", "values", "low", "high")}
    return replace(validation, **arrays) if finite.sum() > 1 else None


def _loss(validation: Validation) -> Values:
    """The values with the sign at which less is better."""
    return -validation.values if validation.more_is_better else validation.values


def _noise(validation: Validation) -> float | None:
    """By how much two values of the score must differ to count as different.

    Half of its interval's width at its best step. Without intervals four deviations from step to step, estimated
    from the second differences, which a steady trend does not raise: the best of many values is two deviations lucky
    already. Of runs whose score is nothing but noise 1 to 2 % seem to worsen then, and at most 3 % to improve. None
    for fewer than five values without intervals.
    """
    best = validation.best()
    width = float(validation.high[best] - validation.low[best])
    if math.isfinite(width):
        return width / 2
    if len(validation.values) < 5:
        return None
    # White noise of deviation s has second differences of deviation sqrt(6) s.
    bends = np.diff(validation.values, 2)
    return 4 * math.sqrt(float(np.mean(bends**2)) / 6)


def _falls(series: Series, since: int) -> bool:
    """Whether a loss falls after a step: a line through it does, by 5 % of its mean and two standard errors."""
    later = (series.steps >= since) & np.isfinite(series.values)
    steps, values = series.steps[later], series.values[later]
    if len(values) < _FEWEST:
        return False
    fall, error = _fall(steps, values)
    return fall > max(_FALLING * abs(float(values.mean())), _SURE * error)


def _fall(steps: Values, values: Values) -> tuple[float, float]:
    """How much a line through the values falls from the first step to the last, and its standard error."""
    x = steps - steps.mean()
    slope = float((x * values).sum() / (x**2).sum())
    residuals = values - values.mean() - slope * x
    error = math.sqrt(float((residuals**2).sum()) / max(len(x) - 2, 1) / float((x**2).sum()))
    length = float(steps[-1] - steps[0])
    return -slope * length, error * length


def _scaled(history: History, path: str, factor: float, instead_of_zero: float | None = None) -> str:
    """The setting times a factor, "method.cycle_weight=20 instead of 10"; "" when the run has no such setting, or
    has 0 and there is nothing to set instead.
    """
    value = _number(history, path)
    if value is None or (value == 0 and instead_of_zero is None):
        return ""
    return f"{path}={value * factor or instead_of_zero:.3g} instead of {value:.3g}"


def _lower_rate(history: History) -> str:
    return _scaled(history, "method.learning_rate", 0.5) or "a lower learning rate"


def _weaker_discriminator(history: History) -> str:
    """One layer fewer, else half the width, else half the learning rate."""
    layers = _number(history, "method.discriminator.layers")
    if layers is not None and layers > 1:
        return f"method.discriminator.layers={layers - 1:.0f} instead of {layers:.0f}"
    width = _number(history, "method.discriminator.width")
    if width is not None and width > 1:
        return f"method.discriminator.width={width // 2:.0f} instead of {width:.0f}"
    return _lower_rate(history)


def _rebalance(history: History, family: str, families: Sequence[str], *, louder: bool) -> str:
    """A term's weight times ten, or a tenth of it; where it has none, as the adversarial term, the opposite for the
    first other term that has a weight.
    """
    factor = 10.0 if louder else 0.1
    own = _scaled(history, f"method.{family}_weight", factor, instead_of_zero=1 if louder else None)
    others = (_scaled(history, f"method.{other}_weight", 1 / factor) for other in families if other != family)
    return own or next(filter(None, others), "") or f"another weight for {family}"


def _number(history: History, path: str) -> float | None:
    value = history.setting(path)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
