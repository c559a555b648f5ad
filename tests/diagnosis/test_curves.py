"""Reading a run's history: its values, damaged lines, and what belongs together."""

import json
import tracemalloc

import numpy as np
import pytest
import yaml

from gan_nst.core.errors import DataError
from gan_nst.diagnosis.curves import (
    Series,
    _read_metrics,
    by_family,
    family,
    measures,
    read_run,
    roles,
    shares,
    smooth,
    total,
    validations,
)

SETTINGS = {"training": {"steps": 100}, "evaluation": {"score": "ab/error"}, "method": {"cycle_weight": 10.0}}


def write_run(folder, lines, settings=SETTINGS):
    folder.mkdir(exist_ok=True)
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    texts = [line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines]
    (folder / "metrics.jsonl").write_text("".join(texts))
    return folder


def values(history, key):
    return history.series[key].steps.tolist(), history.series[key].values.tolist()


def test_a_run_is_read(tmp_path):
    lines = [{"step": 10, "generator/cycle_a": 0.5, "speed/x": 3}, {"step": 20, "generator/cycle_a": 0.25}]
    history = read_run(write_run(tmp_path / "mine", lines))
    assert (history.name, history.steps, history.score) == ("mine", 100, "ab/error")
    assert values(history, "generator/cycle_a") == ([10, 20], [0.5, 0.25])
    assert history.series["generator/cycle_a"].values.dtype == np.float64
    assert values(history, "speed/x") == ([10], [3])
    assert history.last_step() == 20
    assert history.setting("method.cycle_weight") == 10
    assert history.setting("method.generator.width") is None


def test_values_that_are_not_finite_become_nan(tmp_path):
    lines = [
        {"step": 1, "g/a": "nan", "g/b": "-inf", "g/c": 1},
        '{"step": 2, "g/a": NaN, "g/b": Infinity, "g/c": 2}\n',
        {"step": 3, "g/a": 3, "g/b": 1e400, "g/c": 3},
    ]
    history = read_run(write_run(tmp_path, lines))
    np.testing.assert_array_equal(history.series["g/a"].values, [np.nan, np.nan, 3])
    np.testing.assert_array_equal(history.series["g/b"].values, [np.nan] * 3)
    np.testing.assert_array_equal(history.series["g/c"].values, [1, 2, 3])


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 3, "g/a": 0.',
        "\x00\x00\n",
        "[1, 2]\n",
        "7\n",
        '{"g/a": 3}\n',
        '{"step": "3", "g/a": 3}\n',
        "\n",
    ],
)
def test_a_torn_or_foreign_line_is_skipped(tmp_path, line):
    history = read_run(write_run(tmp_path, [{"step": 1, "g/a": 1}, {"step": 2, "g/a": 2}, line]))
    assert values(history, "g/a") == ([1, 2], [1, 2])


def test_a_step_logged_twice_takes_the_later_line(tmp_path):
    lines = [{"step": 2, "g/a": 2}, {"step": 3, "g/a": 3}, {"step": 1, "g/a": 1}, {"step": 3, "g/a": 4}]
    assert values(read_run(write_run(tmp_path, lines)), "g/a") == ([1, 2, 3], [1, 2, 4])


def test_a_run_without_a_plan_ends_at_its_last_step(tmp_path):
    history = read_run(write_run(tmp_path, [{"step": 7, "g/a": 1}], {"training": {"steps": None}}))
    assert (history.steps, history.score) == (7, None)


def test_a_folder_that_is_not_a_run_is_refused_in_one_line(tmp_path):
    for folder, words in ((tmp_path / "none", "no such folder"), (tmp_path, "not a run")):
        with pytest.raises(DataError, match=words) as error:
            read_run(folder)
        assert "\n" not in str(error.value)
        assert str(folder) in str(error.value)


@pytest.mark.parametrize("lines", [[], ['{"step": 1, "g/'], [{"step": 1}]])
def test_a_run_without_metrics_is_refused(tmp_path, lines):
    with pytest.raises(DataError, match="no metrics yet"):
        read_run(write_run(tmp_path, lines))


def test_unreadable_metrics_or_settings_are_refused(tmp_path):
    (write_run(tmp_path, [{"step": 1, "g/a": 1}]) / "metrics.jsonl").unlink()
    with pytest.raises(DataError, match="no metrics yet"):
        read_run(tmp_path)
    (tmp_path / "settings.yaml").write_text("a: [")
    with pytest.raises(DataError, match="not valid YAML"):
        read_run(tmp_path)


def test_metrics_are_grouped_by_kind(tmp_path):
    line = {
        **{"step": 5, "generator/cycle_a": 1, "critic/wasserstein": -2, "gradient_norm/generator": 3},
        **{"learning_rate/critic": 4, "memory/peak_mib": 5, "loose": 6},
        **{"validation/ab/error": 0.5, "validation/ab/error/low": 0.4, "validation/ab/error/high": 0.6},
        **{"measure/ab/change": 0.1, "measure/ba/change": 0.2, "gradient_share/generator/cycle_a": 0.7},
        **{"validation/ba/ssim": "nan"},
    }
    history = read_run(write_run(tmp_path, [line]))
    assert {role: list(terms) for role, terms in roles(history).items()} == {
        "generator": ["cycle_a"],
        "critic": ["wasserstein"],
    }
    assert list(validations(history)) == ["ab/error"]
    assert {name: list(found) for name, found in measures(history).items()} == {"change": ["ab", "ba"]}
    assert shares(history)["generator"]["cycle_a"].values == [0.7]


