"""Distances between sets of features: against the known value, or else against another computation."""

import numpy as np
import pytest
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from gan_nst.evaluation import distances
from gan_nst.evaluation.distances import (
    KID_SUBSETS,
    frechet_distance,
    frechet_score,
    kernel_distance,
    kernel_score,
    noise_floor,
    precision_recall,
    precision_recall_scores,
)


def gaussian(n, d, seed=0, shift=0.0, scale=1.0):
    """n rows of d numbers that depend on each other: a Gaussian of mean `shift`, the same for every seed."""
    mixing = np.random.default_rng(d).normal(size=(d, d)) / d**0.5
    rows = np.random.default_rng(1000 + seed).normal(size=(n, d)) @ mixing
    return torch.from_numpy(rows * scale + shift)


def frechet(x, y):
    """Heusel et al. 2017, equation 6, with tr (S_x S_y)^(1/2) = tr (S_x^(1/2) S_y S_x^(1/2))^(1/2)."""

    def root(matrix):
        values, vectors = np.linalg.eigh(matrix)
        # What rounding leaves of an eigenvalue of zero would grow to its root.
        values = np.where(values < 1e-12 * values.max(), 0, values)
        return (vectors * np.sqrt(values)) @ vectors.T

    x, y = x.numpy(), y.numpy()
    cov_x, cov_y = (np.atleast_2d(np.cov(rows, rowvar=False)) for rows in (x, y))
    cross = root(root(cov_x) @ cov_y @ root(cov_x))
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cov_x) + np.trace(cov_y) - 2 * np.trace(cross)


def mmd(x, y):
    """Binkowski et al. 2018, equation 4, without the diagonals, with the kernel (x y / d + 1)^3."""
    kernels = [(a @ b.T / a.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))]
    within = sum((k.sum() - k.trace()) / (len(k) * (len(k) - 1)) for k in kernels[:2])
    return within - 2 * kernels[2].mean()


SHAPES = [(200, 300, 8), (50, 50, 49), (30, 20, 64), (20, 90, 40), (2, 2, 5), (100, 60, 768), (5, 4, 1)]


@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_frechet_distance_equals_another_computation(n, m, d):
    x, y = gaussian(n, d, 1), gaussian(m, d, 2, shift=0.3, scale=1.5)
    assert frechet_distance(x, y) == pytest.approx(frechet(x, y), abs=1e-6, rel=1e-9)
    assert frechet_distance(y, x) == pytest.approx(frechet_distance(x, y), abs=1e-9)


@pytest.mark.parametrize(("n", "m", "d"), [(100, 150, 8), (300, 200, 64)])
def test_frechet_distance_equals_torch_fidelity(n, m, d):
    x, y = gaussian(n, d, 1), gaussian(m, d, 2, shift=0.1)
    statistics = [fid_features_to_statistics(rows) for rows in (x, y)]
    expected = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("n", "d"), [(100, 8), (20, 50)])
def test_frechet_distance_of_a_moved_and_a_stretched_copy_is_known(n, d):
    """|shift|^2 where the covariances are equal, (s - 1)^2 tr S where one is the other's s^2-fold."""
    x = gaussian(n, d)
    shift = torch.linspace(-1, 2, d, dtype=torch.float64)
    assert frechet_distance(x, x + shift) == pytest.approx(float(shift @ shift), abs=1e-9)
    stretched = x.mean(0) + 3 * (x - x.mean(0))
    expected = 4 * float(x.var(0).sum())
    assert frechet_distance(x, stretched) == pytest.approx(expected, abs=1e-9)


def test_identical_sets_are_at_no_distance_with_fewer_images_than_features():
    x = gaussian(60, 2048, scale=3)
    assert frechet_distance(x, x.clone()) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(x, x.flip(0)) == pytest.approx(0, abs=1e-6)


def test_single_precision_features_lose_nothing_more():
    x, y = gaussian(40, 30, 1).float(), gaussian(40, 30, 2, shift=0.5).float()
    assert frechet_distance(x, y) == pytest.approx(float(frechet(x.double(), y.double())), abs=1e-6)


def test_equal_images_have_a_distance():
    """A collapsed generator: no covariance at all."""
    x, y = torch.ones(6, 4, dtype=torch.float64), gaussian(50, 4)
    expected = float((1 - y.mean(0)).square().sum() + y.var(0).sum())
    assert frechet_distance(x, y) == pytest.approx(expected, abs=1e-9)
    assert frechet_distance(x, x + 2) == pytest.approx(16, abs=1e-9)


@pytest.mark.parametrize(("n", "m", "d"), [(60, 60, 16), (40, 75, 5), (4, 9, 3)])
def test_kernel_distance_is_the_mean_over_its_subsets(n, m, d):
    x, y = gaussian(n, d, 1), gaussian(m, d, 2, shift=0.4)
    found = kernel_distance(x, y)
    size = min(n, m) // 2
    source = np.random.RandomState(2020)  # torch-fidelity's
    rows = [distances._ordered(rows).numpy() for rows in (x, y)]
    values = []
    for _ in range(100):
        subsets = [part[source.choice(len(part), size, replace=False)] for part in rows]
        values.append(mmd(*subsets))
    assert found.subset_size == size
    assert found.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert found.deviation == pytest.approx(np.std(values), abs=1e-9)


