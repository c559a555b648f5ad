"""Times of several ways to do the same, taken in turns: whatever slows the machine down for a while slows them all."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import torch

_LEAST = 3  # rounds that are taken however slow they are


@dataclass(frozen=True)
class Times:
    """seconds: of one call, by candidate; the median of so many rounds."""

    seconds: dict[str, float]
    rounds: int


def interleaved(
    candidates: Mapping[str, Callable[[], object]],
    rounds: int,
    warm: int = 1,
    *,
    calls: int = 1,
    budget: float = math.inf,
    wait: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Times:
    """The median seconds of a call of each candidate. A round gives each of them one turn.

    warm: rounds before the first that counts. calls: in one turn. budget: seconds after which no further round begins,
    of those beyond the third. wait: returns when the device has done what it was given.
    """
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    spent = 0.0
    for number in range(-warm, rounds):
        if number >= _LEAST and spent * (number + 1) / number > budget:
            break
        for name, candidate in candidates.items():
            wait()
            began = clock()
            for _ in range(calls):
                candidate()
            wait()
            seconds = clock() - began
            if number >= 0:
                taken[name].append(seconds / calls)
                spent += seconds
    medians = {name: median(seconds) for name, seconds in taken.items()}
    return Times(medians, min(map(len, taken.values())))


def waiting(device: torch.device) -> Callable[[], None]:
    """What waits until a device has done what it was given; the CPU has done it when a call returns."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    if device.type == "mps":
        return torch.mps.synchronize
    return lambda: None
