"""Networks and a translator so simple that their results are known."""

import numpy as np
import pytest
from torch import nn

from gan_nst.core.errors import CheckpointError
from gan_nst.inference.exported import Description, TrainingScale
from gan_nst.inference.translator import Translator


class Shift(nn.Module):
    """Moves every pixel towards white."""

    multiple = 8

    def forward(self, x):
        return (x + 0.25).clamp(-1, 1)


class Blur(nn.Module):
    """The mean of each pixel's 3x3 neighbourhood; `multiple` pretends that it down-samples."""

    def __init__(self, multiple=4):
        super().__init__()
        self.multiple = multiple
        self.seen = []

    def forward(self, x):
        self.seen.append(tuple(x.shape))
        return nn.functional.avg_pool2d(x, 3, 1, 1)


def describe(load_size=32):
    return Description(
        network={},
        translation="ab",
        training_scale=TrainingScale(load_size=load_size, crop_size=load_size),
        method="cyclegan",
    )


def translator(network, load_size=32, precision="float32"):
    return Translator(network, describe(load_size), device="cpu", precision=precision)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def refusal(load, path):
    """Asserts that a file is refused in one line that names it; returns the message."""
    with pytest.raises(CheckpointError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message
