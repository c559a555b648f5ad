"""The figure of the curves: its panels, its size, and that it depends on nothing but the histories."""

import io
import re

import matplotlib
import numpy as np
import pytest
from PIL import Image

from gan_nst.core.errors import DataError
from gan_nst.diagnosis import figure
from gan_nst.diagnosis.curves import History, Series
from gan_nst.diagnosis.figure import draw

LOGGED = np.arange(1, 61) * 50.0
VALIDATED = np.arange(1, 7) * 500.0
TERMS = ("adversarial_ab", "adversarial_ba", "cycle_a", "cycle_b")


def history(name="run", seed=0, omit=(), **changed):
    """A history of all groups except those in `omit`."""
    rng = np.random.default_rng(seed)
    series = {f"generator/{term}": Series(LOGGED, 0.3 + rng.normal(0, 0.02, 60)) for term in TERMS}
    series |= {f"discriminator/discriminator_{x}": Series(LOGGED, np.full(60, 0.2)) for x in "ab"}
    series |= {
        f"learning_rate/{role}": Series(LOGGED, np.full(60, 2e-4)) for role in ("generator", "discriminator")
    }
    series |= {"speed/x": Series(LOGGED, np.ones(60)), "gradient_norm/generator": Series(LOGGED, np.ones(60))}
    for translation in ("ab", "ba"):
        for key, value in (("fid_768", 2 + rng.normal(0, 0.1, 6)), ("error", np.full(6, 0.1))):
            series[f"validation/{translation}/{key}"] = Series(VALIDATED, value)
            series[f"validation/{translation}/{key}/low"] = Series(VALIDATED, value - 0.05)
            series[f"validation/{translation}/{key}/high"] = Series(VALIDATED, value + 0.05)
        for key in ("diversity", "change", "correlation", "checkerboard"):
            series[f"measure/{translation}/{key}"] = Series(VALIDATED, rng.normal(1, 0.1, 6))
    series |= {f"gradient_share/generator/{term}": Series(VALIDATED, np.full(6, 0.25)) for term in TERMS}
    series = {key: one for key, one in series.items() if not key.startswith(tuple(omit))} | changed
    return History(name, 3000, "ab/fid_768", series)


def losses(name="run", seed=0, **changed):
    """A history of the loss terms and of what is changed."""
    without = ["validation/", "measure/", "gradient_share/", "learning_rate/"]
    return history(name, seed, without, **changed)


def titles(*histories):
    return [title for title, _ in figure._panels(histories)]


def texts(*histories, monkeypatch):
    """All texts of the figure, in the order they are drawn."""
    monkeypatch.setitem(figure._STYLE, "svg.fonttype", "none")
    return re.findall(r"<text[^>]*>([^<]*)</text>", draw(histories, format="svg").decode())


ALONE = [
    *("generator: loss terms", "discriminator: loss terms", "learning rate"),
    *("validation, ab: FID-768 (chosen)", "validation, ab: mean absolute error"),
    *("validation, ba: FID-768", "validation, ba: mean absolute error"),
    *(
        "diversity (targets: 1)",
        "change (untouched: 0)",
        "correlation with the input",
        "checkerboard (targets: 1)",
    ),
    "generator: shares of the gradient",
]


def test_one_run_has_a_panel_for_each_role_score_and_measure():
    assert titles(history()) == ALONE


def test_several_runs_have_a_panel_for_each_kind_of_term():
    assert titles(history(), history("other", 1)) == [
        *("generator: adversarial loss", "generator: cycle loss", "discriminator loss"),
        *ALONE[2:],
    ]


@pytest.mark.parametrize(
    "group", ["validation/", "measure/", "gradient_share/", "learning_rate/", "discriminator/"]
)
def test_panels_without_data_are_omitted(group):
    kept = titles(history(omit=[group]))
    lost = set(ALONE) - set(kept)
    assert len(lost) == {"validation/": 4, "measure/": 4}.get(group, 1)
    assert kept == [title for title in ALONE if title not in lost]


def test_runs_that_logged_different_things_are_drawn_together():
    old = history("old", omit=["validation/", "measure/", "gradient_share/"])
    assert titles(old, history()) == titles(history(), history())
    assert draw([old, history()], format="png")


def test_nothing_to_draw_is_an_error():
    nothing = History("slow", 10, None, {"speed/x": Series(LOGGED, LOGGED)})
    with pytest.raises(DataError, match="slow: nothing logged that could be drawn"):
        draw([nothing], format="svg")


