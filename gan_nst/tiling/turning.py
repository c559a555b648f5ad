"""A generator for pictures that lie on their side: strips of rows are small where rows are short."""

import copy

import torch

from gan_nst.networks.resnet import ResnetGenerator


def turned(generator: ResnetGenerator) -> ResnetGenerator:
    """A copy that makes of a transposed picture what this one makes of the picture, transposed.

    Everything in it treats rows as it does columns, but its convolutions' weights.
    """
    twin = copy.deepcopy(generator)
    for weight in twin.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.transpose(2, 3).clone(memory_format=torch.preserve_format)
    return twin
