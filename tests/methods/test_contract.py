"""The contract of methods, tested for every file in the folder."""

import functools
import tempfile
from pathlib import Path

import pytest
import torch
from helpers_methods import PLAN, STEPS, endless, make_method, make_trainer, micro_batches, same, state

from gan_nst.methods import base
from gan_nst.training import checkpoint

EVERY_AUGMENTATION = ("colour", "translation", "cutout")

pytestmark = [pytest.mark.every_method, pytest.mark.parametrize("name", base.names())]


def test_roles_hold_every_parameter_once(name, tmp_path):
    trainer = make_trainer(name, tmp_path)
    held = [id(p) for role in trainer.roles.values() for p in role.networks.parameters()]
    assert sorted(held) == sorted(id(p) for p in trainer.method.parameters())


def test_translations_name_generators_and_streams_name_domains(name, tmp_path):
    method = make_trainer(name, tmp_path).method
    domains = {stream.domain for stream in method.streams.values()}
    for translation in method.translations().values():
        assert translation.generator in method.generators
        assert {translation.source, translation.target} <= domains


@pytest.mark.parametrize("step", STEPS)
def test_an_update_moves_only_its_role(name, tmp_path, step):
    trainer = make_trainer(name, tmp_path)
    batch = micro_batches(name)
    for update in trainer.method.updates(step):
        before = {key: p.clone() for key, p in trainer.method.named_parameters()}
        own = {id(p) for p in trainer.roles[update.role].networks.parameters()}
        trainer._apply(update, batch)
        for key, parameter in trainer.method.named_parameters():
            assert torch.equal(parameter, before[key]) == (id(parameter) not in own), key
            assert not parameter.requires_grad


@pytest.mark.parametrize("step", STEPS)
def test_terms_have_unique_names_and_are_finite(name, tmp_path, step):
    trainer = make_trainer(name, tmp_path)
    seen = set()
    batch = micro_batches(name)[0]
    for update in trainer.method.updates(step):
        losses = update.losses(batch)
        assert losses
        assert all(loss.ndim == 0 and torch.isfinite(loss) for loss in losses.values())
        assert not seen & losses.keys()
        seen |= losses.keys()


def discriminator_inputs(name, augmented):
    """Returns the input of the discriminators in each update of a late step: one image per row, by role."""
    method, batch, seen = make_method(name, augmented), micro_batches(name)[0], {}
    for update in method.updates(PLAN.steps - 1):
        rows = seen.setdefault(update.role, [])
        hooks = [
            network.register_forward_pre_hook(lambda _, given, rows=rows: rows.extend(given[0].detach()))
            for network in method.discriminators.values()
        ]
        update.losses(batch)
        for hook in hooks:
            hook.remove()
    return seen, batch


def test_discriminators_see_only_augmented_images(name):
    """Cutout leaves zeros, which random images do not contain; every image uses its own random numbers."""
    plain, batch = discriminator_inputs(name, ())
    cut, _ = discriminator_inputs(name, ("cutout",))
    assert plain.keys() == cut.keys() == {"generator", "discriminator"}
    for role, images in cut.items():
        assert len(images) == len(plain[role]) > 0
        assert not any((image == 0).any() for image in plain[role])
        assert all((image == 0).all(0).sum() >= 16 for image in images)
        assert len({(image == 0).numpy().tobytes() for image in images}) > len(images) / 2
    for real in batch["real_b"]:
        assert any(torch.equal(real, image) for image in plain["discriminator"])
        assert not any(torch.equal(real, image) for image in cut["discriminator"])


def test_two_micro_batches_of_2_equal_one_of_4(name, tmp_path):
    two, one = make_trainer(name, tmp_path), make_trainer(name, tmp_path)
    for step in range(4):
        two.train_step(micro_batches(name, 2, 2, seed=step))
        one.train_step(micro_batches(name, 1, 4, seed=step))
        two.step = one.step = step + 1
    for (key, a), b in zip(two.method.named_parameters(), one.method.parameters(), strict=True):
        assert (a - b).abs().max() < 1e-11, key


def test_accumulation_is_more_than_the_last_micro_batch(name, tmp_path):
    """Negative control of the test above."""
    two, one = make_trainer(name, tmp_path), make_trainer(name, tmp_path)
    two.train_step(micro_batches(name, 2, 2))
    one.train_step(micro_batches(name, 2, 2)[1:])
    pairs = zip(two.method.parameters(), one.method.parameters(), strict=True)
    assert max((a - b).abs().max() for a, b in pairs) > 1e-6


@pytest.mark.parametrize("augmented", [(), EVERY_AUGMENTATION])
def test_resume_is_bit_exact(name, tmp_path, augmented):
    assert same(uninterrupted(name, augmented), state(resumed(name, tmp_path, augmented=augmented)))


@pytest.mark.parametrize("forgotten", ["optimizers", "state", "ema", "random"])
def test_resume_needs_every_part_of_the_checkpoint(name, tmp_path, forgotten):
    """Negative controls: without one part of the saved state the resumed run differs."""
    augmented = EVERY_AUGMENTATION if forgotten == "random" else ()
    assert not same(uninterrupted(name, augmented), state(resumed(name, tmp_path, forgotten, augmented)))


@functools.cache
def uninterrupted(name, augmented):
    """The state after nine steps in one piece."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(name, Path(folder), endless(name), augmented, checkpoint_every=4)
        trainer.run(9)
        return state(trainer)


def resumed(name, tmp_path, forgotten=None, augmented=()):
    first = make_trainer(name, tmp_path / "first", endless(name), augmented)
    first.run(5)
    payload = checkpoint.load_newest(tmp_path / "first" / "checkpoints")[1]
    assert payload["step"] == 5
    second = make_trainer(name, tmp_path / "second", endless(name), augmented)
    if forgotten == "optimizers":
        payload["optimizers"] = {key: optimizer.state_dict() for key, optimizer in second.optimizers.items()}
    elif forgotten == "state":
        payload["state"] = second.method.state_dict()
    elif forgotten == "ema":
        payload["ema"] = second.ema.networks.state_dict()
    elif forgotten == "random":
        payload["random"] = [{"cpu": torch.get_rng_state()}]
    second.restore(payload)
    second.run(9)
    return second
