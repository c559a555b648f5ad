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

Entry = Literal["picture", "relu", "add", "add-resize", "relu-resize", "relu-start"]


class ResnetSpec(Section):
    """What a ResNet generator is built from."""

    name: Literal["resnet"] = "resnet"
    width: int = Field(
        64, ge=1, le=1024, description="channels of the first layer; each down-sampling doubles them"
    )
    blocks: int = Field(9, ge=1, le=100, description="residual blocks (published: 9 at 256 pixels, 6 at 128)")
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
        "...-resize": the same, then nearest up-sampling by 2; "relu-start": a ReLU, with the start beside it.
    keep: remembers the convolution's input as the trunk that a later "add" adds to.
    norm: follows the convolution; its statistics are the whole picture's. None after the last segment.
    scale: the resolution of its result, as a share of the picture's.
    halo: pixels of its input, beyond a part's border, that the part's result depends on.
    """

    def __init__(
        self,
        convolution: nn.Conv2d | nn.ConvTranspose2d,
        entry: Entry,
        *,
        scale: float,
        norm: InstanceNorm | None = None,
        padding: int = 0,
        keep: bool = False,
    ) -> None:
        super().__init__()
        self.convolution = convolution
        self.entry = entry
        self.padding = padding
        self.norm = norm
        self.keep = keep
        self.scale = scale
        self.halo = convolution.kernel_size[0] // 2

    def forward(
        self, x: Tensor, trunk: Tensor | None, start: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The result before its norm, and the trunk."""
        if self.entry.startswith("relu"):
            x = F.relu(x)
        elif self.entry.startswith("add"):
            assert trunk is not None
            x = x + trunk
        trunk = x if self.keep else None if self.entry.startswith("add") else trunk
        if self.entry.endswith("start"):
            assert start is not None
            x = torch.cat([x, start.to(x.dtype)], dim=1)
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
    before a plain convolution, and the output may be added to a start in the tanh's own space, so that the
    untrained generator returns the picture, or the smoothed picture.
    """

    def __init__(self, spec: ResnetSpec) -> None:
        super().__init__()
        self.spec = spec
        self.multiple = 2**spec.downsamplings
        self.segments = nn.ModuleDict()
        width, scale = spec.width, 1.0
        self._append("stem", nn.Conv2d(3, width, 7, bias=False), "picture", scale, padding=3)
        for number in range(1, spec.downsamplings + 1):
            scale /= 2
            down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False)
            self._append(f"down{number}", down, "relu", scale)
            width *= 2
        entry: Entry = "relu"
        for number in range(1, spec.blocks + 1):
            first, second = (nn.Conv2d(width, width, 3, bias=False) for _ in range(2))
            self._append(f"block{number}_first", first, entry, scale, padding=1, keep=True)
            self._append(f"block{number}_second", second, "relu", scale, padding=1)
            entry = "add"
        for number in range(1, spec.downsamplings + 1):
            scale *= 2
            if spec.upsampling == "resize":
                up: nn.Conv2d | nn.ConvTranspose2d = nn.Conv2d(width, width // 2, 3, bias=False)
                self._append(
                    f"up{number}", up, "add-resize" if entry == "add" else "relu-resize", scale, padding=1
                )
            else:
                up = nn.ConvTranspose2d(width, width // 2, 3, 2, padding=1, output_padding=1, bias=False)
                self._append(f"up{number}", up, entry, scale)
            width //= 2
            entry = "relu"
        starts = spec.start_from != "nothing"
        tail = nn.Conv2d(width + 3 if starts else width, 3, 7)
        self.segments["tail"] = Segment(tail, "relu-start" if starts else "relu", scale=scale, padding=3)
        initialise(self)
        if starts:
            nn.init.zeros_(tail.weight)

    def forward(self, picture: Tensor) -> Tensor:
        x, trunk, start = picture, None, self._start(picture)
        for segment in self.segments.values():
            assert isinstance(segment, Segment)
            x, trunk = segment(x, trunk, start)
            if segment.norm is not None:
                x = segment.norm(x)
        x = full_precision(x)
        return torch.tanh(x if start is None else x + start)

    def _start(self, picture: Tensor) -> Tensor | None:
        """What the output is added to, before the tanh: the picture, or what of it survives the down-samplings.

        Instance norms forget how colourful a picture is; the start remembers, and the tail sees it too, so that
        colours can be strengthened in proportion. Whoever starts from the whole picture must first learn to cancel
        its texture; whoever starts from the smoothed one draws every line anew.
        """
        if self.spec.start_from == "nothing":
            return None
        if self.spec.start_from == "smoothed":
            picture = F.avg_pool2d(picture, self.multiple)
            picture = F.interpolate(picture, scale_factor=float(self.multiple), mode="bilinear")
        return torch.atanh(0.99 * picture)  # 0.99: the tanh reaches 1 only at infinity

    def _append(
        self,
        name: str,
        convolution: nn.Conv2d | nn.ConvTranspose2d,
        entry: Entry,
        scale: float,
        padding: int = 0,
        keep: bool = False,
    ) -> None:
        norm = InstanceNorm(convolution.out_channels)
        self.segments[name] = Segment(convolution, entry, scale=scale, norm=norm, padding=padding, keep=keep)
