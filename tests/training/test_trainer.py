"""The training loop: non-finite values never reach the weights; averages, clipping and several processes."""

import copy
import json

import pytest
import torch
from helpers_processes import in_two_processes
from helpers_runs import same_values
from helpers_toy import batches, make_trainer
from torch import nn

from gan_nst.core.errors import CheckpointError, DataError, TrainingError
from gan_nst.training import checkpoint, distributed
from gan_nst.training.monitor import Monitor
from gan_nst.training.optimizers import Ema
from gan_nst.training.trainer import IntervalAction


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda loss: loss * float("nan"), "generator/bad"),
        (lambda loss: loss * float("inf"), "generator/bad"),
        # 0, but its gradient is infinite times zero.
        (lambda loss: (loss * 0).sqrt(), "gradient_norm/generator"),
    ],
)
def test_a_value_that_is_not_finite_never_reaches_the_weights(tmp_path, spoil, named):
    trainer = make_trainer(tmp_path, poison=({13}, spoil), checkpoint_every=10)
    clean = make_trainer(tmp_path / "clean", log_every=13)
    torch.manual_seed(1)
    clean.run(13)
    torch.manual_seed(1)
    with pytest.raises(TrainingError, match=rf"step 14: .*{named}"):
        trainer.run(40)
    assert trainer.step == 20  # read at the log interval only
    for mine, expected in zip(trainer.method.parameters(), clean.method.parameters(), strict=True):
        assert torch.equal(mine, expected)
    for mine, expected in zip(
        trainer.ema.networks.parameters(), clean.ema.networks.parameters(), strict=True
    ):
        assert torch.equal(mine, expected)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["step-0000000.pt", "step-0000010.pt"]


def test_the_toy_learns(tmp_path):
    trainer = make_trainer(tmp_path, steps=600)
    trainer.run(600)
    weight = trainer.method.generators["ab"].weight
    assert (weight - 2 * torch.eye(3)).abs().max() < 0.05


def test_resume_continues_the_random_draws_of_the_losses(tmp_path):
    uninterrupted, first = (
        make_trainer(tmp_path / "uninterrupted"),
        make_trainer(tmp_path / "first", checkpoint_every=5),
    )
    for trainer, until in ((uninterrupted, 12), (first, 5)):
        torch.manual_seed(1)
        trainer.run(until)
    from gan_nst.training import checkpoint

    payload = checkpoint.load_newest(tmp_path / "first" / "checkpoints")[1]
    exact, careless = (make_trainer(tmp_path / name) for name in ("exact", "careless"))
    exact.restore(copy.deepcopy(payload))
    exact.run(12)
    assert torch.equal(uninterrupted.method.generators["ab"].weight, exact.method.generators["ab"].weight)
    careless.restore({**payload, "random": [{"cpu": torch.Generator().manual_seed(9).get_state()}]})
    careless.run(12)
    assert not torch.equal(
        uninterrupted.method.generators["ab"].weight, careless.method.generators["ab"].weight
    )


def test_ema_is_the_written_out_average():
    torch.manual_seed(0)
    source = nn.ModuleDict({"ab": nn.Linear(2, 2)})
    ema = Ema(source, 0.9)
    expected = source["ab"].weight.detach().clone()
    for step in range(30):
        with torch.no_grad():
            source["ab"].weight.add_(torch.randn(2, 2))
        ema.update(step, torch.zeros(()))
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * source["ab"].weight.detach()
        assert torch.allclose(ema.networks["ab"].weight, expected, atol=1e-6)
    before = ema.networks["ab"].weight.clone()
    ema.update(30, torch.ones(()))
    assert torch.equal(ema.networks["ab"].weight, before)


def test_ema_zero_is_the_last_weights(tmp_path):
    trainer = make_trainer(tmp_path, ema=0)
    trainer.run(10)
    assert torch.allclose(trainer.ema.networks["ab"].weight, trainer.method.generators["ab"].weight)


def test_gradient_clip_bounds_the_norm(tmp_path):
    free, clipped = make_trainer(tmp_path / "a"), make_trainer(tmp_path / "b", gradient_clip=1e-3)
    norms = []
    for trainer in (free, clipped):
        trainer.train_step(next(batches(0)))
        norms.append(trainer.method.generators["ab"].weight.grad.norm().item())
    assert norms[0] > 1e-2
    assert norms[1] == pytest.approx(1e-3, rel=1e-2)


def test_intervals_act_at_their_steps(tmp_path):
    seen = []
    trainer = make_trainer(tmp_path)
    trainer.interval_actions = [IntervalAction(4, seen.append)]
    trainer.run(13)
    assert seen == [4, 8, 12]


def test_monitor_writes_the_same_scalars_to_both(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = make_trainer(tmp_path)
    trainer.monitor = Monitor(tmp_path, 0, 20)
    trainer.run(20)
    trainer.monitor.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20]
    events = EventAccumulator(str(tmp_path)).Reload()
    names = set(lines[0]) - {"step"}
    assert names >= {"generator/good", "gradient_norm/generator", "learning_rate/generator"}
    assert names >= {"speed/images_per_second", "memory/peak_mib"}
    assert set(events.Tags()["scalars"]) == names
    for name in names:
        assert [e.value for e in events.Scalars(name)] == pytest.approx(
            [line[name] for line in lines], rel=1e-5
        )


