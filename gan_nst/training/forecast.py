"""How long a training will take and how much memory, told from its own first steps."""

import time
from itertools import pairwise
from statistics import median

import torch

from gan_nst.core.memory import peak_memory

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
        return (
            f"about {duration(seconds * steps)} for {steps} steps of {seconds:.2g} s, and validation; "
            f"{peak_memory(self._device) / 2**30:.1f} GiB of memory"
        )


def duration(seconds: float) -> str:
    """ "45 s", "12 min", "3 h 20 min", "2 d 5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"
