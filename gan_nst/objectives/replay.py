"""The replay buffer: a history of generated pictures for the discriminator."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class ReplayBuffer(nn.Module):
    """Mixes earlier fakes into what a discriminator sees (Shrivastava et al. 2017, section 2.3, as CycleGAN
    uses it).

    Its pictures and its random generator are saved state, so a resumed run draws what the uninterrupted one
    would.

    A picture that is not finite is never kept: its place holds what was there, while it fills the picture before it
    once more, or at the very first gray.

    capacity: pictures kept; 0 returns every input unchanged.
    seed: of its own random draws.
    """

    def __init__(self, capacity: int, seed: int = 0) -> None:
        super().__init__()
        self.capacity = capacity
        self.pictures: list[Tensor] = []
        self.random = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        """As many pictures as given, (n, c, h, w), each the given one or, half the time once full, an earlier
        one.

        Pictures pass one by one, so two batches of 2 give what one batch of 4 gives. In a distributed run
        every process holds the same buffer, fed with all processes' pictures, and gets back its own share.
        """
        if self.capacity == 0:
            return pictures
        everyones, first = _gather(pictures)
        returned = torch.stack([self._exchange(picture) for picture in everyones])
        return returned[first : first + len(pictures)]

    def _exchange(self, picture: Tensor) -> Tensor:
        if len(self.pictures) < self.capacity:
            last = self.pictures[-1] if self.pictures else torch.zeros_like(picture)
            self.pictures.append(_finite_or(last, picture))
            return picture
        if torch.rand((), generator=self.random) < 0.5:
            return picture
        chosen = int(torch.randint(self.capacity, (), generator=self.random))
        earlier = self.pictures[chosen]
        self.pictures[chosen] = _finite_or(earlier, picture)
        return earlier

    def get_extra_state(self) -> dict[str, Any]:
        return {"pictures": list(self.pictures), "random": self.random.get_state()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        pictures = state["pictures"]
        one_shape = isinstance(pictures, list) and len({x.shape for x in pictures}) <= 1
        if not one_shape or len(pictures) > self.capacity or any(x.dim() != 3 for x in pictures):
            raise ValueError(f"a replay buffer holds other than {self.capacity} pictures of one size")
        self.pictures = list(pictures)
        self.random.set_state(state["random"].cpu())

    def _apply(self, fn: Any, recurse: bool = True) -> "ReplayBuffer":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.pictures = [fn(picture) for picture in self.pictures]
        return self


def _finite_or(instead: Tensor, picture: Tensor) -> Tensor:
    """A copy of the picture, or of the other one where it is not finite, without asking the device which."""
    return torch.where(torch.isfinite(picture).all(), picture, instead)


def _gather(pictures: Tensor) -> tuple[Tensor, int]:
    """All processes' pictures in the order of their ranks, and where this process's own begin."""
    if not (dist.is_available() and dist.is_initialized()):
        return pictures, 0
    pictures = pictures.contiguous()  # what is sent lies in memory as what is received does
    parts = [torch.empty_like(pictures) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, pictures)
    return torch.cat(parts), dist.get_rank() * len(pictures)
