"""How long a training will take and how much memory, told from its own first steps."""

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


# Floating-point operations of a run on a GPU, above which compiling its networks, which takes a minute or two, should
# be won back: 10,000 steps of the published CycleGAN at 256 pixels. On a CPU it never is: convolutions take nine tenths
# of a step there, and compiled networks were 1.02 times as fast as plain ones.
_WORTH = 2e16


def resolve_compile(choice: str, device: torch.device, operations: float) -> str:
    """What `compile: auto` means, "always" or "never", for a run of that many floating-point operations.

    Raises SettingsError when "always" was asked for and no compiler works here.
    """
    worth = device.type == "cuda" and operations > _WORTH
    if choice == "never" or (choice == "auto" and not worth):
        return "never"
    reason = _why_not(device)
    if reason is None:
        return "always"
    if choice == "always":
        raise SettingsError(f"compile: always, but torch's compiler does not work here ({reason}); say never")
    log.info(f"not compiled: torch's compiler does not work here ({reason})")
    return "never"


def compile_networks(method: Method, backend: str = "inductor") -> None:
    """Has every trained network compiled at its first call, for each size of batch anew.

    Copies of the networks, the moving average for example, stay as they were written, and so do their weights' names.
    """
    for role in method.roles().values():
        networks = role.networks.values() if isinstance(role.networks, nn.ModuleDict) else [role.networks]
        for network in networks:
            network.compile(dynamic=False, backend=backend)


def _why_not(device: torch.device) -> str | None:
    """Compiles a trifle; what went wrong, in a line."""
    logging.getLogger("torch.utils.cpp_extension").setLevel(
        logging.ERROR
    )  # it warns of a CUDA that is not needed
    try:
        torch.compile(_trifle, dynamic=False)(torch.zeros(8, device=device))
    except Exception as error:  # compilers fail in many ways, all of which mean: not here
        return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
    return None


def _trifle(x: torch.Tensor) -> torch.Tensor:
    return x.sin() + 1


_STEPS = 4  # timed after the first one, which sets everything up


class Forecast:
    """Watches the first steps of a session, from step `start` to step `until`.

    growth: how many times as long as these the steps after a warm-up take.
    """

    def __init__(self, device: torch.device, start: int, until: int, growth: float = 1.0) -> None:
        self._device = device
        self._start, self._until, self._growth = start, until, growth
        self._times: list[float] = []

    def after(self, step: int) -> str | None:
        """To be called after every step; a line about the whole session, once, when enough steps were timed.

        Until then it waits for the device, as nothing else would tell when a step ended.
        """
        if step - self._start > 1 + _STEPS or step >= self._until:
            return None
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._times.append(time.perf_counter())
        if len(self._times) <= _STEPS:
            return None
        # The median, as what else the machine does for a moment says nothing of the whole.
        seconds = median(b - a for a, b in pairwise(self._times)) * self._growth
        steps = self._until - self._start
        total = seconds * steps  # a forecast: seconds no longer matter after minutes
        total = round(total / 60) * 60 if total > 90 else round(total)
        return (
            f"about {format_duration(total)} for {steps} steps of {seconds:.2g} s, and validation; "
            f"{peak_memory(self._device) / 2**30:.1f} GiB of memory"
        )
