"""A value that is not finite, put wherever a method could meet one: it moves nothing, and the term that it was in is
named.
"""

import dataclasses
import itertools

import pytest
import torch
from helpers_methods import PLAN, STEPS, endless, make_method, make_trainer, micro_batches, same, state

from gan_nst.core.errors import TrainingError
from gan_nst.methods import base
from gan_nst.training.compilation import compile_networks

VALUES = [float(text) for text in ("nan", "inf", "-inf")]


def with_values(items):
    """Each item with one of the values, in turn: `test_a_loss_that_is_not_finite_moves_nothing` takes them all."""
    return zip(items, itertools.cycle(VALUES), strict=False)


pytestmark = [pytest.mark.every_method, pytest.mark.parametrize("name", base.names())]


def started(name, tmp_path, step=PLAN.steps - 1, **options):
    """A trainer that has taken three good steps and is at `step`."""
    trainer = make_trainer(name, tmp_path, **options)
    dtype = next(trainer.method.parameters()).dtype
    for number in range(3):
        trainer.step = max(step - 3 + number, 0)
        trainer.train_step(images(name, number, dtype))
    trainer.step = step
    return trainer


def images(name, seed, dtype=torch.float64, count=1):
    return [{k: x.to(dtype) for k, x in one.items()} for one in micro_batches(name, count, seed=seed)]


def terms(trainer):
    """(number of the update, role, term) of all losses at the trainer's step."""
    batch = images_like(trainer)
    found = []
    for number, update in enumerate(trainer.method.updates(trainer.step)):
        found += [(number, update.role, term) for term in update.losses(batch)]
    return found


def images_like(trainer):
    name = trainer.header["method"]
    return images(name, 5, next(trainer.method.parameters()).dtype)[0]


def poison_loss(trainer, number, term, value):
    """Adds a value to a term of the update of that number, the first time: its gradient stays finite."""
    plain = type(trainer.method).updates
    calls = itertools.count()

    def updates(step):
        found = plain(trainer.method, step)

        def losses(batch):
            terms = found[number].losses(batch)
            if next(calls) == 0:
                terms[term] = terms[term] + value
            return terms

        return [*found[:number], dataclasses.replace(found[number], losses=losses), *found[number + 1 :]]

    trainer.method.updates = updates


def cure(trainer):
    trainer.method.__dict__.pop("updates", None)


def moved(before, after):
    """The roles whose weights or moments differ, and "ema" where the average does; all that is kept is finite."""
    assert all(
        torch.isfinite(x).all() for x in after.values() if torch.is_tensor(x) and x.is_floating_point()
    )
    found = set()
    for key in after:
        if "param_groups" not in key and not (key in before and same({0: before[key]}, {0: after[key]})):
            part, path = key.split("/", 1)
            found.add(part if part == "ema" else path.split("/")[0].split(".")[0])
    return found


OWN = {
    "generator": {"generator", "generators"},
    "discriminator": {"discriminator", "discriminators", "replays"},
}


def may_move(trainer, number):
    """What the earlier updates may move; replay buffers keep finite fakes in any case."""
    roles = [update.role for update in trainer.method.updates(trainer.step)[:number]]
    return {"replays"}.union(*(OWN[role] for role in roles))


def check_skipped(trainer, number, batches, role, wanted):
    """Takes the poisoned step, and checks what it changed and what was reported."""
    before = snapshot(trainer)
    trainer.train_step(batches)
    assert moved(before, snapshot(trainer)) <= may_move(trainer, number), wanted
    skipped, failure = trainer.guard.take()
    assert (skipped, failure.step) == (1, trainer.step)
    assert failure.terms[0] == wanted
    assert {term.split("/")[0] for term in failure.terms} <= {role, "gradient_norm"}


def snapshot(trainer):
    return {k: x.clone() if torch.is_tensor(x) else x for k, x in state(trainer).items()}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_a_loss_that_is_not_finite_moves_nothing(name, tmp_path, step, dtype):
    trainer = started(name, tmp_path, step, on_nonfinite="skip", **in_type(name, dtype))
    # The guard sees float32 under autocast, so that bfloat16 adds nothing to which of the values is met.
    pairs = itertools.product(terms(trainer), VALUES) if dtype == "float64" else with_values(terms(trainer))
    for (number, role, term), value in pairs:
        poison_loss(trainer, number, term, value)
        check_skipped(trainer, number, [images_like(trainer)], role, f"{role}/{term}")
        cure(trainer)


def in_type(name, dtype):
    if dtype == "float64":
        return {}
    return {"method": make_method(name, dtype=torch.float32), "precision": "bfloat16"}


