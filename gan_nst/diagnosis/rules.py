"""What a run's history says went wrong, and one thing to try against each.

No finding rests on one noisy point: what is measured at validations must show at the last two, what is logged over the
last quarter of the steps. The exception is a value that is not finite.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from gan_nst.core.errors import counted
from gan_nst.core.scores import label
from gan_nst.diagnosis import trends
from gan_nst.diagnosis.advice import lower_rate, rebalance, scaled
from gan_nst.diagnosis.curves import History, Series, family, measures, roles, shares, total, validations
from gan_nst.diagnosis.finding import Finding
from gan_nst.diagnosis.logged import idle, not_finite, saturated, spiked

# Of the planned steps. Before, what a generator shows is how it was initialised: untrained ones have a diversity of
# 0.26 to 0.65 and correlations of -0.20 to 0.70.
_EARLY = 0.1
# Generators that start from the picture return it at first and may take long to leave it.
_EARLY_FOR_NOTHING = 0.25

# Measured on 24 pictures, of 16 sound translators and 4 trained ones with transposed convolutions.
_COLLAPSED = 0.3  # sound: 0.91 to 1.12; the untouched input: 0.45 at least; a constant picture: 0
_UNCHANGED = 0.01  # 2.5 gray levels; sound: 0.18 on the demo, 0.05 on photo2hayao, 0.02 on monet2photo
_INVERTED = -0.2  # sound: 0.66 to 0.99; negatives: -1
# Sound: 0.7 to 2.4, at most 2.9 on 8 pictures; transposed: 3.9 to 5.5, at least 3.2 on 8 pictures.
_CHECKERBOARD = 3.0

_SILENT = 0.001  # of the role's gradient norm: its direction is lost in the noise of the others
_DROWNING = 0.95


def diagnose(history: History) -> list[Finding]:
    """All findings of a history, alarms first."""
    findings = [finding for check in _CHECKS for finding in check(history)]
    return sorted(findings, key=lambda finding: finding.level != "alarm")


def describe(findings: Iterable[Finding], history: History | None = None) -> str:
    """The findings as lines to print, two each; without any, one line that says so, and of what, given the history."""
    lines = []
    for finding in findings:
        lines += [f"{finding.level}, step {finding.step}: {finding.evidence}", f"  try: {finding.advice}"]
    if lines:
        return "\n".join(lines)
    if history is None:
        return "Nothing alarming was found."
    groups = ("validation/", "measure/")
    validated = [set(s.steps.tolist()) for key, s in history.series.items() if key.startswith(groups)]
    count = len(set[float]().union(*validated))
    few = "" if count > 2 else ", too few to tell much"
    return (
        f"Nothing alarming was found over {history.last_step()} of {history.steps} steps and "
        f"{counted(count, 'validation')}{few}."
    )


def _collapsed(history: History) -> Iterator[Finding]:
    found = _sustained(measures(history).get("diversity"), lambda share: share < _COLLAPSED, history)
    if found:
        yield Finding(
            "collapse",
            "alarm",
            _step(found),
            f"The outputs hardly depend on the input: they differ from each other {_told(found)} times as much as the "
            "targets do.",
            scaled(history, "method.cycle_weight", 2, instead_of_zero=10)
            or scaled(history, "method.content_weight", 2, instead_of_zero=1)
            or lower_rate(history),
        )


def _does_nothing(history: History) -> Iterator[Finding]:
    change = measures(history).get("change")
    found = _sustained(change, lambda change: change < _UNCHANGED, history, _EARLY_FOR_NOTHING)
    if found:
        yield Finding(
            "does nothing",
            "alarm",
            _step(found),
            f"The generator returns its input: the mean difference is {_told(found)} on a scale of 0 to 1.",
            scaled(history, "method.identity_weight", 0.5)
            or scaled(history, "method.cycle_weight", 0.5)
            or scaled(history, "method.content_weight", 0.5)
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
            f"Light and dark are exchanged: brightness of input and output correlates {_told(found)}.",
            "method.generator.start_from=picture"
            if start == "nothing"
            else scaled(history, "method.identity_weight", 2, instead_of_zero=5)
            or "another seed: inversion is a matter of the first steps",
        )


def _checkerboard(history: History) -> Iterator[Finding]:
    found = _sustained(measures(history).get("checkerboard"), lambda ratio: ratio > _CHECKERBOARD, history)
    if found:
        transposed = history.setting("method.generator.upsampling") in (None, "transposed")
        yield Finding(
            "checkerboard",
            "alarm",
            _step(found),
            f"The outputs have a pattern of 2 or 4 pixels: their spectrum peaks {_told(found)} times as much as the "
            "targets' does there.",
            "method.generator.upsampling=resize" if transposed else lower_rate(history),
        )


def _over_trained(history: History) -> Iterator[Finding]:
    """The chosen score worse than its best, by more than its noise, at the last two validations.

    An alarm when the cycle terms, where there are any, no longer fall since: more steps bring nothing. While they still
    fall, it is advice: the training pictures are learned better and better, others worse.
    """
    validation = trends.finite(validations(history).get(history.score or ""))
    if validation is None:
        return
    best, noise = validation.best(), trends.noise(validation)
    worse = trends.loss(validation) - trends.loss(validation)[best]
    if len(worse) - best < 3 or noise is None or not (worse[-2:] > noise).all():
        return
    step = int(validation.steps[best])
    terms = [s for group in roles(history).values() for term, s in group.items() if family(term) == "cycle"]
    falls = bool(terms) and trends.falls(total(terms), step)
    meanwhile = "" if not terms else f", while the cycle terms {'still fell' if falls else 'no longer fall'}"
    yield Finding(
        "over-training",
        "advice" if falls else "alarm",
        int(validation.steps[-1]),
        f"{_name(history.score)} was best at step {step} ({validation.values[best]:.4g}) and is "
        f"{validation.values[-1]:.4g} now, {abs(worse[-1]):.2g} worse where {noise:.2g} is noise{meanwhile}.",
        f"the best checkpoint, of step {step}: evaluation.export=best",
    )


def _unbalanced(history: History) -> Iterator[Finding]:
    """A kind of term that takes nearly all of the gradient, or a term that takes nearly none."""
    for role, terms in shares(history).items():
        families: dict[str, list[Series]] = {}
        for term, series in terms.items():
            families.setdefault(family(term), []).append(series)
        sums = {name: total(series) for name, series in families.items()}
        loud = _sustained(sums, lambda share: share > _DROWNING, history) if len(sums) > 1 else {}
        for name, (step, share) in loud.items():
            yield Finding(
                "drowning term",
                "advice",
                step,
                f"{role}/{name} has {share:.1%} of the gradient and drowns the other terms.",
                rebalance(history, name, list(sums), louder=False),
            )
        for name, (step, share) in _sustained(terms, lambda share: share < _SILENT, history).items():
            if len(terms) > 1:
                yield Finding(
                    "silent term",
                    "advice",
                    step,
                    f"{role}/{name} has {share:.2%} of the gradient: it decides nothing.",
                    rebalance(history, family(name), list(sums), louder=True),
                )


def _still_improving(history: History) -> Iterator[Finding]:
    """The chosen score best at the planned end, and still falling by more than its noise."""
    validation = trends.finite(validations(history).get(history.score or ""))
    if validation is None or history.last_step() < history.steps:
        return
    if validation.best() != len(validation.steps) - 1:
        return
    more = trends.steps_to_gain(validation)
    if more is None:
        return
    gain, stretch, steps = more
    steps = min(steps, history.steps)
    yield Finding(
        "still improving",
        "advice",
        int(validation.steps[-1]),
        f"{_name(history.score)} was best at the end ({validation.values[-1]:.4g}) and gained {gain:.2g} over the last "
        f"{stretch} steps, more than its noise.",
        f"training.steps={history.steps + steps}, about {steps} more",
    )


_CHECKS: tuple[Callable[[History], Iterator[Finding]], ...] = (
    *(
        not_finite,
        spiked,
        saturated,
        idle,
        _collapsed,
        _does_nothing,
        _inverted,
        _over_trained,
        _checkerboard,
    ),
    *(_unbalanced, _still_improving),
)


def _sustained(
    series: Mapping[str, Series] | None,
    broken: Callable[[float], bool],
    history: History,
    early: float = _EARLY,
) -> dict[str, tuple[int, float]]:
    """(step, value) at the last validation of every series that is broken at the last two, past the early steps."""
    found = {}
    for name, one in (series or {}).items():
        told = np.isfinite(one.values)
        steps, values = one.steps[told], one.values[told]
        if len(values) > 1 and steps[-1] >= early * history.steps and all(map(broken, values[-2:].tolist())):
            found[name] = (int(steps[-1]), float(values[-1]))
    return found


def _step(found: Mapping[str, tuple[int, float]]) -> int:
    return max(step for step, _ in found.values())


def _told(found: Mapping[str, tuple[int, float]]) -> str:
    """The last values by translation: "0.02 (ab) and 0.04 (ba)"."""
    return " and ".join(f"{value:.2g} ({name})" for name, (_, value) in found.items())


def _name(score: str | None) -> str:
    """ "ab: FID-768" of "ab/fid_768"."""
    translation, _, key = (score or "").rpartition("/")
    return f"{translation}: {label(key)}" if translation else label(key)