@pytest.mark.parametrize("count", [1, 3])
def test_a_png_is_1600_pixels_wide_and_not_blank(count):
    image = Image.open(io.BytesIO(draw([losses(str(n), n) for n in range(count)], format="png")))
    assert image.format == "PNG"
    assert image.width == 1600
    pixels = np.asarray(image.convert("RGB"))
    assert (pixels == 255).all(-1).mean() > 0.5
    # All colours of the runs, or of the terms of one run, occur.
    for colour in figure._COLOURS[:3]:
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (np.abs(pixels.astype(int) - rgb).max(-1) < 8).any()


@pytest.mark.parametrize("format", ["png", "svg"])
def test_figures_do_not_depend_on_a_users_matplotlib_settings(format):
    some = history(omit=["measure/", "validation/ba", "discriminator/"])
    first = draw([some], format=format)
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "black", "svg.hashsalt": None}):
        assert draw([some], format=format) == first
        assert matplotlib.rcParams["font.size"] == 20
    assert b"<dc:date>" not in first
    assert draw([losses()], format=format) != draw([losses(seed=1)], format=format)


def test_no_window_is_opened_and_no_figure_kept():
    import sys

    draw([losses()], format="png")
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_axes_legends_and_the_best_step_are_named(monkeypatch):
    found = texts(history(), monkeypatch=monkeypatch)
    assert found.count("step") == len(ALONE)
    assert {"adversarial_ab", "cycle_b", "generator, discriminator", "run"} <= set(found)
    fid = history().series["validation/ab/fid_768"]
    assert f"best: {fid.values.min():.3g} at {VALIDATED[fid.values.argmin()]:.0f}" in found


def test_runs_with_equal_or_unusual_names_are_named(monkeypatch):
    runs = [losses(name) for name in ("same", "same", "$math$", "_hidden", "<&>")]
    found = " ".join(texts(*runs, monkeypatch=monkeypatch))
    for name in ("same (1)", "same (2)", "$math$", "_hidden", "&lt;&amp;&gt;"):
        assert name in found


@pytest.mark.parametrize("others", [[], ["other"]])
def test_unusual_histories_are_drawn(others):
    once = Series(VALIDATED[:1], np.array([0.5]))
    validated = {
        "validation/ab/error": once,
        "measure/ab/change": once,
        "gradient_share/generator/cycle_a": once,
    }
    for changed in (
        {"generator/cycle_a": Series(LOGGED, np.full(60, np.nan)), "critic/score": Series(LOGGED, -LOGGED)},
        {"generator/cycle_a": Series(LOGGED, np.where(LOGGED == 500, np.nan, 300.0))},
        {"critic/score": Series(LOGGED[:1], np.zeros(1)), "measure/ab/something_new": once, **validated},
    ):
        assert draw([losses(**changed), *map(losses, others)], format="png")


def test_shares_of_a_single_step_have_an_area():
    axes = figure.Figure().add_subplot()
    once = Series(VALIDATED[:1], np.array([0.5]))
    figure._draw_stack(axes, [figure._Line("cycle_a", once, "red", "-", "red")])
    corners = axes.collections[0].get_paths()[0].get_extents()
    assert 0 < corners.x0 < corners.x1 == VALIDATED[0]
    assert (corners.y0, corners.y1) == (0, 0.5)


def test_terms_of_different_magnitude_have_a_logarithmic_scale(monkeypatch):
    scales = []
    monkeypatch.setattr(figure.Axes, "set_yscale", lambda self, scale: scales.append(scale))
    draw([losses()], format="png")
    assert scales == []
    draw([losses(**{"generator/cycle_a": Series(LOGGED, np.full(60, 30.0))})], format="png")
    assert scales == ["log"]
    draw([losses(**{"generator/cycle_a": Series(LOGGED, np.linspace(-1, 30, 60))})], format="png")
    assert scales == ["log"]


def test_a_figure_does_not_grow_with_the_run():
    def size(count):
        steps, rng = np.arange(1, count + 1) * 50.0, np.random.default_rng(1)
        many = {f"generator/{term}": Series(steps, 0.3 + rng.normal(0, 0.02, count)) for term in TERMS}
        shares = {f"gradient_share/generator/{term}": Series(steps, np.full(count, 0.25)) for term in TERMS}
        return len(draw([History("run", count * 50, None, many | shares)], format="svg"))

    assert size(100_000) < 1.2 * size(25_000) < 2_000_000
