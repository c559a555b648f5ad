"""Gradient shares against a naive computation, and that computing them has no side effects."""

import copy

import pytest
import torch

from gan_nst.methods.base import Plan
from gan_nst.methods.cyclegan import CycleGan, CycleGanSettings
from gan_nst.training.trainer import gradient_shares

CPU = torch.device("cpu")


@pytest.fixture
def method():
    torch.manual_seed(0)
    settings = CycleGanSettings(
        generator={"width": 4, "blocks": 1, "downsamplings": 1}, discriminator={"width": 4, "layers": 1}
    )
    return CycleGan(settings, Plan(10, 10)).requires_grad_(False)


@pytest.fixture
def batch():
    source = torch.Generator().manual_seed(1)
    return {key: torch.rand(1, 3, 16, 16, generator=source) * 2 - 1 for key in ("real_a", "real_b")}


def test_shares_are_those_of_each_terms_own_backward_pass(method, batch):
    norms = {}
    for name in method.generator_losses(dict(batch)):
        trial = copy.deepcopy(method)
        trial.generators.requires_grad_(True)
        trial.generator_losses(dict(batch))[name].backward()
        squares = [p.grad.square().sum() for p in trial.generators.parameters() if p.grad is not None]
        norms[name] = torch.stack(squares).sum().sqrt().item()
    found = gradient_shares(method, 0, batch, "float32", CPU)
    total = sum(norms.values())
    expected = {f"gradient_share/generator/{name}": norm / total for name, norm in norms.items()}
    assert len(expected) == 6
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_run_is_not_affected(method, batch):
    before, keys, state = copy.deepcopy(method.state_dict()), set(batch), torch.get_rng_state()
    gradient_shares(method, 0, batch, "float32", CPU)
    assert set(batch) == keys
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None and not p.requires_grad for p in method.parameters())
    after = method.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before if isinstance(before[k], torch.Tensor))
    assert [str(before[k]) for k in before] == [str(after[k]) for k in before]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_images_whose_gradient_is_not_finite_have_no_shares(method, batch, value):
    """A skipped step, for example: shares of 0 would look like terms without influence."""
    batch["real_a"][0, 0, 0, 0] = value
    assert gradient_shares(method, 0, batch, "float32", CPU) == {}
