"""The discriminator of CartoonGAN (Chen et al. 2018, CVPR, section 3.1), which scores edges, not whole images."""

from typing import Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from gan_nst.core.settings import Section
from gan_nst.networks.norm import InstanceNorm


class CartoonDiscriminatorSpec(Section):
    """The spec of a CartoonGAN discriminator."""

    name: Literal["cartoon"] = "cartoon"
    width: int = Field(32, ge=1, le=1024, description="channels of the first layer")
    downsamplings: int = Field(
        2, ge=0, le=5, description="stride-2 layers; 2 score patches of 37x37 pixels, 1 of 17x17"
    )


class CartoonDiscriminator(nn.Module):
    """Scores every patch of an image: (n, 3, h, w) in [-1, 1] to (n, 1, h', w'), without a sigmoid.

    A convolution, then for every down-sampling one with stride 2 and one without, then one more. All but the first and
    those with stride 2 are followed by an instance norm. Weights keep torch's initialisation: with the other networks'
    deviation of 0.02, layers without a norm pass on next to nothing, and on photographs it never beat chance.
    """

    def __init__(self, spec: CartoonDiscriminatorSpec) -> None:
        super().__init__()
        self.spec = spec
        self.first = nn.Conv2d(3, spec.width, 3, padding=1)
        self.convolutions = nn.ModuleList()
        width = spec.width
        for number in range(spec.downsamplings):
            down = 2 * spec.width if number == 0 else width
            wider = 2 * down
            self._append(nn.Conv2d(width, down, 3, stride=2, padding=1))
            self._append(nn.Conv2d(down, wider, 3, padding=1, bias=False))
            width = wider
        self._append(nn.Conv2d(width, width, 3, padding=1, bias=False))
        self.score = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        x = F.leaky_relu(self.first(image), 0.2)
        for layer in self.convolutions:
            x = F.leaky_relu(layer(x), 0.2)
        scores: Tensor = self.score(x)
        return scores

    def _append(self, convolution: nn.Conv2d) -> None:
        """Adds a convolution, and a norm after it if it has no bias."""
        normed = convolution.bias is None
        norm = InstanceNorm(convolution.out_channels) if normed else nn.Identity()
        self.convolutions.append(nn.Sequential(convolution, norm))
