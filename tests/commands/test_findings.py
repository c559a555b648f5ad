"""Runs that are actually broken are diagnosed from their logs; a healthy one raises no alarm."""

import dataclasses
import logging
import shutil

import numpy as np
import pytest
import torch
from helpers_runs import CONFIG, TINY

from gan_nst.commands.train import train
from gan_nst.core.options import TrainOptions
from gan_nst.diagnosis.curves import read_run
from gan_nst.diagnosis.rules import diagnose
from gan_nst.images.files import find_images, read_image, write_image
from gan_nst.methods.cyclegan import CycleGan
from gan_nst.networks.patchgan import PatchGan
from gan_nst.networks.resnet import ResnetGenerator
from gan_nst.training.monitor import Monitor

QUICK = ["training.log_every=2", "training.checkpoint_every=1000", "training.sample_every=1000"]


@pytest.fixture
def findings(datasets, tmp_path):
    """Trains with the given settings and returns the findings by kind."""

    def train_and_diagnose(*overrides, root=datasets):
        run = train(
            CONFIG, [f"data.root={root}", *TINY, *QUICK, *overrides], TrainOptions(output=tmp_path / "run")
        )
        return {finding.kind: finding for finding in diagnose(read_run(run))}

    return train_and_diagnose


def kinds(findings, level="alarm"):
    return {kind for kind, finding in findings.items() if finding.level == level}


def generator_that(monkeypatch, change):
    """Replaces the output of every generator by `change(input, output)`."""
    real = ResnetGenerator.forward
    monkeypatch.setattr(ResnetGenerator, "forward", lambda self, x: change(x, real(self, x)))


def test_a_frozen_generator_does_nothing(findings):
    found = findings(
        "method.generator.start_from=image",
        "method.learning_rate=1e-9",
        "training.steps=12",
        "evaluation.every=3",
    )
    assert kinds(found) == {"does nothing"}
    assert found["does nothing"].step == 12


def test_a_constant_generator_has_collapsed(findings, monkeypatch):
    generator_that(monkeypatch, lambda x, y: 0 * y + 0.3)
    assert "collapse" in kinds(findings("training.steps=6", "evaluation.every=2"))


