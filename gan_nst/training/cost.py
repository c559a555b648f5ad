"""What a step costs, known before the first one is taken."""

import copy

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from gan_nst.core.errors import SettingsError
from gan_nst.methods.base import Batch, Method


def step_operations(method: Method, step: int, batch_size: int, crop_size: int) -> int:
    """Floating-point operations of the convolutions and matrix products of one micro-batch's step, forward and
    backward.

    It runs on torch's meta device, without data: it takes neither memory nor, but for milliseconds, time. Raises
    SettingsError when the networks cannot take crops of that many pixels.
    """
    trial = copy.deepcopy(method).to("meta")
    trial.requires_grad_(False)
    size = (batch_size, 3, crop_size, crop_size)
    batch: Batch = {key: torch.zeros(size, device="meta") for key in method.streams}
    try:
        with FlopCounterMode(display=False) as counter:
            _take(trial, step, batch)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise SettingsError(
            f"data.crop_size: the networks cannot take crops of {crop_size} pixels ({reason})"
        ) from None
    return int(counter.get_total_flops())


def _take(method: Method, step: int, batch: Batch) -> None:
    """The step as the trainer takes it, without the optimizers."""
    roles = method.roles()
    for update in method.updates(step):
        networks = roles[update.role].networks
        networks.requires_grad_(True)
        losses: list[Tensor] = [loss for loss in update.losses(batch).values() if loss.requires_grad]
        if losses:
            torch.stack(losses).sum().backward()
        networks.requires_grad_(False)
