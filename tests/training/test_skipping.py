"""training.on_nonfinite: what is reported about skipped steps, by which process, and when there are too many."""

import json
import logging

import pytest
import torch
from helpers_processes import in_two_processes
from helpers_toy import Toy, batches, make_trainer
from torch import nn

from gan_nst.core.errors import TrainingError
from gan_nst.methods.base import Role, Update
from gan_nst.training import checkpoint
from gan_nst.training.guard import Guard
from gan_nst.training.monitor import Monitor
from gan_nst.training.trainer import Means

NAN = float("nan")


def to_nan(loss):
    return loss * NAN


def with_nan(loss):
    """The gradient remains finite, so that the averaged gradient reveals nothing to the other processes."""
    return loss + NAN


def skipping(folder, steps, **options):
    return make_trainer(folder, poison=(steps, to_nan), on_nonfinite="skip", **options)


def images(step, count=1):
    return {"x": [f"a/{step}-{number}.png" for number in range(count)]}


def test_skipped_steps_are_counted_and_reported(tmp_path, caplog):
    trainer = skipping(tmp_path, {2, 12, 14}, images_of=images)
    trainer.monitor = Monitor(tmp_path, 0, 30)
    trainer.run(30)
    trainer.monitor.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["skipped/steps"] for line in lines] == [1, 2, 0]
    assert all(isinstance(value, float) for line in lines for key, value in line.items() if key != "step")
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [
        "1 step skipped, first at step 3: generator/bad not finite, with the images a/2-0.png",
        "2 steps skipped, first at step 13: generator/bad not finite, with the images a/12-0.png",
    ]


def test_a_run_that_stops_logs_no_count(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.monitor = Monitor(tmp_path, 0, 10)
    trainer.run(10)
    trainer.monitor.close()
    assert "skipped/steps" not in (tmp_path / "metrics.jsonl").read_text()


def test_what_is_reported_is_bounded(tmp_path, caplog):
    def many(step):
        return images(step, 500)

    trainer = skipping(tmp_path, set(range(0, 100, 2)), images_of=many, log_every=100)
    trainer.run(100)
    (warning,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.startswith("50 steps skipped, first at step 1: ")
    assert warning.endswith("a/0-0.png, a/0-1.png, a/0-2.png and 497 more")


def test_means_exclude_skipped_steps():
    means = Means()
    for value, skipped in ((1.0, 0.0), (NAN, 1.0), (3.0, 0.0)):
        means.add(("g/x",), torch.tensor([value]), torch.tensor(skipped))
    means.add(("g/y",), torch.tensor([NAN]), torch.tensor(1.0))
    assert means.take() == {"g/x": 2.0}


@pytest.mark.parametrize("log_every", [1, 5, 10, 20])
def test_too_many_skipped_steps_end_the_run(tmp_path, log_every, caplog):
    """More than half of at least ten steps: from step 21 on, two of three."""
    bad = {step for step in range(20, 100) if step % 3}
    trainer = skipping(tmp_path, bad, log_every=log_every, checkpoint_every=10, images_of=images)
    with pytest.raises(TrainingError) as raised:
        trainer.run(100)
    message = str(raised.value)
    assert "steps were skipped" in message
    assert "generator/bad not finite, with the images" in caplog.text
    assert "training.init_from=" in message
    assert "on_nonfinite=skip" not in message
    assert "\n" not in message
    assert trainer.step <= 40
    assert checkpoint.newest_first(tmp_path / "checkpoints")


def test_too_many_skipped_steps_end_the_run_at_a_report_without_one(tmp_path):
    """Nine of nine are too few to decide, but count once the tenth step is fine."""
    with pytest.raises(TrainingError, match="9 of the last 10 steps were skipped"):
        skipping(tmp_path, set(range(9)), log_every=9).run(10)


@pytest.mark.parametrize("log_every", [1, 10, 50])
def test_half_of_the_steps_may_be_skipped(tmp_path, log_every):
    skipping(tmp_path, set(range(0, 100, 2)), log_every=log_every).run(100)


def test_a_run_that_skips_resumes_bit_exactly(tmp_path):
    bad = {3, 7, 12}
    uninterrupted, first = (
        skipping(tmp_path / "uninterrupted", bad),
        skipping(tmp_path / "first", bad, checkpoint_every=8),
    )
    for trainer, until in ((uninterrupted, 20), (first, 8)):
        torch.manual_seed(1)
        trainer.run(until)
    second = skipping(tmp_path / "second", bad)
    second.restore(checkpoint.load_newest(tmp_path / "first" / "checkpoints")[1])
    second.run(20)
    for mine, expected in zip(second.method.parameters(), uninterrupted.method.parameters(), strict=True):
        assert torch.equal(mine, expected)
    sound = make_trainer(tmp_path / "sound")
    torch.manual_seed(1)
    sound.run(20)
    assert not torch.equal(next(sound.method.parameters()), next(uninterrupted.method.parameters()))


@pytest.mark.parametrize("clip", [None, 1.0])
def test_the_message_names_a_few_images_and_fits_the_settings(tmp_path, clip):
    trainer = make_trainer(
        tmp_path, ({3}, to_nan), images_of=lambda step: images(step, 8), gradient_clip=clip
    )
    with pytest.raises(TrainingError) as raised:
        trainer.run(20)
    newest = tmp_path / "checkpoints" / "step-0000000.pt"
    assert str(raised.value) == (
        "step 4: generator/bad not finite, with the images a/3-0.png, a/3-1.png, a/3-2.png and 5 more; it never "
        f"reached the weights. {newest} is from before. To skip such steps: gan-nst train --resume {tmp_path} "
        f"training.on_nonfinite=skip; or start a new run with training.init_from={tmp_path} and a lower learning rate"
        + ("" if clip else " or training.gradient_clip=1")
    )


def test_a_skipped_step_does_not_count_for_the_optimizer(tmp_path):
    trainer = skipping(tmp_path, {5, 6})
    trainer.run(10)
    ((_, moments),) = trainer.optimizers["generator"].state.items()
    assert moments["step"].item() == 8


class Normed(Toy):
    """A discriminator with running statistics, whose weight is clipped, moves after the generator."""

    def __init__(self, bad=()):
        super().__init__()
        self.discriminators = nn.ModuleDict({"b": nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1))})
        self.bad = bad

    def roles(self):
        return {**super().roles(), "discriminator": Role(self.discriminators, lambda step: 1e-2)}

    def updates(self, step):
        (generator,) = super().updates(step)
        return [generator, Update("discriminator", self.discriminator_losses, self.clip)]

    def discriminator_losses(self, batch):
        x = batch["x"] * (NAN if self.step_count in self.bad else 1)
        return {"fake": self.discriminators["b"](x).square().mean()}

    def clip(self):
        with torch.no_grad():
            self.discriminators["b"][1].weight.clamp_(-0.2, 0.2)


