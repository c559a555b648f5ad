"""Runs that encounter a non-finite value: what they report, what they leave, and how they resume."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from helpers_runs import CONFIG, metrics, one_line, run, same_state

from gan_nst.commands.train import train
from gan_nst.core.errors import TrainingError
from gan_nst.core.options import TrainOptions
from gan_nst.methods.cyclegan import CycleGan
from gan_nst.training import checkpoint

SHORT = ["training.steps=10", "training.log_every=5", "training.sample_every=100", "evaluation.every=100"]


@pytest.fixture
def bad_step(monkeypatch):
    """Makes the cycle loss of step 5 not a number; returns the images that it was computed from."""
    plain, seen = CycleGan.updates, []

    def updates(method, step):
        generator, discriminator = plain(method, step)
        if step != 4:
            return [generator, discriminator]

        def losses(batch):
            seen.append(batch["real_a"])
            terms = generator.losses(batch)
            return {**terms, "cycle_a": terms["cycle_a"] * torch.nan}

        return [dataclasses.replace(generator, losses=losses), discriminator]

    monkeypatch.setattr(CycleGan, "updates", updates)
    return seen


def test_a_run_that_stopped_resumes_and_skips_the_step(bad_step, tiny, datasets, tmp_path):
    tiny = [*tiny, *SHORT, "training.batch_size=2"]
    with pytest.raises(TrainingError) as raised:
        train(CONFIG, tiny, TrainOptions(output=tmp_path / "stopped"))
    message = str(raised.value)
    assert message.startswith("step 5: generator/cycle_a not finite, with the images ")
    named = re.search("with the images (.*?);", message)[1].split(", ")
    assert [Path(name).parent.name for name in named] == ["trainA", "trainA", "trainB", "trainB"]
    assert all(Path(name).is_file() for name in named)
    newest, payload = checkpoint.load_newest(tmp_path / "stopped" / "checkpoints")
    assert payload["step"] == 4
    assert f"{newest} is from before" in message
    (advice,) = re.findall(r"gan-nst train --resume (\S+) (training.on_nonfinite=skip);", message)
    train(overrides=[advice[1]], options=TrainOptions(resume=advice[0]))
    assert metrics(tmp_path / "stopped")[5]["skipped/steps"] == 1
    train(CONFIG, [*tiny, "training.on_nonfinite=skip"], TrainOptions(output=tmp_path / "skipped"))
    assert same_state(tmp_path / "stopped", tmp_path / "skipped")


def test_a_rate_far_too_high_is_one_line(tiny, tmp_path):
    arguments = ["train", CONFIG, *tiny, *SHORT, "method.learning_rate=1e30", "training.steps=40"]
    message = ("not finite, with the images", "step-0000000.pt is from before", "lower learning rate")
    one_line(run(*arguments, "--output", tmp_path / "run"), *message)
    code, _, err = run(*arguments, "training.on_nonfinite=skip", "--output", tmp_path / "skipping")
    assert code == 2
    assert "Traceback" not in err
    assert "of the last 10 steps were skipped" in err.strip().splitlines()[-1]
