"""The replay buffer: a history of generated images for the discriminator."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class ReplayBuffer(nn.Module):
    """Mixes earlier fakes into what a discriminator sees (Shrivastava et al. 2017, section 2.3, as CycleGAN
    uses it).

    Its images and its random generator are saved state, so a resumed run draws what the uninterrupted one
    would.

    An image that is not finite is never kept: its place holds what was there, while it fills the image before it
    once more, or at the very first gray.

    capacity: images kept; 0 returns every input unchanged.
    seed: of its own random draws.
    """

    def __init__(self, capacity: int, seed: int = 0) -> None:
        super().__init__()
        self.capacity = capacity
        self.images: list[Tensor] = []
        self.random = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """As many images as given, (n, c, h, w), each the given one or, half the time once full, an earlier
        one.

        Images pass one by one, so two batches of 2 give what one batch of 4 gives. In a distributed run
        every process holds the same buffer, fed with all processes' images, and gets back its own share.
        """
        if self.capacity == 0:
            return images
        everyones, first = _gather(images)
        returned = torch.stack([self._exchange(image) for image in everyones])
        return returned[first : first + len(images)]

    def _exchange(self, image: Tensor) -> Tensor:
        if len(self.images) < self.capacity:
            last = self.images[-1] if self.images else torch.zeros_like(image)
            self.images.append(_finite_or(last, image))
            return image
        if torch.rand((), generator=self.random) < 0.5:
            return image
        chosen = int(torch.randint(self.capacity, (), generator=self.random))
        earlier = self.images[chosen]
        self.images[chosen] = _finite_or(earlier, image)
        return earlier

    def get_extra_state(self) -> dict[str, Any]:
        return {"images": list(self.images), "random": self.random.get_state()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        images = state["images"]
        one_shape = isinstance(images, list) and len({x.shape for x in images}) <= 1
        if not one_shape or len(images) > self.capacity or any(x.dim() != 3 for x in images):
            raise ValueError(f"a replay buffer holds other than {self.capacity} images of one size")
        self.images = list(images)
        self.random.set_state(state["random"].cpu())

    def _apply(self, fn: Any, recurse: bool = True) -> "ReplayBuffer":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.images = [fn(image) for image in self.images]
        return self


def _finite_or(instead: Tensor, image: Tensor) -> Tensor:
    """A copy of the image, or of the other one where it is not finite, without asking the device which."""
    return torch.where(torch.isfinite(image).all(), image, instead)


def _gather(images: Tensor) -> tuple[Tensor, int]:
    """All processes' images in the order of their ranks, and where this process's own begin."""
    if not (dist.is_available() and dist.is_initialized()):
        return images, 0
    images = images.contiguous()  # what is sent lies in memory as what is received does
    parts = [torch.empty_like(images) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, images)
    return torch.cat(parts), dist.get_rank() * len(images)
