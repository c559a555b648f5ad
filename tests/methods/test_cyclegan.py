"""CycleGAN in the trainer equals a written-out plain loop in float64."""

import pytest
import torch
from torch import nn

from gan_nst.bench.reference import Reference
from gan_nst.methods.base import Plan
from gan_nst.methods.cyclegan import CycleGan, CycleGanSettings, learning_rate
from gan_nst.training.settings import TrainingSettings
from gan_nst.training.trainer import Trainer

STEPS = 10
PLAN = Plan(steps=STEPS, steps_per_epoch=2, seed=3)


def settings(**changes):
    plain = {
        "generator": {"width": 4, "blocks": 2, "upsampling": "transposed"},
        "discriminator": {"width": 4, "layers": 2},
        "replay": 2,
        **changes,
    }
    return CycleGanSettings.model_validate(plain)


def batches(seed=0, size=2):
    generator = torch.Generator().manual_seed(seed)

    def draw():
        return torch.rand(size, 3, 16, 16, generator=generator, dtype=torch.float64) * 2 - 1

    return [{"real_a": draw(), "real_b": draw()} for _ in range(STEPS)]


def make_trainer(method, tmp_path):
    return Trainer(
        method.double(),
        TrainingSettings(steps=STEPS, epochs=None),
        lambda step: iter([]),
        device=torch.device("cpu"),
        precision="float32",
        checkpoints=tmp_path,
        header={},
    )


class TorchDraws:
    """Python's random interface over a torch generator, so that the reference's pool draws the same numbers as ours."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def random(self):
        return torch.rand((), generator=self.generator).item()

    def randrange(self, stop):
        return int(torch.randint(stop, (), generator=self.generator))


def copy_weights(source: nn.Module, target: nn.Module):
    ours, theirs = list(source.parameters()), list(target.parameters())
    assert [p.shape for p in ours] == [p.shape for p in theirs]
    with torch.no_grad():
        for mine, other in zip(ours, theirs, strict=True):
            other.copy_(mine)


def reference_of(method, s):
    reference = Reference(
        width=4,
        blocks=2,
        discriminator_width=4,
        layers=2,
        cycle=s.cycle_weight,
        identity=s.identity_weight,
        pool=s.replay,
    )
    pairs = [
        (method.generators["ab"], reference.ab),
        (method.generators["ba"], reference.ba),
        (method.discriminators["a"], reference.discriminators["a"]),
        (method.discriminators["b"], reference.discriminators["b"]),
    ]
    for ours, theirs in pairs:
        theirs.double()
        copy_weights(ours, theirs)
    reference.pools["a"].draw, reference.pools["b"].draw = TorchDraws(PLAN.seed), TorchDraws(PLAN.seed + 1)
    return reference, pairs


def test_training_equals_the_plain_loop(tmp_path):
    torch.manual_seed(0)
    s = settings()
    method = CycleGan(s, PLAN)
    trainer = make_trainer(method, tmp_path)
    reference, pairs = reference_of(method, s)
    start = [p.clone() for ours, _ in pairs for p in ours.parameters()]
    for step, batch in enumerate(batches()):
        for optimizer in (reference.generator_adam, reference.discriminator_adam):
            optimizer.param_groups[0]["lr"] = learning_rate(s, PLAN, step)
        expected = reference.step(batch["real_a"], batch["real_b"])
        trainer.train_step([batch])
        trainer.step += 1
        means = trainer.means.take()
        for name, value in expected.items():
            role = "discriminator" if name.startswith("discriminator") else "generator"
            assert means[f"{role}/{name}"] == pytest.approx(value, abs=1e-10)
    moved = [p for ours, _ in pairs for p in ours.parameters()]
    assert all((a - b).abs().max() > 1e-5 for a, b in zip(start, moved, strict=True))
    for ours, theirs in pairs:
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert (mine - other).abs().max() < 1e-10


@pytest.mark.parametrize(
    "change", [{"cycle_weight": 9.0}, {"identity_weight": 4.0}, {"replay": 3}, {"betas": (0.6, 0.999)}]
)
def test_the_comparison_detects_a_difference(tmp_path, change):
    """Negative control: another setting on one side makes the weights differ."""
    torch.manual_seed(0)
    method = CycleGan(settings(**change), PLAN)
    trainer = make_trainer(method, tmp_path)
    reference, pairs = reference_of(method, settings())
    for step, batch in enumerate(batches()):
        for optimizer in (reference.generator_adam, reference.discriminator_adam):
            optimizer.param_groups[0]["lr"] = learning_rate(settings(), PLAN, step)
        reference.step(batch["real_a"], batch["real_b"])
        trainer.train_step([batch])
        trainer.step += 1
    differences = [
        (m - o).abs().max() for a, b in pairs for m, o in zip(a.parameters(), b.parameters(), strict=True)
    ]
    assert max(differences) > 1e-6


def test_identity_weight_zero_removes_the_term():
    method = CycleGan(settings(identity_weight=0), PLAN).double()
    losses = method.generator_losses(batches()[0])
    assert set(losses) == {"adversarial_ab", "adversarial_ba", "cycle_a", "cycle_b"}


def test_weights_scale_their_terms():
    torch.manual_seed(0)
    light = CycleGan(settings(cycle_weight=1, identity_weight=1), PLAN).double()
    torch.manual_seed(0)
    heavy = CycleGan(settings(cycle_weight=10, identity_weight=5), PLAN).double()
    one, ten = light.generator_losses(batches()[0]), heavy.generator_losses(batches()[0])
    assert ten["cycle_a"].item() == pytest.approx(10 * one["cycle_a"].item())
    assert ten["identity_b"].item() == pytest.approx(5 * one["identity_b"].item())
    assert ten["adversarial_ab"].item() == pytest.approx(one["adversarial_ab"].item())


def test_fakes_passed_to_the_discriminators_are_detached():
    method = CycleGan(settings(), PLAN).double()
    batch = batches()[0]
    method.generator_losses(batch)
    assert not batch["fake_a"].requires_grad
    assert not batch["fake_b"].requires_grad


def test_the_rate_falls_linearly_to_zero():
    s, plan = settings(learning_rate=1.0, decay_from=0.5), Plan(100, 10)
    rates = [learning_rate(s, plan, step) for step in (0, 50, 75, 99, 100)]
    assert rates == pytest.approx([1, 1, 0.5, 0.02, 0])


@pytest.mark.parametrize("steps", [1, 4, 12, 13, 560])
def test_the_rate_is_never_zero(steps):
    for decay_by in ("step", "epoch"):
        s, plan = settings(decay_by=decay_by), Plan(steps, 12)
        assert all(learning_rate(s, plan, step) > 0 for step in range(steps))


def test_the_rate_falls_by_the_epoch_as_published():
    """pytorch-CycleGAN-and-pix2pix, 100 + 100 epochs: factor 1 - max(0, epoch - 100) / 101 in epoch 1, 2, ..."""
    s, plan = settings(learning_rate=1.0, decay_by="epoch"), Plan(200 * 7, 7)
    for step in range(0, plan.steps, 13):
        epoch = step // 7 + 1
        assert learning_rate(s, plan, step) == pytest.approx(1 - max(0, epoch - 100) / 101)