@pytest.mark.parametrize("step", STEPS)
def test_a_gradient_that_is_not_finite_moves_nothing(name, tmp_path, step):
    """In one weight of each network, with finite losses; also a gradient of which only the norm overflows."""
    trainer = started(
        name, tmp_path, step, on_nonfinite="skip", method=make_method(name, dtype=torch.float32)
    )
    for number, update in enumerate(trainer.method.updates(step)):
        for network in trainer.roles[update.role].networks.values():
            for value in (*VALUES, 1e30):
                parameter = list(network.parameters())[-1]
                hook = with_gradient(parameter, value)
                check_skipped(
                    trainer, number, [images_like(trainer)], update.role, f"gradient_norm/{update.role}"
                )
                hook.remove()


def with_gradient(parameter, value):
    """Puts a value into a gradient when a backward pass makes one."""
    with torch.enable_grad():
        parameter.requires_grad_(True)

        def spoil(gradient):
            gradient = gradient.clone()
            gradient.view(-1)[0] = value
            return gradient

        hook = parameter.register_hook(spoil)
        parameter.requires_grad_(False)
    return hook


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_images_that_are_not_finite_are_not_kept(name, tmp_path, dtype):
    """A network that produces them spoils every update that uses it, but no replay buffer."""
    trainer = started(name, tmp_path, on_nonfinite="skip", **in_type(name, dtype))
    for network, value in itertools.product(trainer.method.generators.values(), VALUES):

        def spoil(module, given, output, value=value):
            output = output.clone()
            output[0, 0, 0, 0] = value
            return output

        hook = network.register_forward_hook(spoil)
        before = snapshot(trainer)
        for _ in range(2):  # of two images each, more than the buffers hold
            trainer.train_step([images_like(trainer)])
        hook.remove()
        assert moved(before, snapshot(trainer)) <= {"replays"}
        assert trainer.guard.take()[0] == 2


def test_one_bad_micro_batch_spoils_the_step(name, tmp_path):
    trainer = started(name, tmp_path, on_nonfinite="skip")
    for (number, role, term), value in with_values(terms(trainer)):
        poison_loss(trainer, number, term, value)  # in the first of three
        check_skipped(trainer, number, images(name, 5, count=3), role, f"{role}/{term}")
        cure(trainer)


# torch's compiler accesses .grad in a way that makes torch warn, and hides the warning except under `-W error`.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_compiled_networks_are_guarded_too(name, tmp_path):
    trainer = started(name, tmp_path, on_nonfinite="skip")
    torch._dynamo.reset()
    compile_networks(trainer.method, backend="eager")
    number, role, term = terms(trainer)[-1]
    poison_loss(trainer, number, term, float("nan"))
    check_skipped(trainer, number, [images_like(trainer)], role, f"{role}/{term}")
    torch._dynamo.reset()


@pytest.mark.parametrize("clip", [None, 0.1])
def test_a_skipped_step_has_no_effect(name, tmp_path, clip):
    """Bit by bit, the optimizers' counts of their steps included, where the first update is bad."""
    options = {"on_nonfinite": "skip", "gradient_clip": clip}
    trainers = [started(name, tmp_path, method=make_method(name, replay=0), **options) for _ in range(2)]
    skipping, plain = trainers
    (_, _, term), *_ = terms(skipping)
    poison_loss(skipping, 0, term, float("nan"))
    skipping.train_step([images_like(skipping)])
    assert not moved(state(plain), state(skipping))
    cure(skipping)
    for trainer in trainers:
        trainer.train_step(images(name, 9))
    assert same(state(skipping), state(plain))


def test_a_run_stops_and_reports_where(name, tmp_path):
    """The checkpoint from before is what the run went through; nothing later is written."""
    probe = started(name, tmp_path / "probe", step=6)
    for (number, role, term), value in with_values(terms(probe)):
        folder = tmp_path / f"{number}-{term}"
        trainer = make_trainer(
            name,
            folder,
            endless(name),
            checkpoint_every=3,
            log_every=4,
            images_of=lambda step: {"real_a": [f"a/{step}.png"], "real_b": [f"b/{step}.png"]},
        )
        poison_at(trainer, 6, number, term, value)
        with pytest.raises(TrainingError) as raised:
            trainer.run(12)
        message = str(raised.value)
        assert message.startswith(f"step 7: {role}/{term} not finite, with the images a/6.png, b/6.png")
        assert "step-0000006.pt is from before" in message
        assert "training.on_nonfinite=skip" in message
        assert "\n" not in message
        assert trainer.step == 8
        assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
            "step-0000003.pt",
            "step-0000006.pt",
        ]


def poison_at(trainer, step, number, term, value):
    plain = type(trainer.method).updates

    def updates(now):
        cure(trainer)
        if now == step:
            poison_loss(trainer, number, term, value)
            found = trainer.method.updates(now)
        else:
            found = plain(trainer.method, now)
        trainer.method.updates = updates
        return found

    trainer.method.updates = updates
