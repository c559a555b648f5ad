"""Scores, their intervals and names, and the table they are read from."""

import math
from typing import get_args

import numpy as np
import pytest

from gan_nst.core.options import FeatureName
from gan_nst.core.scores import Score, is_score, label, more_is_better
from gan_nst.evaluation.features import score_key
from gan_nst.evaluation.report import as_text


def test_an_interval_is_two_standard_errors_wide_on_either_side():
    score = Score.with_error(3.0, 0.5)
    assert (score.value, score.low, score.high) == (3.0, pytest.approx(2.02), pytest.approx(3.98))
    assert Score.with_error(3.0, 0.0) == Score(3.0, 3.0, 3.0)


@pytest.mark.parametrize("error", [math.inf, math.nan])
def test_an_error_that_is_not_finite_gives_no_interval(error):
    assert Score.with_error(3.0, error) == Score(3.0)


def test_the_mean_of_images_has_the_error_of_a_mean():
    values = [0.1, 0.4, 0.2, 0.9]
    score = Score.of_mean(values)
    mean = sum(values) / 4
    error = math.sqrt(sum((v - mean) ** 2 for v in values) / 3 / 4)
    assert score.value == pytest.approx(mean, abs=1e-12)
    assert score.high - score.value == pytest.approx(1.96 * error, abs=1e-12)
    assert score.value - score.low == pytest.approx(1.96 * error, abs=1e-12)
    assert Score.of_mean([0.3]) == Score(0.3), "one image gives no estimate of the error"


def test_the_interval_of_a_mean_contains_the_truth_19_times_in_20():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(1000):
        score = Score.of_mean(rng.normal(5, 2, 40))
        hits += score.low <= 5 <= score.high
    assert 0.92 < hits / 1000 < 0.97


def test_an_interval_is_clipped_to_the_range_of_its_values():
    assert Score(0.9, 0.7, 1.1).within(0, 1) == Score(0.9, 0.7, 1)
    assert Score(0.1, -0.2, 0.4).within(0, 1) == Score(0.1, 0, 0.4)
    assert Score(0.5).within(0, 1) == Score(0.5)
    assert Score(-0.01, -0.02, 0.01) == Score(-0.01, -0.02, 0.01), "nothing else clips"


LABELS = {
    "fid": "FID",
    "kid": "KID",
    "fid_768": "FID-768",
    "kid_64": "KID-64",
    "precision": "precision",
    "recall_192": "recall-192",
    "frechet_random": "Fréchet distance of random features",
    "kernel_random": "kernel distance of random features",
    "precision_random": "precision of random features",
    "change": "change of the input",
    "lpips_to_input": "LPIPS to the input",
    "lpips_to_truth": "LPIPS to the truth",
    "error": "mean absolute error",
    "ssim": "SSIM",
}


@pytest.mark.parametrize("key", LABELS)
def test_scores_have_readable_names(key):
    assert label(key) == LABELS[key]
    assert is_score(key)


def test_every_feature_network_has_its_own_names():
    keys = [
        score_key(name, metric)
        for name in get_args(FeatureName)
        for metric in ("frechet", "kernel", "precision", "recall")
    ]
    assert len(set(keys)) == len({label(key) for key in keys}) == len(keys)
    assert all(is_score(key) for key in keys)
    # Only the standard features may have the plain standard name.
    for key in keys:
        bare = label(key) in ("FID", "KID", "precision", "recall")
        assert bare == (key in ("fid", "kid", "precision", "recall"))


@pytest.mark.parametrize(
    "key",
    [
        "step",
        "intervals",
        "images",
        "kid_std",
        "kid_subset_size",
        "kid_768_std",
        "kernel_random_subset_size",
        "kernel_random_std",
        "",
    ],
)
def test_numbers_that_belong_to_scores_are_not_scores(key):
    assert not is_score(key)


def test_more_is_better_for_some_scores():
    better = {key for key in LABELS if more_is_better(key)}
    assert better == {"precision", "recall_192", "precision_random", "ssim"}


RESULT = {
    "generated": 60,
    "exported": "best",
    "last": {"step": 200, "fid": 120.04, "ssim": 0.5, "intervals": {"fid": [110.04, 130.04]}},
    "best": {"step": 150, "fid": 98.765432, "kid": -0.00123, "ssim": 0.61234567, "intervals": {}},
    "untouched": {"fid": 150.0, "kid": 0.1, "kid_std": 0.01, "kid_subset_size": 30},
    "colour_map": None,
    "noise_floor": {"images": 30, "fid": 60.0},
    "warnings": ["few"],
}


def test_the_table_has_scores_as_rows_and_baselines_as_columns():
    lines = as_text(RESULT).splitlines()
    assert len(lines) == 4
    head, *rows = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]
    assert head == ["best (150) *", "last (200)", "untouched input", "noise floor"]
    assert rows == [
        ["FID", "98.77", "120.0 [110.0, 130.0]", "150.0", "60.00"],
        ["KID", "-0.00123", "-", "0.1000", "-"],
        ["SSIM (more is better)", "0.6123", "0.5000", "-", "-"],
    ]


def test_the_columns_of_the_table_are_aligned():
    lines = as_text(RESULT).splitlines()
    for title, cells in {"last": ("120.0", "-", "0.5000"), "untouched": ("150.0", "0.1000", "-")}.items():
        column = lines[0].index(title)
        for line, cell in zip(lines[1:], cells, strict=True):
            assert line[column:].startswith(cell)
            assert line[column - 2 : column] == "  "
    assert all(line == line.rstrip() for line in lines)


def test_results_of_a_single_generator_and_of_nothing_have_a_table():
    assert as_text({"given": {"change": 0.25}, "exported": "given"}).split() == [
        *("given", "*"),
        *("change", "of", "the", "input", "0.2500"),
    ]
    assert as_text({"generated": 0}) == ""
