"""What the instance norms of a film's frames are normalised by: the statistics of the last frames together.

An instance norm sees its own frame alone, so that whatever enters or leaves the picture shifts the colours of all the
rest, and noise makes them tremble. Shared statistics move slowly.

One norm shares them, the last: it decides the colours. Shared by all norms, a frame's difference from its window is no
longer taken out by any, grows from layer to layer, and the film flickers more than without (measured: with CartoonGAN's
generator the mean colour of the frames then moves by 1.9 levels a frame instead of 1.0; with the last norm's, by 0.6).
"""

from collections import deque

import torch
from torch import Tensor


class Window:
    """Statistics, for Translator.translate, of each frame and the `length` - 1 before it; 1: of the frame alone.

    norm: the name of the one that shares them. The frames come in their order, any number at a time.
    """

    def __init__(self, length: int, norm: str) -> None:
        self.norm = norm
        self._kept: deque[tuple[Tensor, Tensor]] = deque(maxlen=length)

    def reset(self) -> None:
        """Forgets the frames so far: at a cut."""
        self._kept.clear()

    def __call__(self, name: str, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the biased variance of all pixels of each frame's window; (n, c) in and out.

        name: of the norm. By the law of total variance: the mean of the frames' variances, and the variance of their
        means.
        """
        if name != self.norm:
            return mean, variance
        pooled = []
        for frame in zip(mean, variance, strict=True):
            self._kept.append(frame)
            means, variances = (torch.stack(one) for one in zip(*self._kept, strict=True))
            centre = means.mean(0)
            pooled.append((centre, variances.mean(0) + (means - centre).square().mean(0)))
        means, variances = (torch.stack(one) for one in zip(*pooled, strict=True))
        return means, variances
