"""The replay buffer: a history of generated images for the discriminator."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class ReplayBuffer(nn.Module):
    """Mixes earlier fakes into the input of a discriminator (Shrivastava et al. 2017, section 2.3, as CycleGAN does).

    Its images and its random generator are saved state, so that a resumed run draws what the uninterrupted one would.
    An image that is not finite is never stored: the old image stays in its place, or, while the buffer fills up, the
    image before it is stored again (gray, if it is the first).

    capacity: images stored; 0 returns every input unchanged.
    seed: of its random numbers.
    """

    def __init__(self, capacity: int, seed: int = 0) -> None:
        super().__init__()
        self.capacity = capacity
        self.images: list[Tensor] = []
        self.random = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Returns as many images as given, (n, c, h, w): each is the given one or, half the time once full, an earlier
        one.

        Images are exchanged one by one, so two batches of 2 give the same as one batch of 4. In a distributed run,
        every process has the same buffer, fed with the images of all processes, and returns its own share.
        """
        if self.capacity == 0:
            return images
        gathered, first = _gather(images)
        returned = torch.stack([self._exchange(image) for image in gathered])
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
            raise ValueError(f"expected a replay buffer of at most {self.capacity} images of one size")
        self.images = list(images)
        self.random.set_state(state["random"].cpu())

    def _apply(self, fn: Any, recurse: bool = True) -> "ReplayBuffer":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.images = [fn(image) for image in self.images]
        return self


def _finite_or(instead: Tensor, image: Tensor) -> Tensor:
    """Returns a copy of the image, or of the other one if it is not finite, without waiting for the device."""
    return torch.where(torch.isfinite(image).all(), image, instead)


def _gather(images: Tensor) -> tuple[Tensor, int]:
    """Returns the images of all processes by rank, and the index of this process's first one."""
    # Not every backend gathers meta tensors, with which operations are counted.
    if images.is_meta or not (dist.is_available() and dist.is_initialized()):
        return images, 0
    images = images.contiguous()  # what is sent must have the layout of what is received
    parts = [torch.empty_like(images) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, images)
    return torch.cat(parts), dist.get_rank() * len(images)
