"""The ResNet generators of CycleGAN (Zhu et al. 2017, arXiv:1703.10593, after Johnson et al. 2016) and of CartoonGAN
(Chen et al. 2018).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gan_nst.core.device import full_precision
from gan_nst.core.settings import Section
from gan_nst.networks.norm import InstanceNorm, initialise

Padding = Literal["zeros", "reflect"]
Entry = Literal["image", "relu", "add", "add-resize", "relu-resize", "relu-start"]


class ResnetSpec(Section):
    """The spec of a ResNet generator."""

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
    convolutions: Literal[1, 2] = Field(
        1,
        description="convolutions at every down- and up-sampling; CartoonGAN has a second one without a norm between",
    )
    padding: Padding = Field(
        "zeros",
        description="of the convolutions at down-samplings and after transposed convolutions; all others reflect",
    )
    affine: bool = Field(False, description="a learned scale and shift after every instance norm")
    eps: float = Field(1e-5, gt=0, lt=1, description="added to the variance in every instance norm")
    start_from: Literal["nothing", "image", "smoothed"] = Field(
        "nothing",
        description="what the output is added to before the tanh, so that the untrained generator returns it; "
        "smoothed: the image at the resolution of the residual blocks",
    )


class Segment(nn.Module):
    """The part of a generator between two instance norms: an entry, its convolutions, then (outside) the norm.

    entry: turns the normalised result of the previous segment into the input of this one.
        "image": nothing, the input is the image; "relu": a ReLU; "add": adds the residual branch to the trunk;
        "...-resize": the same, then nearest up-sampling by 2; "relu-start": a ReLU, then the start as more channels.
    keep: the convolutions' input becomes the trunk to which a later "add" adds.
    norm: follows the convolutions; its statistics are of the whole image. None after the last segment.
    scale: the resolution of the result, as a share of the image's.
    halo: pixels of the input, beyond a part's border, on which the part's result depends.
    """

    def __init__(
        self,
        convolution: nn.Module,
        entry: Entry,
        *,
        scale: float,
        halo: int,
        norm: InstanceNorm | None = None,
        keep: bool = False,
    ) -> None:
        super().__init__()
        self.convolution = convolution
        self.entry = entry
        self.norm = norm
        self.keep = keep
        self.scale = scale
        self.halo = halo

    def forward(
        self, x: Tensor, trunk: Tensor | None, start: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Returns the result before its norm, and the trunk."""
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
        return self.convolution(x), trunk