def test_monitor_drops_lines_after_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "x": 1}\n{"step": 2, "x": 1}\n{"step": 3, "x": 1}\n{"step": 4, "x"')
    Monitor(tmp_path, 2, 10).close()
    assert path.read_text() == '{"step": 1, "x": 1}\n{"step": 2, "x": 1}\n'


def test_restoring_other_networks_is_one_line(tmp_path):
    trainer = make_trainer(tmp_path)
    payload = {
        "state": {"generators.ab.weight": torch.zeros(5, 5)},
        "ema": {},
        "optimizers": {},
        "random": [],
        "step": 1,
    }
    with pytest.raises(CheckpointError, match="does not fit"):
        trainer.restore(payload)


def test_two_processes_equal_one(tmp_path):
    """Two gloo processes with batches of 2 train like one process with a batch of 4."""
    single = make_trainer(tmp_path / "single", stream=quiet_batches(0, 1))
    for _, batch in zip(range(5), quiet_batches(0, 1)(0), strict=False):
        single.train_step(batch)
        single.step += 1
    first, second = in_two_processes(tmp_path, _one_of_two, tmp_path)
    assert torch.equal(torch.tensor(first), torch.tensor(second))
    expected = single.method.generators["ab"].weight.detach()
    assert torch.allclose(torch.tensor(first), expected, atol=1e-6)


class quiet_batches:
    """A process's share of the batch of 4, with the same noise everywhere."""

    def __init__(self, rank, processes):
        self.rank, self.processes = rank, processes

    def __call__(self, step):
        while True:
            torch.manual_seed(step)
            share = 4 // self.processes
            x = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
            yield [{"x": x[self.rank * share : (self.rank + 1) * share]}]
            step += 1


def _one_of_two(rank, tmp_path):
    assert distributed.world_size() == 2
    stream = quiet_batches(rank, 2)
    trainer = make_trainer(tmp_path / str(rank), stream=stream)
    for _, batch in zip(range(5), stream(0), strict=False):
        trainer.train_step(batch)
        trainer.step += 1
    return trainer.method.generators["ab"].weight.tolist()


@pytest.mark.parametrize(
    ("failure", "message", "saved"),
    [
        (KeyError("unforeseen"), "unforeseen", 0),  # like a kill: nothing is saved
        (
            DataError("b/7.png: no such file"),
            "b/7.png: no such file; step 7 is saved, resume with: .*--resume",
            7,
        ),
    ],
    ids=["killed before a checkpoint was due", "no more images"],
)
def test_a_run_resumes_from_its_start_or_from_where_loading_failed(tmp_path, failure, message, saved):
    def breaks(step):
        for number, found in enumerate(batches(step), step):
            if number == 7:
                raise failure
            yield found

    uninterrupted, broken = (
        make_trainer(tmp_path / "uninterrupted"),
        make_trainer(tmp_path / "broken", stream=breaks),
    )
    torch.manual_seed(1)
    uninterrupted.run(12)
    torch.manual_seed(1)
    with pytest.raises(type(failure), match=message):
        broken.run(12)
    resumed = make_trainer(tmp_path / "broken")
    resumed.restore(checkpoint.load_newest(tmp_path / "broken" / "checkpoints")[1])
    assert resumed.step == saved
    resumed.run(12)
    assert same_values(resumed.method.state_dict(), uninterrupted.method.state_dict())


def changed(payload, path, value):
    """The payload with another value at "optimizers.generator.state", say; parts of a path that are numbers are."""
    found = copy.deepcopy(payload)
    at, keys = found, [int(key) if key.isdigit() else key for key in path.split(".")]
    for key in keys[:-1]:
        at = at[key]
    at[keys[-1]] = value
    return found


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("state", {}),
        ("state", {"generators.ab.weight": "x"}),
        ("state", {"generators.ab.weight": torch.zeros(3, 3, dtype=torch.complex64)}),
        ("ema", {"ab.weight": torch.zeros(2)}),
        ("optimizers", {}),
        ("optimizers.generator", {}),
        ("optimizers.generator.state", [1]),
        ("optimizers.generator.state", {0: {}}),
        ("optimizers.generator.state", {0: 1}),
        ("optimizers.generator.state.0.exp_avg", torch.zeros(2)),
        ("optimizers.generator.state.0.exp_avg_sq", "x"),
        ("optimizers.generator.state.0.step", torch.zeros(2)),
        ("optimizers.generator.param_groups", "x"),
        ("optimizers.generator.param_groups", []),
        ("random", [{}]),
        ("random", [{"cpu": torch.zeros(3)}]),
        ("random", [{"cpu": torch.zeros(3, dtype=torch.uint8)}]),
    ],
)
def test_a_checkpoint_with_wrong_parts_is_refused(tmp_path, path, value):
    trainer = make_trainer(tmp_path)
    trainer.run(2)
    payload = checkpoint.load_newest(tmp_path / "checkpoints")[1]
    with pytest.raises(CheckpointError, match="does not fit the settings") as caught:
        make_trainer(tmp_path).restore(changed(payload, path, value))
    assert str(tmp_path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_an_optimizer_keeps_the_numbers_of_the_settings(tmp_path):
    """A run resumes with its settings, not with the numbers in the checkpoint."""
    trainer = make_trainer(tmp_path)
    trainer.run(2)
    payload = checkpoint.load_newest(tmp_path / "checkpoints")[1]
    group = payload["optimizers"]["generator"]["param_groups"][0]
    group |= {"betas": "x", "eps": -1.0, "weight_decay": 1e9, "fused": False, "maximize": True}
    other = make_trainer(tmp_path)
    before = copy.deepcopy(other.optimizers["generator"].state_dict()["param_groups"])
    other.restore(payload)
    assert other.optimizers["generator"].state_dict()["param_groups"] == before
