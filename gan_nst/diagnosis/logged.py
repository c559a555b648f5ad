"""Findings in what is logged all the time: losses and gradient norms."""

from collections.abc import Iterator

import numpy as np

from gan_nst.core.errors import counted
from gan_nst.diagnosis.advice import lower_rate, weaker_discriminator
from gan_nst.diagnosis.curves import History, Series, Values, roles
from gan_nst.diagnosis.finding import Finding

# Least-squares loss: 0.25 is chance. 10 sound runs on demo pictures, photo2hayao and monet2photo never fell below
# 0.17; one with cycle_weight 200, whose generators could not move, ended at 0.02 to 0.04.
_SATURATED = 0.05
_EASY = ("penalty", "smoothed")  # terms that may be low: smoothed edges are easily told, translations are not
_SUSTAINED = 0.8  # share of the last quarter's points that lie below
_FEWEST_POINTS = 5

# A spike, in means over at least so many steps, of which single ones say nothing: so many times the median of the
# points before it, more of their spread (of logarithms) than chance has, and beyond what the term ever was. Seven sound
# runs reached 4.4 times. Of 1680 simulated runs of ten sound terms 3 showed one; of 240 whose terms vary by a factor of
# 2.2 from point to point, 18.
_SPIKE_STEPS, _SPIKE_POINTS = 10, 20
_SPIKE, _SPIKE_SPREADS, _SPIKE_BEYOND = 10.0, 6.0, 3.0
_GUESSING = 0.7  # a discriminator whose loss rises to that alone recovers from having been too good

# Of its median in the first quarter, in the last one; sound runs kept 73 % and more.
_VANISHED = 0.01
# Spread of a discriminator's loss, of its median; sound runs, whose pictures differ, had 1.4 % and more.
_CONSTANT = 0.001


def not_finite(history: History) -> Iterator[Finding]:
    """Any value that is not finite; the ends of intervals may be."""
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
        lower_rate(history),
    )


def saturated(history: History) -> Iterator[Finding]:
    """A discriminator that tells real from fake without effort: its gradient teaches the generator nothing."""
    low, since = [], 0
    for term, series in _judged(history).items():
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
            f"From step {since} on the discriminator hardly errs: median loss {', '.join(low)} (an even match is 0.25 "
            "with lsgan, 0.69 with bce).",
            weaker_discriminator(history),
        )


def idle(history: History) -> Iterator[Finding]:
    """A discriminator that learns nothing: no gradient moves it, or its scores are the same whatever it sees."""
    signs = []
    parts = [_last_quarter(series) for term, series in _judged(history).items() if not _is_easy(term)]
    if any(len(part) < _FEWEST_POINTS or np.median(np.abs(part)) < _SATURATED for part in parts):
        return  # it is too early to tell, or the discriminator is too good
    if parts and all(_spread(part) < _CONSTANT for part in parts):
        signs.append("its losses hardly vary, whatever the pictures")
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
            lower_rate(history),
        )


def spiked(history: History) -> Iterator[Finding]:
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
        lower_rate(history) if clips else "training.gradient_clip=1, which bounds what a single step can do",
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
    told = np.isfinite(series.values)
    steps, values = series.steps[told], series.values[told]
    every = float(np.median(np.diff(steps))) if len(steps) > 1 else 1.0
    size = int(np.ceil(_SPIKE_STEPS / max(every, 1.0)))
    count = len(steps) // size
    return steps[: count * size].reshape(count, size)[:, -1], values[: count * size].reshape(
        count, size
    ).mean(1)


def _judged(history: History) -> dict[str, Series]:
    """The losses of all discriminators by their names."""
    return {
        term: series
        for role, terms in roles(history).items()
        if role.startswith("discriminator")
        for term, series in terms.items()
    }


def _is_easy(term: str) -> bool:
    return any(word in term for word in _EASY)


def _last_quarter(series: Series) -> Values:
    """What is finite in it; at least so many points that something can be told, if there are."""
    return _finite(series.values[-max(len(series.values) // 4, _FEWEST_POINTS) :])


def _finite(values: Values) -> Values:
    return values[np.isfinite(values)]


def _spread(values: Values) -> float:
    """Of the middle half of the values, relative to their median."""
    low, middle, high = np.quantile(np.abs(values), [0.25, 0.5, 0.75])
    return float((high - low) / middle)
