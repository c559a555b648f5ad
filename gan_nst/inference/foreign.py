"""Recognises generators that other projects published by their tensors' names, and converts them to ours.

A layout is a table from their modules to ours. It covers every tensor of its files: a file with one more, one fewer, or
one of another shape is refused.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gan_nst.core.errors import SettingsError, WeightsError
from gan_nst.core.settings import validate
from gan_nst.inference.exported import TrainingScale
from gan_nst.networks import build
from gan_nst.networks.resnet import ResnetSpec


@dataclass(frozen=True)
class Layout:
    """A generator as another project publishes it.

    expected: describes its files, for errors. sign: the tensor that identifies it. spec: our network's spec, without
    width and blocks. modules: returns our module for each of theirs, for a file with these tensor names. bgr: whether
    channels are in that order.
    """

    name: str
    expected: str
    method: str
    sign: str
    spec: dict[str, Any]
    modules: Callable[[Collection[str]], dict[str, str]]
    scale: TrainingScale
    bgr: bool = False


class Foreign(NamedTuple):
    """Another project's generator as ours. network: the spec for `networks.build`. weights: its state dict."""

    layout: Layout
    network: dict[str, Any]
    weights: dict[str, Tensor]


# Have no counterpart where they have no effect: a bias before an instance norm, and the statistics that PyTorch 0.3
# stored but never used.
_WITHOUT_EFFECT = ("bias", "running_mean", "running_var", "num_batches_tracked")


def recognise(weights: Mapping[str, Tensor], where: str) -> Foreign:
    """Converts another project's tensors to a generator of ours. where: their source, for errors.

    Raises WeightsError, which lists the known layouts, for any other tensors.
    """

    def refusal(why: str) -> WeightsError:
        return WeightsError(f"{where}: {why}; expected {EXPECTED}")

    if all(name.startswith("module.") for name in weights):  # saved from torch's DataParallel
        weights = {name.removeprefix("module."): weight for name, weight in weights.items()}
    layout = next((layout for layout in LAYOUTS if layout.sign in weights), None)
    if layout is None:
        first = ", ".join(sorted(weights)[:3]) or "none"
        raise refusal(f"is not a known generator (its first tensors: {first})")
    modules, sign = layout.modules(weights), weights[layout.sign]
    size = {
        "width": len(sign) if sign.ndim else 0,
        "blocks": sum(module.endswith("_first.norm") for module in modules.values()),
    }
    try:
        spec = validate(ResnetSpec, {**size, **layout.spec})
    except SettingsError as error:
        raise refusal(f"looks like {layout.name}, but {error}") from None
    with torch.device("meta"):
        wanted = build(spec).state_dict()
    looks = f"looks like {layout.name} of width {spec.width} with {spec.blocks} blocks"
    found: dict[str, Tensor] = {}
    for theirs, weight in weights.items():
        module, _, part = theirs.rpartition(".")
        ours = f"segments.{modules.get(module)}.{part}"
        if ours not in wanted and module in modules and part in _WITHOUT_EFFECT:
            continue
        if ours not in wanted:
            raise refusal(f"{looks}, but {theirs} is not one of its tensors")
        if weight.shape != wanted[ours].shape:
            shapes = f"{tuple(weight.shape)} instead of {tuple(wanted[ours].shape)}"
            raise refusal(f"{looks}, but {theirs} has the shape {shapes}")
        found[ours] = weight
    for theirs, module in modules.items():
        for part in ("weight", "bias", "scale", "shift"):
            if (ours := f"segments.{module}.{part}") in wanted and ours not in found:
                raise refusal(f"{looks}, but {theirs}.{part} is missing")
    if layout.bgr:  # the stem's input channels, (64, 3, 7, 7), and the tail's output channels, (3, 64, 7, 7)
        found["segments.stem.convolution.weight"] = found["segments.stem.convolution.weight"].flip(1)
        for part in ("weight", "bias"):
            found[f"segments.tail.convolution.{part}"] = found[f"segments.tail.convolution.{part}"].flip(0)
    return Foreign(layout, spec.model_dump(), found)


def _cartoongan(names: Collection[str]) -> dict[str, str]:
    modules = {
        "conv01_1": "stem.convolution",
        "in01_1": "stem.norm",
        "conv02_1": "down1.convolution.0",
        "conv02_2": "down1.convolution.1",
        "in02_1": "down1.norm",
        "conv03_1": "down2.convolution.0",
        "conv03_2": "down2.convolution.1",
        "in03_1": "down2.norm",
        "deconv01_1": "up1.convolution.0",
        "deconv01_2": "up1.convolution.1",
        "in12_1": "up1.norm",
        "deconv02_1": "up2.convolution.0",
        "deconv02_2": "up2.convolution.1",
        "in13_1": "up2.norm",
        "deconv03_1": "tail.convolution",
    }
    for number in range(1, 9):
        for half, name in ((1, "first"), (2, "second")):
            modules[f"conv{number + 3:02}_{half}"] = f"block{number}_{name}.convolution"
            modules[f"in{number + 3:02}_{half}"] = f"block{number}_{name}.norm"
    return modules


def _cyclegan(names: Collection[str]) -> dict[str, str]:
    """Layers are named by position; within blocks, dropout shifts the second convolution by one."""
    blocks = sum(bool(re.fullmatch(r"model\.\d+\.conv_block\.1\.weight", name)) for name in names)
    second = 6 if "model.10.conv_block.6.weight" in names else 5
    end = 10 + blocks
    modules = {f"model.{end + 7}": "tail.convolution"}
    for position, segment in ((1, "stem"), (4, "down1"), (7, "down2"), (end, "up1"), (end + 3, "up2")):
        modules[f"model.{position}"] = f"{segment}.convolution"
        modules[f"model.{position + 1}"] = f"{segment}.norm"
    for number in range(1, blocks + 1):
        for position, name in ((1, "first"), (second, "second")):
            block = f"model.{number + 9}.conv_block"
            modules[f"{block}.{position}"] = f"block{number}_{name}.convolution"
            modules[f"{block}.{position + 1}"] = f"block{number}_{name}.norm"
    return modules


LAYOUTS = (
    Layout(
        name="CartoonGAN",
        expected="CartoonGAN of CartoonGAN-Test-Pytorch-Torch (conv01_1.weight, in01_1.scale to deconv03_1.bias)",
        method="cartoongan",
        sign="conv01_1.weight",
        # That project pads the strided and the second convolutions with zeros, which leaves stains at the borders.
        # The images known to come from the published weights match reflection everywhere.
        spec={
            "convolutions": 2,
            "upsampling": "transposed",
            "padding": "reflect",
            "affine": True,
            "eps": 1e-9,
        },
        modules=_cartoongan,
        scale=TrainingScale(load_size=256, crop_size=256, resize="short_side"),
        bgr=True,
    ),
    Layout(
        name="CycleGAN's ResNet",
        expected="a ResNet generator of pytorch-CycleGAN-and-pix2pix with instance norm, *_net_G*.pth (model.1.weight, "
        "model.10.conv_block.1.weight to model.26.bias with 9 blocks)",
        method="cyclegan",
        sign="model.1.weight",
        spec={"upsampling": "transposed"},
        modules=_cyclegan,
        scale=TrainingScale(load_size=286, crop_size=256, resize="squash"),
    ),
)

EXPECTED = "; or ".join(layout.expected for layout in LAYOUTS)
