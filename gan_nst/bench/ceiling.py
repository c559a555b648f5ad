"""What the processor can do at most: the rates of one large convolution and of one large matrix product."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F

from gan_nst.bench.clock import interleaved, waiting

_LONG_ENOUGH = 0.1  # seconds; a larger batch is no faster
_REPEATS = 3

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@contextmanager
def fastest_float32(device: torch.device) -> Iterator[None]:
    """Within it CUDA may try convolution algorithms (cudnn.benchmark) and compute float32 in TF32."""
    if device.type != "cuda":
        yield
        return
    cudnn, before = torch.backends.cudnn, torch.get_float32_matmul_precision()
    tries, allows = cudnn.benchmark, cudnn.allow_tf32
    cudnn.benchmark, cudnn.allow_tf32 = True, True
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.allow_tf32 = tries, allows
        torch.set_float32_matmul_precision(before)


@torch.inference_mode()
def convolution_rate(
    precision: str, device: torch.device, *, channels: int = 256, side: int = 128, largest_batch: int = 64
) -> float:
    """GFLOP/s of a 3x3 convolution, forward, in its better layout and at its best batch.

    channels: in and out. side: of the image in pixels.
    """
    dtype = DTYPES[precision]
    operations = 2 * 9 * channels**2 * side**2
    best = 0.0
    for layout in (torch.contiguous_format, torch.channels_last):
        weight = torch.randn(channels, channels, 3, 3, dtype=dtype, device=device).to(memory_format=layout)
        batch, seconds = 1, 0.0
        while batch <= largest_batch and seconds < _LONG_ENOUGH:
            x = torch.randn(batch, channels, side, side, dtype=dtype, device=device).to(memory_format=layout)
            seconds = _seconds(lambda x=x, weight=weight: F.conv2d(x, weight, padding=1), device)  # type: ignore[misc]
            best = max(best, batch * operations / seconds / 1e9)
            batch *= 2
    return best


@torch.inference_mode()
def matrix_product_rate(precision: str, device: torch.device, *, side: int) -> float:
    """GFLOP/s of the product of two square matrices."""
    x, y = (torch.randn(side, side, dtype=DTYPES[precision], device=device) for _ in range(2))
    return 2 * side**3 / _seconds(lambda: x @ y, device) / 1e9


def _seconds(operation: Callable[[], object], device: torch.device) -> float:
    with fastest_float32(device):
        times = interleaved({"": operation}, _REPEATS, wait=waiting(device))
    return times.seconds[""]