def test_an_alarm_is_reported_once_during_training(findings, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    generator_that(monkeypatch, lambda x, y: 0 * y + 0.3)
    findings("training.steps=12", "evaluation.every=2", "training.sample_every=2")
    reported = [message for message in caplog.messages if message.startswith("collapse, step ")]
    assert len(reported) == 1
    assert reported[0].endswith("Try: method.cycle_weight=4 instead of 2")
    assert caplog.messages.index(reported[0]) < next(
        number for number, message in enumerate(caplog.messages) if message.startswith("step 8/12 ")
    )


def test_of_a_long_run_fewer_grids_reach_the_monitor_and_the_curves_are_read_less(
    findings, monkeypatch, tmp_path
):
    grids, readings = [], []
    monkeypatch.setattr("gan_nst.training.monitor._ALL_UP_TO", 4)
    monkeypatch.setattr(Monitor, "image", lambda self, step, *_: grids.append(step))
    monkeypatch.setattr("gan_nst.commands.train.read_run", lambda run: readings.append(run) or read_run(run))
    findings("training.steps=32", "training.sample_every=2", "evaluation.every=1000")
    assert grids == [2, 4, 6, 8, 12, 16, 24, 32]
    assert len(readings) == len(grids)
    assert len(list((tmp_path / "run" / "samples").glob("step-*.png"))) == 16


def test_an_inverting_generator_is_detected(findings, monkeypatch):
    generator_that(monkeypatch, lambda x, y: 0 * y - x)
    assert "inverted" in kinds(findings("training.steps=6", "evaluation.every=2"))


def test_a_checkerboard_is_detected(findings, monkeypatch):
    board = torch.from_numpy(1 - 2.0 * (np.indices((64, 64)).sum(0) % 2)).float()
    generator_that(
        monkeypatch, lambda x, y: 0 * y + 0.9 * x + 0.08 * board[: y.shape[2], : y.shape[3]].to(y.device)
    )
    assert "checkerboard" in kinds(findings("training.steps=6", "evaluation.every=2"))


def test_an_overpowering_discriminator_is_saturated(findings):
    """Huge cycle and identity weights make the generators return their input, so that only the discriminator learns."""
    found = findings(
        "method.generator.start_from=image",
        *("method.cycle_weight=500", "method.identity_weight=500", "method.discriminator.width=16"),
        *("method.learning_rate=2e-3", "training.steps=160", "evaluation.every=40"),
    )
    assert {"saturated discriminator", "does nothing"} <= kinds(found)
    assert "method.discriminator.layers=1 instead of 2" in found["saturated discriminator"].advice


def test_a_term_with_weight_0_is_silent(findings):
    found = findings("method.cycle_weight=0", "training.steps=6", "evaluation.every=2")
    assert "cycle" in found["silent term"].evidence
    assert "method.cycle_weight" in found["silent term"].advice


def test_a_term_with_a_huge_weight_drowns_out_the_others(findings):
    found = findings("method.identity_weight=1e5", "training.steps=6", "evaluation.every=2")
    assert "generator/identity has 100" in found["drowning term"].evidence
    assert found["drowning term"].advice.startswith("method.identity_weight=1e+04")


def test_a_discriminator_with_constant_scores_is_idle(findings, monkeypatch):
    monkeypatch.setattr(PatchGan, "forward", lambda self, x: x.mean(1, keepdim=True) * 0 + self.score.bias)
    found = findings("training.steps=200", "method.learning_rate=0.05", "evaluation.every=1000")
    assert "idle discriminator" in kinds(found)


def test_a_healthy_discriminator_raises_no_alarm(findings):
    found = findings("training.steps=200", "evaluation.every=1000")
    assert not kinds(found) & {"idle discriminator", "saturated discriminator"}
    assert "loss spike" not in found


def test_a_loss_that_jumps_is_a_spike(findings, monkeypatch):
    plain = CycleGan.updates

    def updates(method, step):
        generator, discriminator = plain(method, step)

        def losses(batch):
            terms = generator.losses(batch)
            return {**terms, "cycle_b": terms["cycle_b"] * (1000 if 230 <= step < 240 else 1)}

        return [dataclasses.replace(generator, losses=losses), discriminator]

    monkeypatch.setattr(CycleGan, "updates", updates)
    found = findings("training.steps=300", "evaluation.every=1000")
    assert (
        "generator/cycle_b jumped" in found["loss spike"].evidence
        or "1 other" in found["loss spike"].evidence
    )
    assert 230 <= found["loss spike"].step <= 240


def test_a_logged_value_that_is_not_finite_is_found(findings, datasets, tmp_path):
    findings("training.steps=6", "evaluation.every=2")
    path = tmp_path / "run" / "metrics.jsonl"
    path.write_text(
        path.read_text().replace('"generator/cycle_a": 0', '"generator/cycle_a": "nan", "x": 0', 1)
    )
    found = {finding.kind: finding for finding in diagnose(read_run(tmp_path / "run"))}
    assert "generator/cycle_a was not finite" in found["not finite"].evidence


def translated_world(root, datasets, truth, splits):
    """The demo's photographs, with `truth(photograph)` as the images of domain b in those splits."""
    shutil.copytree(datasets / "photo2cartoon", root / "photo2cartoon")
    for split in splits:
        for path in find_images(root / "photo2cartoon" / f"{split}A"):
            write_image(truth(read_image(path)), root / "photo2cartoon" / f"{split}B" / path.name)


def test_training_past_the_best_step_is_detected(findings, datasets, tmp_path):
    """Validation rewards no change at all, while training changes the images more and more."""
    translated_world(tmp_path, datasets, lambda image: image, ["val"])
    found = findings(
        *("method.generator.start_from=image", "method.learning_rate=1e-3", "method.cycle_weight=1"),
        *("method.identity_weight=0", "training.steps=80", "evaluation.every=10"),
        root=tmp_path,
    )
    assert "over-training" in kinds(found) | kinds(found, "advice")
    finding = found["over-training"]
    assert "evaluation.export=best" in finding.advice
    assert f"step {read_run(tmp_path / 'run').series['validation/ab/error'].steps[1]:.0f}" in finding.evidence


def test_a_run_that_still_improves_should_continue(findings, datasets, tmp_path):
    """The target is a darkened photograph, which a generator that starts from the image approaches step by step."""
    translated_world(tmp_path, datasets, lambda image: image // 3, ["train", "val"])
    found = findings(
        *("method.generator.start_from=image", "method.learning_rate=1e-3", "method.cycle_weight=1"),
        *("method.identity_weight=0", "training.steps=60", "evaluation.every=6", "method.decay_from=1"),
        root=tmp_path,
    )
    assert "training.steps=" in found["still improving"].advice