def test_subsets_have_a_thousand_images_at_most(monkeypatch):
    asked = {}

    def instead(x, y, **options):
        asked.update(options)
        return {"kernel_inception_distance_mean": 1.0, "kernel_inception_distance_std": 0.2}

    monkeypatch.setattr("torch_fidelity.metric_kid.kid_features_to_metric", instead)
    score, found = kernel_score(gaussian(5000, 1), gaussian(5000, 1))
    assert asked["kid_subset_size"] == found.subset_size == 1000
    assert half_width(score) == pytest.approx(0.2 * (1000 / 4000) ** 0.5), "the full sets vary that much less"


def test_kernel_distance_estimates_that_of_the_full_sets():
    """The unbiased estimate of full sets is its own mean over all subsets of them."""
    x, y = gaussian(80, 6, 1), gaussian(80, 6, 2, shift=0.4)
    found = kernel_distance(x, y)
    assert abs(found.mean - mmd(x.numpy(), y.numpy())) < 4 * found.deviation / KID_SUBSETS**0.5


def test_kernel_distance_of_two_points_is_known():
    """Every subset is the same one: k(p, p) + k(q, q) - 2 k(p, q)."""
    p, q = torch.tensor([1.0, 2.0, -1.0]).double(), torch.tensor([0.5, 0.0, 4.0]).double()
    found = kernel_distance(p.repeat(6, 1), q.repeat(9, 1))
    expected = (6 / 3 + 1) ** 3 + (16.25 / 3 + 1) ** 3 - 2 * (-3.5 / 3 + 1) ** 3
    assert found.mean == pytest.approx(expected, rel=1e-12)
    assert found.deviation == pytest.approx(0, abs=1e-9)


def test_a_negative_kernel_distance_is_reported_unchanged():
    found = [kernel_score(gaussian(30, 4, 2 * seed), gaussian(30, 4, 2 * seed + 1)) for seed in range(8)]
    values = [score.value for score, _ in found]
    assert min(values) < 0 < max(values), "unbiased, between samples of one distribution"
    assert all(score.low < score.value < score.high for score, _ in found)
    assert all(score.value == distance.mean for score, distance in found)


def inside(points, centres):
    """The share of points within a ball around some centre that reaches its third neighbour."""
    count = 0
    for point in points:
        for i, centre in enumerate(centres):
            others = sorted(np.linalg.norm(centre - o) for j, o in enumerate(centres) if j != i)
            if np.linalg.norm(point - centre) <= others[3 - 1]:
                count += 1
                break
    return count / len(points)


@pytest.mark.parametrize(
    ("n", "m", "d", "shift", "scale"), [(30, 40, 3, 0.5, 1), (40, 30, 6, 0, 0.6), (5, 12, 2, 1, 1)]
)
def test_precision_and_recall_equal_a_naive_loop(n, m, d, shift, scale):
    generated, real = gaussian(n, d, 1, shift, scale), gaussian(m, d, 2)
    precision, recall = precision_recall(generated, real)
    assert precision == pytest.approx(inside(generated.numpy(), real.numpy()), abs=1e-6)
    assert recall == pytest.approx(inside(real.numpy(), generated.numpy()), abs=1e-6)
    assert precision != recall


def test_precision_and_recall_where_they_are_known():
    real = gaussian(40, 4)
    assert precision_recall(real.clone(), real) == (1, 1)
    assert precision_recall(real + 100, real) == (0, 0)
    collapsed = real[:1] + gaussian(40, 4, 5, scale=1e-3)
    precision, recall = precision_recall(collapsed, real)
    assert precision == 1, "what is generated is real"
    assert recall < 0.1, "but it covers hardly any of what is real"


SCORES = {
    "frechet": lambda x, y: [frechet_score(x, y)],
    "kernel": lambda x, y: [kernel_score(x, y)[0]],
    "precision and recall": precision_recall_scores,
}


@pytest.mark.parametrize("which", SCORES)
@pytest.mark.parametrize("equal_columns", [0, 9, 11])
def test_the_order_of_the_images_does_not_matter(which, equal_columns):
    """Also where many features are zero, as those of a network with rectifiers may be."""
    x, y = gaussian(31, 12, 1), gaussian(24, 12, 2, shift=0.3)
    for rows in (x, y):
        rows[:, :equal_columns] = 0
    shuffled = [rows[np.random.default_rng(3).permutation(len(rows))] for rows in (x, y)]
    for before, after in zip(SCORES[which](x, y), SCORES[which](*shuffled), strict=True):
        assert after.value == pytest.approx(before.value, abs=1e-9)
        assert after.low == pytest.approx(before.low, abs=1e-9)
        assert after.high == pytest.approx(before.high, abs=1e-9)
    for distance in (frechet_distance, lambda a, b: kernel_distance(a, b).mean):
        assert noise_floor(shuffled[0], distance) == pytest.approx(noise_floor(x, distance), abs=1e-9)


