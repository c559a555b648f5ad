"""Scores: values with intervals, under keys that name the features they were computed with."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

_Z = 1.96  # standard errors on either side: 95 % of a normal distribution

_LABELS = {
    "fid": "FID",
    "kid": "KID",
    "frechet": "Fréchet distance",
    "kernel": "kernel distance",
    "precision": "precision",
    "recall": "recall",
    "change": "change of the input",
    "lpips_to_input": "LPIPS to the input",
    "lpips_to_truth": "LPIPS to the truth",
    "error": "mean absolute error",
    "ssim": "SSIM",
}
# The columns of a table of scores, and their titles.
COLUMNS = {
    "best": "best",
    "last": "last",
    "given": "given",
    "images": "images",
    "untouched": "untouched input",
    "colour_map": "colour map",
    "noise_floor": "noise floor",
}
_MORE_IS_BETTER = ("precision", "recall", "ssim")
_NEITHER_IS_BETTER = ("change", "lpips_to_input")


@dataclass(frozen=True)
class Score:
    """A value and the ends of its 95 % interval, which contains it; None where the interval is unknown."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def with_error(cls, value: float, standard_error: float) -> "Score":
        """Returns a score with 1.96 standard errors on either side."""
        reach = _Z * standard_error
        return cls(value, value - reach, value + reach) if math.isfinite(reach) else cls(value)

    @classmethod
    def of_mean(cls, values: Sequence[float]) -> "Score":
        """Returns the mean of independent values, one per image for example."""
        mean = float(np.mean(values))
        if len(values) < 2:
            return cls(mean)
        return cls.with_error(mean, float(np.std(values, ddof=1)) / math.sqrt(len(values)))

    def within(self, least: float, most: float) -> "Score":
        """Returns the score with its interval limited to the possible values."""
        if self.low is None or self.high is None:
            return self
        return Score(self.value, max(self.low, least), min(self.high, most))


def is_score(key: str) -> bool:
    """Whether a key names a score."""
    return key in _LABELS or (key.rpartition("_")[0] in _LABELS and not key.endswith(("_std", "_size")))


def label(key: str) -> str:
    """Returns a score's name for people: "FID-768" for fid_768, "kernel distance of random features" for
    kernel_random. Features other than the standard ones are named with the score.
    """
    if key in _LABELS:
        return _LABELS[key]
    name, _, features = key.rpartition("_")
    if name not in _LABELS:
        return key
    if features == "random":
        return f"{_LABELS[name]} of random features"
    return f"{_LABELS[name]}-{features}"


def more_is_better(key: str) -> bool:
    """Whether a larger value is better."""
    return key.startswith(_MORE_IS_BETTER)


def better(key: str) -> Literal["higher", "lower", ""]:
    """Which values of the score are better; "" for how far an image is from its input, where neither is."""
    if key in _NEITHER_IS_BETTER:
        return ""
    return "higher" if more_is_better(key) else "lower"
