"""The ResNet generator of CycleGAN (Zhu et al. 2017, arXiv:1703.10593, after Johnson et al. 2016)."""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from gan_nst.config import Section
from gan_nst.networks.initialise import initialise
from gan_nst.networks.norm import InstanceNorm
from gan_nst.precision import full_precision

Entry = Literal["picture", "relu", "add", "add-resize", "relu-resize"]


class ResnetSpec(Section):
    """What a ResNet generator is built from."""

    name: Literal["resnet"] = "resnet"
    width: int = Field(64, ge=1, description="channels of the first layer; each down-sampling doubles them")
    blocks: int = Field(9, ge=1, description="residual blocks (published: 9 at 256 pixels, 6 at 128)")
    downsamplings: int = Field(
        2, ge=1, le=5, description="stride-2 convolutions on the way in, and their mirror"
    )
    upsampling: Literal["resize", "transposed"] = Field(
        "resize", description="resize: nearest then convolution, no checkerboard; transposed: as published"
    )
    start_from: Literal["nothing", "picture", "smoothed"] = Field(
        "nothing",
        description="what the output is added to, in the tanh's own space, so that the untrained generator returns it; "
        "smoothed: the picture at the resolution of the residual blocks",
    )


class Segment(nn.Module):
    """The part of a generator between two instance norms: an entry, one convolution, then (outside) the norm.

    entry: what turns the normalised result of the previous segment into this one's input.
        "picture": nothing, it is the picture; "relu": a ReLU; "add": add the residual branch to the trunk;
        "...-resize": the same, then nearest up-sampling by 2.
    keep: remembers the convolution's input as the trunk that a later "add" adds to.
    norm: follows the convolution; its statistics are the whole picture's. None after the last segment.
    """

    def __init__(
        self,
        convolution: nn.Module,
        entry: Entry,
        padding: int,
        norm: InstanceNorm | None,
        keep: bool = False,
    ):
        super().__init__()
        self.convolution = convolution
        self.entry = entry
        self.padding = padding
        self.norm = norm
        self.keep = keep

    def forward(self, x: Tensor, trunk: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The result before its norm, and the trunk."""
        if self.entry.startswith("relu"):
            x = F.relu(x)
        elif self.entry.startswith("add"):
            assert trunk is not None
            x = x + trunk
        trunk = x if self.keep else None if self.entry.startswith("add") else trunk
        if self.entry.endswith("resize"):
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        if self.padding:
            x = F.pad(x, (self.padding,) * 4, mode="reflect")
        return self.convolution(x), trunk


class ResnetGenerator(nn.Module):
    """Maps pictures to pictures, (n, 3, h, w) to (n, 3, h, w), both in [-1, 1]; h and w multiples of
    `multiple`.

    The layers are CycleGAN's but for three things, each chosen by the spec but the first: convolutions before
    an instance norm have no bias (the norm subtracts it, so it would only drift), the up-sampling may resize
    before a plain convolution, and the output may be added to the picture in the tanh's own space, so that
    the untrained generator returns its input.
    """

    def __init__(self, spec: ResnetSpec) -> None:
        super().__init__()
        self.spec = spec
        self.multiple = 2**spec.downsamplings
        self.segments = nn.ModuleDict()
        width = spec.width
        self._append("stem", nn.Conv2d(3, width, 7, bias=False), "picture", padding=3)
        for number in range(1, spec.downsamplings + 1):
            down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False)
            self._append(f"down{number}", down, "relu")
            width *= 2
        entry: Entry = "relu"
        for number in range(1, spec.blocks + 1):
            self._append(
                f"block{number}_first", nn.Conv2d(width, width, 3, bias=False), entry, padding=1, keep=True
            )
            self._append(f"block{number}_second", nn.Conv2d(width, width, 3, bias=False), "relu", padding=1)
            entry = "add"
        for number in range(1, spec.downsamplings + 1):
            if spec.upsampling == "resize":
                resized: Entry = "add-resize" if entry == "add" else "relu-resize"
                self._append(f"up{number}", nn.Conv2d(width, width // 2, 3, bias=False), resized, padding=1)
            else:
                up = nn.ConvTranspose2d(
                    width, width // 2, 3, stride=2, padding=1, output_padding=1, bias=False
                )
                self._append(f"up{number}", up, entry)
            width //= 2
            entry = "relu"
        tail = nn.Conv2d(width, 3, 7)
        self.segments["tail"] = Segment(tail, "relu", 3, None)
        initialise(self)
        if spec.start_from != "nothing":
            nn.init.zeros_(tail.weight)

    def forward(self, picture: Tensor) -> Tensor:
        x, trunk = picture, None
        for segment in self.segments.values():
            assert isinstance(segment, Segment)
            x, trunk = segment(x, trunk)
            if segment.norm is not None:
                x = segment.norm(x)
        x = full_precision(x)
        if self.spec.start_from != "nothing":
            x = x + torch.atanh(0.99 * self._start(picture))  # 0.99: the tanh reaches 1 only at infinity
        return torch.tanh(x)

    def _start(self, picture: Tensor) -> Tensor:
        """The picture, or what of it survives the down-samplings.

        A generator that starts from the whole picture must first learn to cancel its texture; one that starts from
        the smoothed picture has the colours right at once and draws every line itself.
        """
        if self.spec.start_from == "picture":
            return picture
        reduced = F.avg_pool2d(picture, self.multiple)
        return F.interpolate(reduced, scale_factor=float(self.multiple), mode="bilinear")

    def _append(
        self,
        name: str,
        convolution: nn.Conv2d | nn.ConvTranspose2d,
        entry: Entry,
        padding: int = 0,
        keep: bool = False,
    ) -> None:
        norm = InstanceNorm(convolution.out_channels)
        self.segments[name] = Segment(convolution, entry, padding, norm, keep)
