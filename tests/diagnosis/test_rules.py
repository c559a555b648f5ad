"""Every finding, provoked by a history that shows the problem, and its absence if the history nearly does."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from gan_nst.core.settings import read_overrides, validate
from gan_nst.diagnosis.curves import read_run
from gan_nst.diagnosis.rules import describe, diagnose
from gan_nst.methods import base
from gan_nst.runs.settings import settings_model

STEPS, LOG, EVERY = 3000, 50, 250
TERMS = ("adversarial_ab", "adversarial_ba", "cycle_a", "cycle_b", "identity_a", "identity_b")
GENERATOR = {"upsampling": "resize", "start_from": "smoothed"}
SETTINGS = {
    "training": {"steps": STEPS},
    "evaluation": {"score": "ab/error", "every": EVERY},
    "method": {
        **{"cycle_weight": 10.0, "identity_weight": 5.0, "learning_rate": 0.0002},
        **{"generator": GENERATOR, "discriminator": {"layers": 3, "width": 64}},
    },
}


class Run:
    """A healthy run that tests can spoil: lines by step, and settings."""

    def __init__(self, steps=STEPS):
        rng = np.random.default_rng(0)
        self.settings = json.loads(json.dumps(SETTINGS))
        self.lines = {}
        for step in range(LOG, steps + 1, LOG):
            line = {f"generator/{term}": 0.3 + rng.normal() * 0.03 for term in TERMS}
            line |= {f"discriminator/discriminator_{x}": 0.22 + rng.normal() * 0.03 for x in "ab"}
            line |= {"learning_rate/generator": 2e-4, "gradient_norm/generator": 5.0, "speed/x": 4.0}
            if step % EVERY == 0:
                for translation in ("ab", "ba"):
                    self.measured(line, translation, rng)
                line |= {f"gradient_share/generator/{term}": 1 / len(TERMS) for term in TERMS}
            self.lines[step] = line

    def measured(self, line, translation, rng):
        error = 0.12 + rng.normal() * 0.001
        line |= {f"validation/{translation}/error": error}
        line |= {
            f"validation/{translation}/error/{end}": error + by
            for end, by in (("low", -0.005), ("high", 0.005))
        }
        sound = {"diversity": 1.0, "change": 0.18, "correlation": 0.7, "checkerboard": 1.1}
        line |= {f"measure/{translation}/{name}": value for name, value in sound.items()}

    def set(self, key, value, since=0, until=STEPS):
        """Sets a value where it is logged; value may be a function of the step."""
        for step, line in self.lines.items():
            if key in line and since <= step <= until:
                line[key] = value(step) if callable(value) else value
        return self

    def add(self, key, value):
        for line in self.lines.values():
            line[key] = value
        return self

    def error(self, value, interval=0.005):
        """Sets the chosen score with an interval of that half width, or None."""
        self.set("validation/ab/error", value)
        for end, sign in (("low", -1), ("high", 1)):
            key = f"validation/ab/error/{end}"
            if interval is None:
                for line in self.lines.values():
                    line.pop(key, None)
            else:
                self.set(key, lambda step, sign=sign: value(step) + sign * interval)
        return self

    def share(self, term, value):
        """Gives a term that share, and the others equal parts of the rest."""
        for other in TERMS:
            self.set(f"gradient_share/generator/{other}", (1 - value) / (len(TERMS) - 1))
        return self.set(f"gradient_share/generator/{term}", value)

    def shares(self, **families):
        """Gives each family a share, halved between its two terms."""
        for term in TERMS:
            self.set(f"gradient_share/generator/{term}", families[term.split("_")[0]] / 2)
        return self

    def without(self, prefix):
        for line in self.lines.values():
            for key in [key for key in line if key.startswith(prefix)]:
                del line[key]
        return self

    def planned(self, steps):
        self.settings["training"]["steps"] = steps
        return self

    def method(self, **settings):
        self.settings["method"] |= settings
        return self

    def read(self, folder):
        (folder / "settings.yaml").write_text(yaml.safe_dump(self.settings))
        texts = [json.dumps({"step": step, **line}) for step, line in self.lines.items()]
        (folder / "metrics.jsonl").write_text("\n".join(texts))
        return read_run(folder)

    def found(self, folder):
        return diagnose(self.read(folder))


def worsening(step, best=1000, by=0.00004):
    return 0.12 + by * abs(step - best)


def falling(step):
    return 0.12 + 0.1 * np.exp(-step / 2000)


def cycles(run, value):
    return run.set("generator/cycle_a", value).set("generator/cycle_b", value)


def constant_scores(run):
    return run.set("discriminator/discriminator_a", 0.25, 800).set("discriminator/discriminator_b", 0.25, 800)


LATE = STEPS - EVERY  # the last two validations are at or after it
BROKEN = {
    "not finite": lambda: Run().set("generator/cycle_a", "nan", 1500, 1500),
    "saturated discriminator": lambda: Run().set("discriminator/discriminator_b", 0.01, 2000),
    "loss spike": lambda: Run().set("generator/cycle_a", 30, 2000, 2000),
    "idle discriminator": lambda: constant_scores(Run()),
    "collapse": lambda: Run().set("measure/ab/diversity", 0.05, LATE),
    "does nothing": lambda: Run().set("measure/ba/change", 0.002, LATE),
    "inverted": lambda: Run().set("measure/ab/correlation", -0.6, LATE),
    "over-training": lambda: Run().error(worsening),
    "checkerboard": lambda: Run().set("measure/ab/checkerboard", 6.0, LATE),
    "silent term": lambda: Run().share("identity_a", 0.0001),
    "drowning term": lambda: Run().share("adversarial_ab", 0.96),
    "still improving": lambda: Run().error(falling),
}
ADVISED = ("loss spike", "silent term", "drowning term", "still improving")


@pytest.mark.parametrize("kind", BROKEN)
def test_every_failure_is_found(tmp_path, kind):
    (finding,) = BROKEN[kind]().found(tmp_path)
    assert finding.kind == kind
    assert finding.level == ("advice" if kind in ADVISED else "alarm")
    assert finding.evidence.endswith(".")
    assert "\n" not in finding.evidence + finding.advice


@pytest.mark.parametrize("kind", BROKEN)
def test_advised_settings_exist(tmp_path, kind):
    (finding,) = BROKEN[kind]().found(tmp_path)
    (setting,) = [word.strip(",") for word in finding.advice.split() if "=" in word]
    model = settings_model(base.find("cyclegan"))
    validate(model, read_overrides(model, [setting]))


SOUND = {
    "sound": Run,
    "a single low point of the discriminator": lambda: Run().set(
        "discriminator/discriminator_a", 0.001, STEPS
    ),
    "a discriminator that recovered": lambda: Run().set("discriminator/discriminator_a", 0.001, 0, 2000),
    "a penalty near zero": lambda: Run().add("discriminator/gradient_penalty", 0.001),
    "a discriminator of constant scores that recovered": lambda: Run().set(
        "discriminator/discriminator_a", 0.25, 0, 2000
    ),
    "one discriminator at chance": lambda: Run().set(
        "discriminator/discriminator_a", lambda step: 0.25 + 0.01 * (step % 100 == 0)
    ),
    "a gradient that falls": lambda: (
        Run().add("gradient_norm/discriminator", 4.0).set("gradient_norm/discriminator", 0.4, 1500)
    ),
    "a loss four times as high": lambda: Run().set("generator/cycle_a", 1.2, 2000, 2000),
    "a loss that was as high before": lambda: (
        Run().set("generator/cycle_a", 4.0, 0, 400).set("generator/cycle_a", 4.0, 2000, 2000)
    ),
    "a loss that falls to nothing": lambda: Run().set(
        "generator/cycle_a", lambda step: float(np.exp(-step / 100))
    ),
    "a steep rise from nothing of a discriminator": lambda: Run().set(
        "discriminator/discriminator_b", lambda step: 0.06 if step < 2000 else 0.65
    ),
    "a spike of smoothed edges": lambda: (
        Run()
        .add("discriminator/discriminator_smoothed", 0.1)
        .set("discriminator/discriminator_smoothed", 3, 2000, 2000)
    ),
    "one low diversity": lambda: Run().set("measure/ab/diversity", 0.05, STEPS),
    "low diversities that passed": lambda: Run().set("measure/ab/diversity", 0.05, 0, 2750),
    "diversity of an untrained generator": lambda: Run(500).planned(6000).set("measure/ab/diversity", 0.05),
    "no change yet": lambda: Run(500).set("measure/ab/change", 0),
    "one negative correlation": lambda: Run().set("measure/ab/correlation", -0.9, STEPS),
    "correlations about zero": lambda: Run().set("measure/ab/correlation", -0.1),
    "one checkerboard": lambda: Run().set("measure/ab/checkerboard", 20.0, STEPS),
    "a faint checkerboard": lambda: Run().set("measure/ab/checkerboard", 2.4),
    "an error worse at one validation": lambda: Run().error(
        lambda step: 0.12 - 0.001 * (step == 1000) + 0.05 * (step == STEPS)
    ),
    "an error worse within its interval": lambda: Run().error(worsening, interval=0.1),
    "an error that falls within its interval": lambda: Run().error(falling, interval=0.05),
    "an error that fell long ago": lambda: Run().error(lambda step: 0.12 + 0.1 * np.exp(-step / 100)),
    "noise without intervals": lambda: Run().error(
        lambda step: 0.12 + 0.004 * np.random.default_rng(step).normal(), interval=None
    ),
    "an error that fell, but for its end": lambda: Run().error(
        lambda step: falling(step) + 0.003 * (step == STEPS)
    ),
    "a falling error in the middle of a run": lambda: Run(2000).error(falling),
    "a loud term": lambda: Run().shares(adversarial=0.9, cycle=0.05, identity=0.05),
    "a quiet term": lambda: Run().share("identity_a", 0.01),
    "no validation": lambda: Run(200),
    "no measures": lambda: Run().without("measure/").without("validation/").without("gradient_share/"),
    "intervals without ends": lambda: (
        Run().error(lambda step: 0.12 + 0.001 * (step // EVERY % 2)).set("validation/ab/error/low", "nan")
    ),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_history_has_no_findings(tmp_path, name):
    assert SOUND[name]().found(tmp_path) == []


def test_one_validation_is_not_enough_for_a_finding(tmp_path):
    run = Run(EVERY).planned(EVERY)
    for name, value in (("diversity", 0), ("change", 0), ("correlation", -1), ("checkerboard", 50)):
        run.set(f"measure/ab/{name}", value)
    assert run.share("cycle_a", 0).found(tmp_path) == []


def test_noise_without_intervals_rarely_looks_like_a_trend(tmp_path):
    """Hardly any of 80 runs whose score is noise seems to improve or worsen."""
    found = 0
    for seed in range(80):
        rng = np.random.default_rng(seed)
        run = Run().error(lambda step, rng=rng: 0.12 + 0.01 * rng.normal(), interval=None)
        found += bool(run.found(tmp_path))
    assert found <= 3


def test_worsening_is_found_without_intervals(tmp_path):
    rng = np.random.default_rng(0)
    run = Run().error(lambda step: worsening(step) + 0.002 * rng.normal(), interval=None)
    assert [finding.kind for finding in run.found(tmp_path)] == ["over-training"]


def test_over_training_names_the_best_step_and_the_cycle_terms(tmp_path):
    (finding,) = Run().error(worsening).found(tmp_path)
    assert "step 1000" in finding.evidence
    assert "step 1000" in finding.advice
    assert "no longer fall" in finding.evidence
    (finding,) = cycles(Run().error(worsening), lambda step: 3 * np.exp(-step / 1000)).found(tmp_path)
    assert finding.level == "advice"
    assert "still fell" in finding.evidence


def test_over_training_without_a_cycle_term_is_an_alarm(tmp_path):
    (finding,) = Run().error(worsening).without("generator/cycle").found(tmp_path)
    assert (finding.kind, finding.level) == ("over-training", "alarm")
    assert "cycle" not in finding.evidence


def test_scores_where_more_is_better_are_negated(tmp_path):
    run = Run()
    run.settings["evaluation"]["score"] = "ab/ssim"
    for step, line in run.lines.items():
        if "validation/ab/error" in line:
            line["validation/ab/ssim"] = 0.6 - worsening(step)
            line |= {"validation/ab/ssim/low": 0.595 - worsening(step), "validation/ab/ssim/high": 0.605}
    (finding,) = run.found(tmp_path)
    assert finding.kind == "over-training"
    assert "step 1000" in finding.advice


def test_how_many_more_steps_follow_the_gain(tmp_path):
    """A gain of 8 noises over the last stretch pays for three more, each of which brings half."""
    run = Run().error(lambda step: 0.5 - step * 8 * 0.001 / 1250, interval=0.001)
    (finding,) = run.found(tmp_path)
    assert "over the last 1250 steps" in finding.evidence
    assert "about 3000 more" in finding.advice  # no more than were planned, of 3750
    run = Run().error(lambda step: 0.5 - step * 1.5 * 0.001 / 1250, interval=0.001)
    (finding,) = run.found(tmp_path)
    assert "training.steps=4250, about 1250 more" in finding.advice


@pytest.mark.parametrize(
    ("run", "advice"),
    [
        (lambda: BROKEN["saturated discriminator"](), "method.discriminator.layers=2 instead of 3"),
        (
            lambda: BROKEN["saturated discriminator"]().method(discriminator={"layers": 1, "width": 64}),
            "method.discriminator.width=32 instead of 64",
        ),
        (lambda: BROKEN["collapse"](), "method.cycle_weight=20 instead of 10"),
        (lambda: BROKEN["collapse"]().method(cycle_weight=0.0), "method.cycle_weight=10 instead of 0"),
        (lambda: BROKEN["does nothing"](), "method.identity_weight=2.5 instead of 5"),
        (lambda: BROKEN["does nothing"]().method(identity_weight=0), "method.cycle_weight=5 instead of 10"),
        (lambda: BROKEN["inverted"](), "method.identity_weight=10 instead of 5"),
        (
            lambda: BROKEN["inverted"]().method(generator={"start_from": "nothing"}),
            "method.generator.start_from=image",
        ),
        (
            lambda: BROKEN["checkerboard"]().method(generator={"upsampling": "transposed"}),
            "method.generator.upsampling=resize",
        ),
        (lambda: BROKEN["checkerboard"](), "method.learning_rate=0.0001 instead of 0.0002"),
        (lambda: BROKEN["silent term"](), "method.identity_weight=50 instead of 5"),
        (
            lambda: BROKEN["silent term"]().method(identity_weight=0.0),
            "method.identity_weight=1 instead of 0",
        ),
        (lambda: BROKEN["drowning term"](), "method.cycle_weight=100 instead of 10"),
        (
            lambda: Run().shares(adversarial=0.02, cycle=0.97, identity=0.01),
            "method.cycle_weight=1 instead of 10",
        ),
    ],
)
def test_the_advice_fits_the_settings(tmp_path, run, advice):
    (finding,) = run().found(tmp_path)
    assert finding.advice == advice


def test_a_method_without_these_settings_is_not_advised_to_change_them(tmp_path):
    for kind, broken in BROKEN.items():
        run = broken()
        run.settings["method"] = {"learning_rate": 0.1}
        (finding,) = run.found(tmp_path)
        assert finding.advice
        assert "method.cycle_weight" not in finding.advice, kind
        assert "method.identity_weight" not in finding.advice, kind


def test_values_that_are_not_finite_are_counted(tmp_path):
    run = Run().set("generator/cycle_a", "nan", 1500).set("gradient_norm/generator", "inf", 1450)
    (finding,) = run.found(tmp_path)
    assert finding.step == 1450
    assert finding.evidence.startswith("gradient_norm/generator was not finite at 32 of the 60 steps")
    assert finding.evidence.endswith("first at step 1450, and so was 1 other value.")


@pytest.mark.filterwarnings("error")
def test_losses_that_end_not_finite_are_only_one_finding(tmp_path):
    run = Run()
    for x in "ab":
        run.set(f"discriminator/discriminator_{x}", float("nan"), since=STEPS // 2)
    run.add("gradient_norm/discriminator", 3.0)
    run.set("gradient_norm/discriminator", float("nan"), since=STEPS // 2)
    assert {"not finite"} == {finding.kind for finding in run.found(tmp_path)}


def test_a_spike_names_the_largest_and_whether_it_passed(tmp_path):
    spiked = Run().set("gradient_norm/generator", 400, 2100, 2100).set("generator/cycle_a", 30, 2000, 2000)
    (finding,) = spiked.found(tmp_path)
    assert finding.evidence == (
        "generator/cycle_a jumped to 103 times what it was before step 2000, 1 other value too, and fell back."
    )
    assert (finding.level, finding.step) == ("advice", 2000)
    assert finding.advice.startswith("training.gradient_clip=1")
    spiked.settings["training"]["gradient_clip"] = 1.0
    (finding,) = Run().set("generator/cycle_a", 30, 2000).found(tmp_path)
    assert finding.level == "alarm"
    assert finding.evidence.endswith("and stayed there.")
    (finding,) = spiked.found(tmp_path)
    assert finding.advice == "method.learning_rate=0.0001 instead of 0.0002"


@pytest.mark.parametrize("height", [30, 1e6, 1e300])
def test_a_spike_of_any_height_is_described(tmp_path, height):
    (finding,) = Run().set("generator/cycle_a", height, 2000, 2000).found(tmp_path)
    assert finding.kind == "loss spike"
    assert len(finding.evidence) < 200


@pytest.mark.parametrize(("height", "found"), [(1.5, []), (30, ["loss spike"])])
def test_spikes_are_sought_in_means_of_ten_steps(tmp_path, height, found):
    """Where every step is logged: one step of 5 times the loss is noise, ten steps of 100 times are not."""
    rng = np.random.default_rng(0)
    run = Run()
    run.lines = {
        step: {"generator/cycle_a": 0.3 + 0.03 * rng.normal(), "learning_rate/generator": 2e-4}
        for step in range(1, 401)
    }
    last = 300 if height < 2 else 309
    assert [
        finding.kind for finding in run.set("generator/cycle_a", height, 300, last).found(tmp_path)
    ] == found


def test_a_discriminator_without_a_gradient_is_idle(tmp_path):
    run = Run().add("gradient_norm/discriminator", 4.0).set("gradient_norm/discriminator", 0.004, 1500)
    (finding,) = run.found(tmp_path)
    assert finding.kind == "idle discriminator"
    assert "gradient_norm/discriminator fell to 0.004 from 4" in finding.evidence
    both = constant_scores(run).found(tmp_path)
    assert [finding.kind for finding in both] == ["idle discriminator"]
    assert "hardly vary between images and gradient" in both[0].evidence


def test_a_saturated_discriminator_is_not_called_idle(tmp_path):
    run = Run().set("discriminator/discriminator_b", 0.01, 1000)
    run.add("gradient_norm/discriminator", 4.0).set("gradient_norm/discriminator", 0.004, 1500)
    assert [finding.kind for finding in run.found(tmp_path)] == ["saturated discriminator"]


def test_alarms_come_before_advice(tmp_path):
    run = Run().share("identity_a", 0.0001).set("measure/ab/diversity", 0.05).error(falling)
    assert [finding.level for finding in run.found(tmp_path)] == ["alarm", "advice", "advice"]


def test_findings_are_described_line_by_line(tmp_path):
    run = Run().set("measure/ab/diversity", 0.05).share("identity_a", 0.0001)
    lines = describe(run.found(tmp_path), run.read(tmp_path)).splitlines()
    assert lines == [
        "alarm, step 3000: The outputs hardly depend on the input: they differ from each other 0.05 (ab) times as much "
        "as the targets do.",
        "  try: method.cycle_weight=20 instead of 10",
        "advice, step 3000: generator/identity_a has 0.01% of the gradient and decides nothing.",
        "  try: method.identity_weight=50 instead of 5",
    ]


def test_the_absence_of_findings_says_what_was_examined(tmp_path):
    history = Run(2000).read(tmp_path)
    assert describe([], history) == "Nothing alarming was found over 2000 of 3000 steps and 8 validations."
    assert describe([], Run(250).read(tmp_path)).endswith("1 validation, too few to say much.")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_default_demo_run_raises_no_alarm(seed):
    """What three real runs logged: `gan-nst train experiments/photo2cartoon/cyclegan.yaml seed=S` on the CPU, without
    speed and memory.
    """
    history = read_run(Path(__file__).parent / "demo_runs" / str(seed))
    findings = diagnose(history)
    assert {finding.level for finding in findings} <= {"advice"}
    assert history.score == "ab/error"
    assert len(history.series["validation/ab/error"].steps) == 12
