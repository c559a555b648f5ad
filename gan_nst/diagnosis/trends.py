"""How a score or a loss moves over the steps, told from its noise."""

import dataclasses
import math

import numpy as np

from gan_nst.diagnosis.curves import Series, Validation, Values

_FEWEST = 4  # validations a trend is read from
_SURE = 2.0  # standard errors
_FALLING = 0.05  # of a loss; a smaller fall over the whole stretch is none


def finite(validation: Validation | None) -> Validation | None:
    """The validation at the steps where its value is finite; None for none, or fewer than two."""
    if validation is None:
        return None
    told = np.isfinite(validation.values)
    if told.sum() < 2:
        return None
    arrays = {name: getattr(validation, name)[told] for name in ("steps", "values", "low", "high")}
    return dataclasses.replace(validation, **arrays)


def loss(validation: Validation) -> Values:
    """The values such that less is better."""
    return -validation.values if validation.more_is_better else validation.values


def noise(validation: Validation) -> float | None:
    """By how much two values of the score must differ to be told apart.

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


def falls(series: Series, since: int) -> bool:
    """Whether a loss falls after a step: a line through it does, by 5 % of its mean and two standard errors."""
    later = (series.steps >= since) & np.isfinite(series.values)
    steps, values = series.steps[later], series.values[later]
    if len(values) < _FEWEST:
        return False
    fall, error = _fall(steps, values)
    return fall > max(_FALLING * abs(float(values.mean())), _SURE * error)


def steps_to_gain(validation: Validation) -> tuple[float, int, int] | None:
    """(gain over the last half of the validations, the steps of that half, how many more bring something).

    The gain is that of a line through the half. The rule for the steps: each further stretch as long brings half of
    what the one before brought; it pays as long as that is more than the noise. None where the gain is noise, or for
    fewer than four validations.
    """
    expected = noise(validation)
    if len(validation.values) < _FEWEST or expected is None:
        return None
    start = min(len(validation.values) // 2, len(validation.values) - _FEWEST)
    steps = validation.steps[start:]
    gain, error = _fall(steps, loss(validation)[start:])
    stretch = int(steps[-1] - steps[0])
    if gain <= max(expected, _SURE * error):
        return None
    stretches = math.ceil(math.log2(gain / expected)) if expected > 0 else math.inf
    every = stretch // (len(steps) - 1)
    more = stretch * min(max(stretches, 1), 10)
    return gain, stretch, max(every, int(more) // max(every, 1) * every)


def _fall(steps: Values, values: Values) -> tuple[float, float]:
    """How much a line through the values falls from the first step to the last, and its standard error."""
    x = steps - steps.mean()
    slope = float((x * values).sum() / (x**2).sum())
    residuals = values - values.mean() - slope * x
    error = math.sqrt(float((residuals**2).sum()) / max(len(x) - 2, 1) / float((x**2).sum()))
    length = float(steps[-1] - steps[0])
    return -slope * length, error * length