@pytest.mark.parametrize("choice", ["stop", "skip"])
def test_running_statistics_and_clipped_weights_are_undone(tmp_path, choice):
    trainer = make_trainer(tmp_path, method=Normed({4}), on_nonfinite=choice)
    stream = batches(0)
    for _ in range(4):
        trainer.train_step(next(stream))
        trainer.step += 1
    discriminator = trainer.method.discriminators["b"]
    before = {key: value.clone() for key, value in discriminator.state_dict().items()}
    trainer.train_step(next(stream))
    for key, value in discriminator.state_dict().items():
        assert torch.equal(value, before[key]), key
    trainer.step += 1
    trainer.train_step(next(stream))
    for key, value in discriminator.state_dict().items():
        assert torch.equal(value, before[key]) == (choice == "stop"), key


def test_the_guard_remembers_the_first_failure_and_counts_all(tmp_path):
    guard = Guard(torch.device("cpu"), stops=False, checkpoints=tmp_path)
    for start, term in ((0, "d/x"), (1, "g/y")):
        for step in range(start, 40):
            guard.begin()
            guard.check(
                step, ("g/x", "g/y", "gradient_norm/g"), torch.tensor([1.0, NAN if step % 2 else 1.0, 1.0])
            )
            # In even steps only, it is the first.
            guard.check(step, ("d/x", "gradient_norm/d"), torch.tensor([NAN, NAN]))
        skipped, failure = guard.take()
        assert skipped == 40 - start
        assert (failure.step, failure.terms) == (start, (term,))
        assert guard.take() == (0, None)


@pytest.mark.parametrize("spoil", [to_nan, with_nan])
@pytest.mark.parametrize("choice", ["stop", "skip"])
def test_processes_skip_together_and_name_the_images_of_the_one_that_failed(tmp_path, choice, spoil):
    first, second = in_two_processes(tmp_path, _one_of_two, tmp_path, choice, spoil)
    assert first == second
    messages, weights = first
    assert "step 4: generator/bad not finite, with the images a/of-1-3.png" in messages
    assert "of-0" not in messages
    assert weights


def _one_of_two(rank, tmp_path, choice, spoil):
    messages = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    logging.getLogger("gan_nst").addHandler(handler)
    trainer = make_trainer(
        tmp_path / "run",
        poison=({3} if rank else set(), spoil),
        on_nonfinite=choice,
        images_of=lambda step: {"x": [f"a/of-{rank}-{step}.png"]},
    )
    try:
        trainer.run(10)
    except TrainingError as error:
        messages.append(str(error))
    weights = trainer.method.generators["ab"].weight
    assert torch.isfinite(weights).all()
    return "; ".join(messages), weights.tolist()
