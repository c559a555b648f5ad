"""A method of one layer, for tests of the training loop."""

import torch
from torch import nn

from gan_nst.core.settings import Section
from gan_nst.methods.base import Method, MethodSettings, Role, Translation, Update
from gan_nst.training.settings import TrainingSettings
from gan_nst.training.trainer import Trainer

CPU = torch.device("cpu")


class Toy(Method):
    """One linear generator that fits 2 x, and draws from torch's own generator as a dropout would.

    poison: steps, and what becomes of the loss "bad" there.
    """

    Settings = Section
    paper = "none"
    streams = {}

    def __init__(self, poison=None):
        super().__init__(MethodSettings(), None)
        self.generators = nn.ModuleDict({"ab": nn.Linear(3, 3, bias=False)})
        self.step_count = 0
        self.poison = poison

    def roles(self):
        return {"generator": Role(self.generators, lambda step: 1e-2, (0.5, 0.999))}

    def updates(self, step):
        self.step_count = step
        return [Update("generator", self.losses)]

    def translations(self):
        return {"ab": Translation("ab", "a", "b")}

    def losses(self, batch):
        noise = torch.rand(3)
        good = (self.generators["ab"](batch["x"]) - 2 * batch["x"] - 0.01 * noise).square().mean()
        bad = good * 0.1
        if self.poison is not None and self.step_count in self.poison[0]:
            bad = self.poison[1](bad)
        return {"good": good, "bad": bad}


def batches(step):
    while True:
        generator = torch.Generator().manual_seed(step)
        yield [{"x": torch.randn(4, 3, generator=generator)}]
        step += 1


def make_trainer(tmp_path, poison=None, stream=batches, method=None, images_of=None, **settings):
    torch.manual_seed(0)
    header = {"method": "toy", "settings": {}, "translations": {}, "data": ""}
    plain = {"steps": 100, "epochs": None, "log_every": 10, "checkpoint_every": 1000, "ema": 0.9, **settings}
    return Trainer(
        method or Toy(poison),
        TrainingSettings.model_validate(plain),
        stream,
        device=CPU,
        precision="float32",
        checkpoints=tmp_path / "checkpoints",
        header=header,
        images_of=images_of,
    )
