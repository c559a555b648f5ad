"""Images against a reference set: every metric there is, and what has to be told beside the numbers."""

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
_PLENTY = 5  # times as many images as features, where a Frechet distance begins to settle

Named = Iterable[tuple[Path, ImageArray]]
Lookup = Callable[[Path], ImageArray]


@dataclass(frozen=True)
class Metrics:
    """What images are judged with. cache: folder that remembers features of reference sets, or None."""

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
        """The metrics that can be had; an explicit request for features that cannot raises WeightsError.

        similarity: LPIPS too, which needs inputs or truths.
        """
        lpips = Lpips.find(device, download) if similarity else None
        return cls(choose(features, device, weights, download), lpips, protocol, cache)

    def describe(self) -> dict[str, Any]:
        """The protocol, as plain data to stand beside the numbers."""
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
            "intervals": "95 % of the sampling noise at these numbers of images (few of them raise a Fréchet "
            "distance besides): jackknife over groups of images, over subsets for KID, over images for means",
            "lpips": lpips,
            "libraries": {name: version(name) for name in ("torch", "torch-fidelity", "pillow", "numpy")},
        }


@dataclass(frozen=True)
class Judgement:
    """Scores by key, plain numbers that belong to them, and each image's own scores."""

    scores: Mapping[str, Score]
    numbers: Mapping[str, float]
    images: Mapping[Path, Mapping[str, float]]

    def plain(self) -> dict[str, Any]:
        """As JSON: the values under their keys, the intervals beside them."""
        values: dict[str, Any] = {key: score.value for key, score in self.scores.items()}
        intervals = {
            key: [score.low, score.high] for key, score in self.scores.items() if score.low is not None
        }
        return values | dict(self.numbers) | {"intervals": intervals}


class Judge:
    """Compares images with a reference set, whose features are taken once.

    real: images of any sizes, RGB uint8 (h, w, 3), at least 2; can be gone through twice.
    """

    def __init__(self, metrics: Metrics, real: Iterable[ImageArray]) -> None:
        self.metrics = metrics
        self.real = extract_cached(metrics.features, real, metrics.protocol, metrics.cache)

    def judge(
        self, images: Named, input_of: Lookup | None = None, truth_of: Lookup | None = None
    ) -> Judgement:
        """The scores of named images; with their inputs how far they went, with the truth how near they came."""
        found: dict[Path, dict[str, float]] = {}

        def watched() -> Iterator[ImageArray]:
            for path, image in images:
                found[path] = self._alone(image, input_of and input_of(path), truth_of and truth_of(path))
                yield image

        features = extract(self.metrics.features, watched(), self.metrics.protocol)
        scores, numbers = compare(self.metrics.features, features, self.real)
        keys = dict.fromkeys(key for one in found.values() for key in one)
        for key in keys:
            scores[key] = Score.of_mean([one[key] for one in found.values() if key in one])
        return Judgement(scores, numbers, found)

    @cached_property
    def floor(self) -> dict[str, float]:
        """The distances between halves of the reference set, and how many images a half has."""
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
        """Plain sentences on what the numbers cannot bear."""
        features, fewest = self.metrics.features, min(generated, len(self.real))
        found = []
        if fewest < _PLENTY * features.dimension:
            name, other = label(features.key("frechet")), label(features.key("kernel"))
            found.append(
                f"{fewest} images are few for {features.dimension} features: {name} comes out too high; compare it "
                f"only with numbers from as many images, or go by {other}"
            )
        if features.name == "random":
            found.append(
                "the features are of a network with random weights, not of Inception (--download fetches it): such a "
                "distance notices colours, contrast and edges, no contents; it ranks a run's checkpoints, and is no FID"
            )
        return found

    def _alone(
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


def compare(
    features: Features, generated: Tensor, real: Tensor, *, all_of_them: bool = True
) -> tuple[dict[str, Score], dict[str, float]]:
    """The distances between two sets of features, as far as so many images go, and the numbers beside them.

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
