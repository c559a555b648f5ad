"""Which picture a draw is, and how it is augmented: pure functions of (seed, stream, draw index)."""

import functools
import hashlib

import numpy as np
import torch
from numpy.typing import NDArray


def mix(*parts: int | str) -> int:
    """A seed of 63 bits that depends on every part, the same on every machine."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def picture_index(seed: int, stream: str, draw: int, count: int) -> int:
    """Which of `count` pictures the stream's draw number `draw` is: each once a round, in a new order every
    round.
    """
    position = draw % count
    return int(_order(seed, stream, draw // count, count)[position])


@functools.lru_cache(maxsize=8)
def _order(seed: int, stream: str, round_number: int, count: int) -> NDArray[np.int32]:
    generator = torch.Generator().manual_seed(mix(seed, stream, round_number))
    # A list would take eight times the memory, of which every loader process has its own.
    return torch.randperm(count, generator=generator).to(torch.int32).numpy()
