"""What a generator costs: parameters, multiply-adds and time a picture."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gan_nst.images.files import Picture


@dataclass(frozen=True)
class Cost:
    """parameters: their number. multiply_adds and milliseconds: for one picture of size x size pixels."""

    parameters: int
    multiply_adds: int
    milliseconds: float
    size: int


@torch.inference_mode()
def generator_cost(
    generator: nn.Module, translate: Callable[[Picture], Picture], size: int, repeats: int = 7
) -> Cost:
    """The cost of one picture of size x size pixels.

    translate: from a picture to its translation; its median time over `repeats` runs is taken.
    """
    device = next(generator.parameters()).device
    counter = FlopCounterMode(display=False)
    with counter:
        generator(torch.zeros(1, 3, size, size, device=device))
    picture: Picture = np.full((size, size, 3), 128, np.uint8)
    translate(picture)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        translate(picture)
        times.append(time.perf_counter() - start)
    parameters = sum(p.numel() for p in generator.parameters())
    return Cost(parameters, counter.get_total_flops() // 2, median(times) * 1000, size)