class ResnetGenerator(nn.Module):
    """Maps images to images, (n, 3, h, w) to (n, 3, h, w), both in [-1, 1]; h and w are multiples of `multiple`.

    The layers are CycleGAN's, except that convolutions before an instance norm have no bias (the norm subtracts it,
    so it would only drift), and as the spec says: the up-sampling may resize before a plain convolution; a second
    convolution, without a norm between, may follow every down- and up-sampling, as in CartoonGAN; and the output may
    be added to a start before the tanh, so that the untrained generator returns the image, or the smoothed image.
    """

    def __init__(self, spec: ResnetSpec) -> None:
        super().__init__()
        self.spec = spec
        self.multiple = 2**spec.downsamplings
        self.activation_checkpointing = False  # keep only the inputs of its parts and recompute the rest
        self.segments = nn.ModuleDict()
        width, scale = spec.width, 1.0
        self._append("stem", _convolution(3, width, 7), "image", scale, halo=3)
        for number in range(1, spec.downsamplings + 1):
            scale /= 2
            width *= 2
            self._append(f"down{number}", self._down(width), "relu", scale, halo=1 if self._single else 3)
        entry: Entry = "relu"
        for number in range(1, spec.blocks + 1):
            first, second = (_convolution(width, width, 3) for _ in range(2))
            self._append(f"block{number}_first", first, entry, scale, halo=1, keep=True)
            self._append(f"block{number}_second", second, "relu", scale, halo=1)
            entry = "add"
        for number in range(1, spec.downsamplings + 1):
            scale *= 2
            width //= 2
            if spec.upsampling == "resize":
                entry = "add-resize" if entry == "add" else "relu-resize"
            self._append(f"up{number}", self._up(width), entry, scale, halo=1 if self._single else 2)
            entry = "relu"
        starts = spec.start_from != "nothing"
        tail = _convolution(width + 3 if starts else width, 3, 7, bias=True)
        self.segments["tail"] = Segment(tail, "relu-start" if starts else "relu", scale=scale, halo=3)
        initialise(self)
        if starts:
            nn.init.zeros_(tail.weight)

    def forward(self, image: Tensor) -> Tensor:
        x, trunk, start = image, None, self.start(image)
        for part in self._parts():
            if self.activation_checkpointing and torch.is_grad_enabled():
                x, trunk = checkpoint(_run, part, x, trunk, start, use_reentrant=False)
            else:
                x, trunk = _run(part, x, trunk, start)
        return self.finish(x, start)

    @staticmethod
    def finish(x: Tensor, start: Tensor | None) -> Tensor:
        """Returns the translation, from the last segment's result and the start."""
        x = full_precision(x)
        return torch.tanh(x if start is None else x + start)

    def _parts(self) -> list[list[Segment]]:
        """Returns the segments of the way down, of each residual block, and of the way up."""
        parts: list[list[Segment]] = [[]]
        for segment in self.segments.values():
            assert isinstance(segment, Segment)
            if segment.keep or segment.entry.startswith("add"):
                parts.append([])
            parts[-1].append(segment)
        return parts

    def start(self, image: Tensor) -> Tensor | None:
        """Returns the tensor to which the output is added before the tanh: the image, or what survives of it at the
        resolution of the residual blocks. A part's rows depend on at most 2 * `multiple` rows beyond them.

        Instance norms forget how colourful an image is. The start keeps it, and the tail sees the start too, so that
        colours can be strengthened in proportion. A generator that starts from the image must first learn to cancel
        its texture; one that starts from the smoothed image draws every line itself.
        """
        if self.spec.start_from == "nothing":
            return None
        if self.spec.start_from == "smoothed":
            image = F.avg_pool2d(image, self.multiple)
            image = F.interpolate(image, scale_factor=float(self.multiple), mode="bilinear")
        return torch.atanh(0.99 * image)  # 0.99: the tanh reaches 1 only at infinity

    @property
    def _single(self) -> bool:
        """Whether a down- or up-sampling is one convolution."""
        return self.spec.convolutions == 1

    @property
    def _bias(self) -> bool:
        """Whether the first of two convolutions has a bias, which the norm after the second does not undo where zeros
        pad the border.
        """
        return not self._single and self.spec.padding == "zeros"

    def _down(self, width: int) -> nn.Module:
        """Returns convolutions from half as many channels to `width`, to half the resolution."""
        padding = self.spec.padding
        down = _convolution(width // 2, width, 3, padding, stride=2, bias=self._bias)
        return down if self._single else nn.Sequential(down, _convolution(width, width, 3, padding))

    def _up(self, width: int) -> nn.Module:
        """Returns convolutions from twice as many channels to `width`, to twice the resolution."""
        if self.spec.upsampling == "resize":
            up: nn.Module = _convolution(2 * width, width, 3)
            return up if self._single else nn.Sequential(up, _convolution(width, width, 3))
        up = nn.ConvTranspose2d(2 * width, width, 3, 2, padding=1, output_padding=1, bias=self._bias)
        return up if self._single else nn.Sequential(up, _convolution(width, width, 3, self.spec.padding))

    def _append(
        self, name: str, convolution: nn.Module, entry: Entry, scale: float, halo: int, keep: bool = False
    ) -> None:
        channels = [
            m.out_channels for m in convolution.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)
        ]
        norm = InstanceNorm(channels[-1], self.spec.eps, self.spec.affine)
        self.segments[name] = Segment(convolution, entry, scale=scale, halo=halo, norm=norm, keep=keep)


def _run(
    segments: list[Segment], x: Tensor, trunk: Tensor | None, start: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Applies segments one after the other, each with its norm. Returns the result and the trunk."""
    for segment in segments:
        x, trunk = segment(x, trunk, start)
        if segment.norm is not None:
            x = segment.norm(x)
    return x, trunk


def _convolution(
    inputs: int, outputs: int, size: int, padding: Padding = "reflect", stride: int = 1, bias: bool = False
) -> nn.Conv2d:
    """Returns a convolution of size x size pixels that keeps the resolution, or divides it by the stride."""
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, padding_mode=padding, bias=bias)