def test_intervals_belong_to_their_steps(tmp_path):
    lines = [
        {"step": 10, "validation/ab/fid_768": 3},
        {
            "step": 20,
            "validation/ab/fid_768": 2,
            "validation/ab/fid_768/low": 1,
            "validation/ab/fid_768/high": 4,
        },
    ]
    found = validations(read_run(write_run(tmp_path, lines)))["ab/fid_768"]
    np.testing.assert_array_equal(found.low, [np.nan, 1])
    np.testing.assert_array_equal(found.high, [np.nan, 4])


@pytest.mark.parametrize(
    ("score", "best"), [("error", 10), ("fid_768", 10), ("ssim", 30), ("precision_768", 30)]
)
def test_the_best_step_has_the_best_value(tmp_path, score, best):
    logged = zip((10, 20, 30, 40), (1, 2, 3, "nan"), strict=True)
    lines = [{"step": step, f"validation/ab/{score}": value} for step, value in logged]
    found = validations(read_run(write_run(tmp_path, lines)))[f"ab/{score}"]
    assert found.steps[found.best()] == best


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        *(("cycle_a", "cycle"), ("adversarial_ba", "adversarial"), ("total_variation_ab", "total_variation")),
        *(("content", "content"), ("edge_promoting", "edge_promoting"), ("b", "b"), ("x_", "x_")),
    ],
)
def test_the_family_of_a_term(term, expected):
    assert family(term) == expected


def test_terms_are_summed_by_family():
    one, two = (Series(np.array([1.0, 2]), np.array([1.0, n])) for n in (2, 3))
    found = by_family({"cycle_a": one, "content": two, "cycle_b": two})
    assert {name: series.values.tolist() for name, series in found.items()} == {
        "cycle": [2, 5],
        "content": [1, 3],
    }


def test_a_total_is_over_the_common_steps():
    one = Series(np.array([1.0, 2, 3]), np.array([1.0, 2, 3]))
    two = Series(np.array([2.0, 3, 4]), np.array([10.0, 20, 30]))
    found = total([one, two])
    assert found.steps.tolist() == [2, 3]
    assert found.values.tolist() == [12, 23]
    assert total([one]) == one


def test_smoothing_keeps_a_line_and_does_not_lag():
    line = np.linspace(3, 9, 101)
    np.testing.assert_allclose(smooth(line), line)
    peak = np.exp(-(((np.arange(101) - 50) / 10) ** 2))
    smoothed = smooth(peak)
    assert smoothed.argmax() == 50
    np.testing.assert_allclose(smoothed, smoothed[::-1], atol=1e-12)


def test_smoothing_removes_noise_and_keeps_gaps():
    noisy = np.random.default_rng(0).normal(size=500)
    assert smooth(noisy)[20:-20].std() < 0.3
    noisy[[0, 100, 499]] = np.nan
    gaps = np.flatnonzero(np.isnan(smooth(noisy)))
    assert gaps.tolist() == [0, 100, 499]
    assert smooth(np.array([])).shape == (0,)
    assert np.isnan(smooth(np.full(30, np.nan))).all()


def test_long_metrics_take_little_more_memory_than_their_numbers(tmp_path):
    """A run of weeks has a hundred thousand lines."""
    lines, terms = 10_000, [f"generator/term_{n}" for n in range(12)]
    with open(tmp_path / "metrics.jsonl", "w") as file:
        for step in range(lines):
            file.write(
                json.dumps({"step": step, **{term: step / (n + 1) for n, term in enumerate(terms)}}) + "\n"
            )
        file.write('{"step": 10000, "gener')
    tracemalloc.start()
    found = _read_metrics(tmp_path / "metrics.jsonl")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == 12
    np.testing.assert_array_equal(found["generator/term_1"].values, np.arange(lines) / 2)
    assert peak < 4 * 16 * lines * len(terms)  # a step and a value; twice while an array grows


def test_the_later_line_of_a_step_counts_wherever_it_is(tmp_path):
    logged = [(30, 3.0), (10, 1.0), (20, 2.0), (10, 1.5), (30, float("nan")), (20, 2.5)]
    lines = [json.dumps({"step": step, "x/y": value}) for step, value in logged]
    (tmp_path / "metrics.jsonl").write_text(
        "\n".join(["[" * 100_000, *lines, "\0\0\0", '{"step": 1e400, "x/y": 1}'])
    )
    series = _read_metrics(tmp_path / "metrics.jsonl")["x/y"]
    assert series.steps.tolist() == [10, 20, 30]
    np.testing.assert_array_equal(series.values, [1.5, 2.5, np.nan])


@pytest.mark.parametrize("line", ["[" * 100_000, '{"step": 1' + "0" * 400 + ', "x": 1}', "9" * 10_000])
def test_a_line_that_no_run_logs_is_skipped(tmp_path, line):
    write_run(tmp_path / "run", [{"step": 1, "generator/x": 2}, line + "\n"])
    history = read_run(tmp_path / "run")
    assert (history.last_step(), list(history.series)) == (1, ["generator/x"])
