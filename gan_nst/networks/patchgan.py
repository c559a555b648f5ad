"""The PatchGAN discriminator (Isola et al. 2017, arXiv:1611.07004, section 3.2.2)."""

from typing import Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from gan_nst.core.errors import SettingsError
from gan_nst.core.settings import Section
from gan_nst.networks.norm import InstanceNorm, initialise


class PatchGanSpec(Section):
    """The spec of a PatchGAN discriminator."""

    name: Literal["patchgan"] = "patchgan"
    width: int = Field(
        64, ge=1, le=1024, description="channels of the first layer; doubled every layer, up to eight times"
    )
    layers: int = Field(
        3, ge=1, le=8, description="stride-2 layers; 3 score patches of 70x70 pixels, 2 of 34x34"
    )


class PatchGan(nn.Module):
    """Scores every patch of an image: (n, 3, h, w) in [-1, 1] to (n, 1, h', w'), without a sigmoid."""

    def __init__(self, spec: PatchGanSpec) -> None:
        super().__init__()
        self.spec = spec
        widths = [spec.width * min(2**number, 8) for number in range(spec.layers + 1)]
        self.first = nn.Conv2d(3, widths[0], 4, stride=2, padding=1)
        self.convolutions = nn.ModuleList()
        self.norms = nn.ModuleList()
        for number in range(1, spec.layers + 1):
            stride = 2 if number < spec.layers else 1
            self.convolutions.append(nn.Conv2d(widths[number - 1], widths[number], 4, stride, 1, bias=False))
            self.norms.append(InstanceNorm(widths[number]))
        self.score = nn.Conv2d(widths[-1], 1, 4, padding=1)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        needed = 2 ** (self.spec.layers + 2)
        if min(image.shape[2:]) < needed:
            raise SettingsError(
                f"a PatchGAN of {self.spec.layers} layers needs images of at least {needed} pixels, got "
                f"{min(image.shape[2:])}; raise data.crop_size or lower method.discriminator.layers"
            )
        x = F.leaky_relu(self.first(image), 0.2)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.leaky_relu(norm(convolution(x)), 0.2)
        scores: Tensor = self.score(x)
        return scores
