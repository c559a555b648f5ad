"""Images against a reference set: all scores, and what has to be reported with them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gan_nst.core.scores import Score, label
from gan_nst.evaluation import distances
from gan_nst.evaluation.features import DESCRIPTIONS, Features, Protocol, choose, extract, extract_cached
from gan_nst.evaluation.paired import SMALLEST, Lpips, absolute_error, structural_similarity
from gan_nst.images.arrays import ImageArray

FEWEST = 2  # images that have a covariance
_PLENTY = 5  # a Frechet distance begins to settle with this many times as many images as features

Named = Iterable[tuple[Path, ImageArray]]
Lookup = Callable[[Path], ImageArray]


@dataclass(frozen=True)
class Metrics:
    """The metrics to compare images by. cache: a folder for the features of reference sets, or None."""

    features: Features
    lpips: Lpips | None
    protocol: Protocol
    cache: Path | None

    @classmethod
    def choose(
        cls,
        features: str,
        protocol: Protocol,
        device: torch.device,
        *,
        weights: Path | None = None,
        download: bool = False,
        cache: Path | None = None,
        similarity: bool = True,
    ) -> "Metrics":
        """The available metrics. Raises WeightsError when explicitly requested features are not available.

        similarity: LPIPS too, which needs inputs or truths.
        """
        lpips = Lpips.find(device, download) if similarity else None
        return cls(choose(features, device, weights, download), lpips, protocol, cache)

    def describe(self) -> dict[str, Any]:
        """The protocol, as plain data to report with the numbers."""
        features = self.features
        lpips = self.lpips and {"network": "squeeze", "file": self.lpips.file, "sha256": self.lpips.digest}
        return {
            "name": self.protocol,
            "resize": f"to {features.size}x{features.size}, {DESCRIPTIONS[self.protocol]}",
            "features": features.name,
            "dimension": features.dimension,
            "file": features.file,
            "sha256": features.digest,
            "kid_subsets": distances.KID_SUBSETS,
            "neighbours": distances.NEIGHBOURS,
            "intervals": "95 % of the sampling noise for these numbers of images (few images also raise a Fréchet "
            "distance): jackknife over groups of images, over subsets for KID, over images for means",
            "lpips": lpips,
            "libraries": {name: version(name) for name in ("torch", "torch-fidelity", "pillow", "numpy")},
        }


@dataclass(frozen=True)
class Comparison:
    """Scores by key, further numbers that belong to them, and each image's own scores."""

    scores: Mapping[str, Score]
    numbers: Mapping[str, float]
    images: Mapping[Path, Mapping[str, float]]

    def plain(self) -> dict[str, Any]:
        """As JSON: the values by key, and the intervals by key under "intervals"."""
        values: dict[str, Any] = {key: score.value for key, score in self.scores.items()}
        intervals = {
            key: [score.low, score.high] for key, score in self.scores.items() if score.low is not None
        }
        return values | dict(self.numbers) | {"intervals": intervals}


class ReferenceSet:
    """Real images that others are compared with; their features are computed once.

    real: at least 2 images of any sizes, RGB uint8 (h, w, 3); iterated over twice.
    """

    def __init__(self, metrics: Metrics, real: Iterable[ImageArray]) -> None:
        self.metrics = metrics
        self.real = extract_cached(metrics.features, real, metrics.protocol, metrics.cache)

    def compare(
        self, images: Named, input_of: Lookup | None = None, truth_of: Lookup | None = None
    ) -> Comparison:
        """The scores of named images: against the set, and where they are known against their inputs and truths."""
        found: dict[Path, dict[str, float]] = {}

        def scored() -> Iterator[ImageArray]:
            for path, image in images:
                found[path] = self._score(image, input_of and input_of(path), truth_of and truth_of(path))
                yield image

        features = extract(self.metrics.features, scored(), self.metrics.protocol)
        scores, numbers = compare_features(self.metrics.features, features, self.real)
        keys = dict.fromkeys(key for one in found.values() for key in one)
        for key in keys:
            scores[key] = Score.of_mean([one[key] for one in found.values() if key in one])
        return Comparison(scores, numbers, found)

    @cached_property
    def noise_floor(self) -> dict[str, float]:
        """The distances between halves of the reference set, and the number of images in a half."""
        half = len(self.real) // 2
        found: dict[str, float] = {"images": half}
        features = self.metrics.features
        if half >= FEWEST:
            found[features.key("frechet")] = distances.noise_floor(self.real, distances.frechet_distance)
        if half >= 2 * FEWEST:
            found[features.key("kernel")] = distances.noise_floor(
                self.real, lambda x, y: distances.kernel_distance(x, y).mean
            )
        return found

    def warnings(self, generated: int) -> list[str]:
        """Sentences on why the numbers must be read with care."""
        features, fewest = self.metrics.features, min(generated, len(self.real))
        found = []
        if fewest < _PLENTY * features.dimension:
            name, other = label(features.key("frechet")), label(features.key("kernel"))
            found.append(
                f"{fewest} images are few for {features.dimension} features: {name} is too high; compare it only with "
                f"numbers from as many images, or rely on {other}"
            )
        if features.name == "random":
            found.append(
                "the features come from a network with random weights, not from Inception (fetched by gan-nst evaluate "
                "--download): the distance sees colours, contrast and edges but not content; it can rank a run's "
                "checkpoints, but it is not an FID"
            )
        return found

    def _score(
        self, image: ImageArray, given: ImageArray | None, truth: ImageArray | None
    ) -> dict[str, float]:
        lpips = self.metrics.lpips if min(image.shape[:2]) >= SMALLEST else None
        found = {}
        if given is not None:
            found["change"] = absolute_error(image, given)
            if lpips is not None:
                found["lpips_to_input"] = lpips(image, given)
        if truth is not None:
            found["error"] = absolute_error(image, truth)
            found["ssim"] = structural_similarity(image, truth)
            if lpips is not None:
                found["lpips_to_truth"] = lpips(image, truth)
        return found


def compare_features(
    features: Features, generated: Tensor, real: Tensor, *, all_of_them: bool = True
) -> tuple[dict[str, Score], dict[str, float]]:
    """The distances between two sets of features, those that so few images allow, and the numbers that belong to them.

    all_of_them: precision and recall too.
    """
    fewest = min(len(generated), len(real))
    scores: dict[str, Score] = {}
    numbers: dict[str, float] = {}
    if fewest >= FEWEST:
        scores[features.key("frechet")] = distances.frechet_score(generated, real)
    if fewest >= 2 * FEWEST:
        key = features.key("kernel")
        scores[key], kernel = distances.kernel_score(generated, real)
        numbers = {f"{key}_std": kernel.deviation, f"{key}_subset_size": kernel.subset_size}
    if all_of_them and fewest > distances.NEIGHBOURS + 1:
        precision, recall = distances.precision_recall_scores(generated, real)
        scores |= {features.key("precision"): precision, features.key("recall"): recall}
    return scores, numbers
