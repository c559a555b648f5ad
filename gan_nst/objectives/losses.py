"""Loss functions: pure functions of tensors, each the mean over its elements, computed in float32 or better."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_nst.core.device import full_precision


def lsgan(scores: Tensor, real: bool) -> Tensor:
    """Least-squares adversarial loss: mean of (score - 1)^2 for real, score^2 for fake (Mao et al. 2017, eq. 2)."""
    scores = full_precision(scores)
    return ((scores - 1) if real else scores).square().mean()


def bce(scores: Tensor, real: bool) -> Tensor:
    """Cross-entropy adversarial loss on raw scores (Goodfellow et al. 2014, non-saturating for the generator)."""
    scores = full_precision(scores)
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, float(real)))


def l1(x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute difference of two tensors of the same shape."""
    return (full_precision(x) - full_precision(y)).abs().mean()


ADVERSARIAL: dict[str, Callable[[Tensor, bool], Tensor]] = {"lsgan": lsgan, "bce": bce}


def together(network: Callable[[Tensor], Tensor], *inputs: Tensor) -> Sequence[Tensor]:
    """Returns the network's outputs for several inputs of shape (n, c, h, w), in one pass instead of one each.

    The numbers are the same as long as the network processes images independently, as with instance norm.
    """
    return torch.split(network(torch.cat(inputs)), [len(x) for x in inputs])