@pytest.mark.parametrize("which", SCORES)
@pytest.mark.parametrize(("n", "m", "d"), [(5, 5, 3), (5, 40, 8), (30, 11, 4), (25, 25, 100)])
def test_an_interval_contains_its_estimate(which, n, m, d):
    for seed in range(3):
        for score in SCORES[which](gaussian(n, d, 2 * seed, shift=0.2), gaussian(m, d, 2 * seed + 1)):
            assert score.low <= score.value <= score.high
            assert score.low < score.high or "precision" in which
            assert score.low >= 0 or which == "kernel", "an interval keeps to the values there can be"
            assert score.high <= 1 or "precision" not in which


@pytest.mark.parametrize("which", SCORES)
@pytest.mark.parametrize(("n", "d"), [(8, 3), (20, 40), (60, 2048)])
def test_an_interval_of_identical_sets_contains_their_distance(which, n, d):
    for seed in range(3):
        x = gaussian(n, d, seed)
        for score in SCORES[which](x, x.clone()):
            assert score.low <= score.value <= score.high


def test_two_images_have_a_frechet_distance_without_an_interval():
    x, y = gaussian(2, 4, 1), gaussian(30, 4, 2)
    for pair in ((x, y), (y, x), (x, x + 1)):
        score = frechet_score(*pair)
        assert score.value == pytest.approx(frechet_distance(*pair))
        assert score.low is score.high is None
    assert frechet_score(gaussian(3, 4), y).low is not None


def half_width(score):
    """Of the upper half, in standard errors: the lower may have been cut at zero."""
    return (score.high - score.value) / 1.96


# n and m images of d features, whose distributions are `shift` apart.
POPULATIONS = [(60, 60, 6, 1.0), (60, 60, 6, 0.0), (40, 40, 64, 0.5), (30, 120, 8, 0.7)]


@pytest.mark.parametrize(("n", "m", "d", "shift"), POPULATIONS)
def test_the_frechet_interval_is_as_wide_as_independent_samples_differ(n, m, d, shift):
    samples = [(gaussian(n, d, 2 * i, shift), gaussian(m, d, 2 * i + 1)) for i in range(150)]
    spread = np.std([frechet_distance(*pair) for pair in samples], ddof=1)
    expected = np.mean([half_width(frechet_score(*pair)) for pair in samples[:15]])
    assert 0.5 < expected / spread < 2


@pytest.mark.parametrize(("n", "m", "d", "shift"), POPULATIONS)
def test_the_kernel_interval_is_as_wide_as_independent_samples_differ(n, m, d, shift):
    samples = [(gaussian(n, d, 2 * i, shift), gaussian(m, d, 2 * i + 1)) for i in range(150)]
    spread = np.std([mmd(x.numpy(), y.numpy()) for x, y in samples], ddof=1)
    expected = np.mean([half_width(kernel_score(*pair)[0]) for pair in samples[:8]])
    assert 0.5 < expected / spread < 2


@pytest.mark.parametrize("d", [6, 64])
def test_the_noise_floor_is_the_distance_of_independent_samples_half_as_many(d):
    real = gaussian(80, d)
    apart = [frechet_distance(gaussian(40, d, 2 * i + 1), gaussian(40, d, 2 * i + 2)) for i in range(40)]
    assert noise_floor(real, frechet_distance) == pytest.approx(np.mean(apart), rel=0.5)
    apart = [mmd(gaussian(40, d, 2 * i + 1).numpy(), gaussian(40, d, 2 * i + 2).numpy()) for i in range(40)]
    assert abs(noise_floor(real, lambda a, b: kernel_distance(a, b).mean)) < 3 * np.std(apart)


def test_the_halves_of_the_noise_floor_share_no_image():
    rows = torch.arange(7, dtype=torch.float64)[:, None]
    seen = []
    noise_floor(rows, lambda a, b: seen.append((a, b)) or 0.0)
    assert len(seen) > 1
    for a, b in seen:
        assert len(a) == len(b) == 3
        assert not set(a.flatten().tolist()) & set(b.flatten().tolist())
    assert len({tuple(sorted(a.flatten().tolist())) for a, _ in seen}) > 1


def test_a_proportion_of_0_or_1_still_has_an_interval():
    """At 0 and at 1 the interval is that of a plain share: about 1.96 sqrt(2 / (n + 4) * (1 - 2 / (n + 4)) / n)."""
    x = gaussian(12, 3)
    same, far = precision_recall_scores(x, x), precision_recall_scores(x, x + 100)
    expected = 1.96 * (2 / 16 * (14 / 16) / 12) ** 0.5
    for score in same:
        assert (score.value, score.high) == (1, 1)
        assert score.low == pytest.approx(1 - expected, abs=1e-9)
    for score in far:
        assert (score.value, score.low) == (0, 0)
        assert score.high == pytest.approx(expected, abs=1e-9)
