"""Small trainers of every method on random images, and the complete state that they change."""

import torch

from gan_nst.methods import base
from gan_nst.training.settings import TrainingSettings
from gan_nst.training.trainer import Trainer

PLAN = base.Plan(steps=20, steps_per_epoch=4, seed=1)
STEPS = (0, PLAN.steps - 1)  # a warm-up may have other updates
SMALL = {
    "generator": {"width": 4, "blocks": 1},
    "discriminator": {"width": 4, "layers": 2},
    "replay": 2,
    "features": {"network": "random"},
    "warm_up": 0.1,
}


def small(model, wanted=SMALL):
    """Those of the small settings that a method has."""
    fields = {key: model.model_fields[key].annotation for key in wanted if key in model.model_fields}
    return {
        key: small(kind, wanted[key]) if isinstance(wanted[key], dict) else wanted[key]
        for key, kind in fields.items()
    }


def make_method(name, augmented=(), dtype=torch.float64, **changed):
    torch.manual_seed(0)
    kind = base.find(name)
    plain = {**small(kind.Settings, {**SMALL, **changed}), "differentiable_augmentation": augmented}
    return kind(kind.Settings.model_validate(plain), PLAN).to(dtype)


def make_trainer(
    name,
    tmp_path,
    batches=None,
    augmented=(),
    method=None,
    precision="float32",
    images_of=None,
    **training,
):
    method = method or make_method(name, augmented)
    settings = TrainingSettings(**{"steps": PLAN.steps, "epochs": None, "log_every": 1, **training})
    header = {"method": name, "settings": {}, "translations": {}, "data": ""}
    return Trainer(
        method,
        settings,
        batches or (lambda step: iter([])),
        device=torch.device("cpu"),
        precision=precision,
        checkpoints=tmp_path / "checkpoints",
        header=header,
        images_of=images_of,
    )


def micro_batches(name, count=1, size=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    streams = base.find(name).streams
    everything = {
        k: torch.rand(count * size, 3, 16, 16, generator=generator, dtype=torch.float64) * 2 - 1
        for k in streams
    }
    return [{k: x[i * size : (i + 1) * size] for k, x in everything.items()} for i in range(count)]


def endless(name):
    """The batches as a function of the step, like the loader's."""

    def batches(step):
        while True:
            yield micro_batches(name, seed=step)
            step += 1

    return batches


def state(trainer):
    """Everything that must be equal in a resumed run, as one flat mapping."""
    flat = {}

    def add(path, value):
        if isinstance(value, dict):
            for key, inner in value.items():
                add(f"{path}/{key}", inner)
        elif isinstance(value, (list, tuple)):
            for number, inner in enumerate(value):
                add(f"{path}/{number}", inner)
        else:
            flat[path] = value

    add("method", dict(trainer.method.state_dict()))
    add("ema", dict(trainer.ema.networks.state_dict()))
    add("optimizers", {key: optimizer.state_dict() for key, optimizer in trainer.optimizers.items()})
    return flat


def same(first, second):
    if first.keys() != second.keys():
        return False
    pairs = [(first[key], second[key]) for key in first]
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)
