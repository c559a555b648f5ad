"""Estimates the cost of a run: its operations, whether compiling pays off, and a forecast from its first steps."""

import copy
import logging
import time
from itertools import pairwise
from statistics import median

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gan_nst.core.device import peak_memory
from gan_nst.core.errors import SettingsError, format_duration
from gan_nst.methods.base import Batch, Method

log = logging.getLogger(__name__)


def step_operations(method: Method, step: int, batch_size: int, crop_size: int) -> int:
    """Returns the floating-point operations of the convolutions and matrix products of one micro-batch's step, forward
    and backward.

    It runs on torch's meta device, without data, within milliseconds. Raises SettingsError if the networks cannot take
    crops of that many pixels.
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
    """Takes a step as the trainer does, without the optimizers."""
    roles = method.roles()
    for update in method.updates(step):
        networks = roles[update.role].networks
        networks.requires_grad_(True)
        losses: list[Tensor] = [loss for loss in update.losses(batch).values() if loss.requires_grad]
        if losses:
            torch.stack(losses).sum().backward()
        networks.requires_grad_(False)


# Floating-point operations of a run on a GPU from which compilation, which takes a minute or two, should pay off:
# 10,000 steps of the published CycleGAN at 256 pixels. On a CPU it never does: convolutions take nine tenths of a step
# there, and compiled networks were only 1.02 times as fast.
_PAYS_OFF = 2e16


def resolve_compile(choice: str, device: torch.device, operations: float) -> str:
    """Resolves `compile: auto` to "always" or "never" for a run of that many floating-point operations.

    Raises SettingsError for "always" if torch.compile is unavailable.
    """
    pays_off = device.type == "cuda" and operations > _PAYS_OFF
    if choice == "never" or (choice == "auto" and not pays_off):
        return "never"
    reason = _why_unavailable(device)
    if reason is None:
        return "always"
    if choice == "always":
        raise SettingsError(f"compile=always, but torch.compile is unavailable ({reason}); set compile=never")
    log.info(f"not compiling: torch.compile is unavailable ({reason})")
    return "never"


def compile_networks(method: Method, backend: str = "inductor") -> None:
    """Compiles every trained network at its first call with each batch size.

    Copies of the networks, such as the moving average, are not compiled, and names of weights do not change.
    """
    for role in method.roles().values():
        networks = role.networks.values() if isinstance(role.networks, nn.ModuleDict) else [role.networks]
        for network in networks:
            network.compile(dynamic=False, backend=backend)


def _why_unavailable(device: torch.device) -> str | None:
    """Compiles a tiny function. Returns what went wrong, in one line, or None."""
    # It warns of a missing CUDA that is not needed.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    try:
        torch.compile(_tiny, dynamic=False)(torch.zeros(8, device=device))
    except Exception as error:  # compilers fail in many ways
        return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
    return None


def _tiny(x: torch.Tensor) -> torch.Tensor:
    return x.sin() + 1


_STEPS = 4  # timed after the first step, which sets everything up


class Forecast:
    """Times the first steps of a session from step `start` to step `until`.

    growth: how many times longer steps take after a warm-up.
    """

    def __init__(self, device: torch.device, start: int, until: int, growth: float = 1.0) -> None:
        self._device = device
        self._start, self._until, self._growth = start, until, growth
        self._times: list[float] = []

    def after(self, step: int) -> str | None:
        """Call it after every step. Returns a line about the session once, when enough steps were timed.

        Until then it waits for the device at every step, which is the only way to time one.
        """
        if step - self._start > 1 + _STEPS or step >= self._until:
            return None
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._times.append(time.perf_counter())
        if len(self._times) <= _STEPS:
            return None
        # The median, as a moment's other work on the machine is not typical.
        seconds = median(b - a for a, b in pairwise(self._times)) * self._growth
        steps = self._until - self._start
        total = seconds * steps  # a forecast: seconds no longer matter after minutes
        total = round(total / 60) * 60 if total > 90 else round(total)
        return (
            f"about {format_duration(total)} for {steps} steps of {seconds:.2g} s, and validation; "
            f"{peak_memory(self._device) / 2**30:.1f} GiB of memory"
        )
