"""Recognises generators that other projects published by their tensors' names, and converts them to ours.

A layout is a table from our segments to the names of their tensors. It covers every tensor of its files: a file with
one more, one fewer, or one of another shape is refused.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gan_nst.core.errors import SettingsError, WeightsError
from gan_nst.core.settings import validate
from gan_nst.inference.exported import TrainingScale
from gan_nst.networks import build
from gan_nst.networks.resnet import ResnetSpec

Row = tuple[str, tuple[str, ...], str]  # our segment; their names for its convolutions and its norm


@dataclass(frozen=True)
class Layout:
    """A generator as another project publishes it.

    expected: describes its files, for errors. sign: the tensor that identifies it. spec: our network's spec, without
    width and blocks. rows: returns the table for a file with these tensor names. norm: the tensors that a norm may
    have. bgr: whether channels are in that order. Tensors without a counterpart in our network are ignored: a bias
    before an instance norm, statistics that no norm uses.
    """

    name: str
    expected: str
    method: str
    sign: str
    spec: dict[str, Any]
    rows: Callable[[Collection[str]], list[Row]]
    norm: tuple[str, ...]
    scale: TrainingScale
    bgr: bool = False


@dataclass(frozen=True)
class Foreign:
    """Another project's generator as ours. network: the spec for `networks.build`. weights: its state dict."""

    layout: Layout
    network: dict[str, Any]
    weights: dict[str, Tensor]


def recognise(weights: Mapping[str, Tensor], where: str) -> Foreign:
    """Converts another project's tensors to a generator of ours. where: their source, for errors.

    Raises WeightsError, which lists the known layouts, for any other tensors.
    """
    if all(name.startswith("module.") for name in weights):  # saved from torch's DataParallel
        weights = {name.removeprefix("module."): weight for name, weight in weights.items()}
    layout = next((layout for layout in LAYOUTS if layout.sign in weights), None)
    try:
        _refuse_relatives(weights)
        if layout is None:
            first = ", ".join(sorted(weights)[:3]) or "none"
            raise _Unlike(f"is not a known generator (its first tensors: {first})")
        return _convert(weights, layout)
    except _Unlike as reason:
        raise WeightsError(f"{where}: {reason}; expected {EXPECTED}") from None


class _Unlike(Exception):
    """The reason why tensors are not a generator of a known layout."""


def _refuse_relatives(weights: Mapping[str, Tensor]) -> None:
    for pattern, relative in RELATIVES:
        name = next((name for name in weights if re.fullmatch(pattern, name)), None)
        if name is not None:
            raise _Unlike(f"looks like {relative} ({name})")


def _convert(weights: Mapping[str, Tensor], layout: Layout) -> Foreign:
    rows, sign = layout.rows(weights), weights[layout.sign]
    width = len(sign) if sign.ndim else 0
    blocks = sum(segment.endswith("_first") for segment, _, _ in rows)
    try:
        spec = validate(ResnetSpec, {"width": width, "blocks": blocks, **layout.spec})
    except SettingsError as error:
        raise _Unlike(f"looks like {layout.name}, but {error}") from None
    with torch.device("meta"):
        wanted = build(spec).state_dict()
    names, converted = _names(layout, rows), {}
    for theirs, weight in weights.items():
        if theirs not in names:
            raise _Unlike(f"looks like {layout.name}, but {theirs} is not one of its tensors")
        ours = names[theirs]
        if ours not in wanted:
            continue
        if weight.shape != wanted[ours].shape:
            shapes = f"{tuple(weight.shape)} instead of {tuple(wanted[ours].shape)}"
            raise _Unlike(f"looks like {layout.name} of width {width}, but {theirs} has the shape {shapes}")
        converted[ours] = weight
    missing = next((t for t, ours in names.items() if ours in wanted and ours not in converted), None)
    if missing is not None:
        raise _Unlike(f"looks like {layout.name} with {blocks} blocks, but {missing} is missing")
    if layout.bgr:
        _swap_red_and_blue(converted)
    return Foreign(layout, spec.model_dump(), converted)


def _names(layout: Layout, rows: list[Row]) -> dict[str, str]:
    """Our name for each of their tensor names."""
    names: dict[str, str] = {}
    for segment, convolutions, norm in rows:
        for number, theirs in enumerate(convolutions):
            ours = f"segments.{segment}.convolution" + (f".{number}" if len(convolutions) > 1 else "")
            names |= {f"{theirs}.{part}": f"{ours}.{part}" for part in ("weight", "bias")}
        if norm:
            names |= {f"{norm}.{part}": f"segments.{segment}.norm.{part}" for part in layout.norm}
    return names


def _swap_red_and_blue(weights: dict[str, Tensor]) -> None:
    """Swaps the input channels of the stem, (64, 3, 7, 7), and the output channels of the tail, (3, 64, 7, 7)."""
    weights["segments.stem.convolution.weight"] = weights["segments.stem.convolution.weight"].flip(1)
    for name in ("segments.tail.convolution.weight", "segments.tail.convolution.bias"):
        weights[name] = weights[name].flip(0)


def _cartoongan(names: Collection[str]) -> list[Row]:
    body: list[Row] = []
    for number in range(1, 9):
        at = f"{number + 3:02}"
        body.append((f"block{number}_first", (f"conv{at}_1",), f"in{at}_1"))
        body.append((f"block{number}_second", (f"conv{at}_2",), f"in{at}_2"))
    return [
        ("stem", ("conv01_1",), "in01_1"),
        ("down1", ("conv02_1", "conv02_2"), "in02_1"),
        ("down2", ("conv03_1", "conv03_2"), "in03_1"),
        *body,
        ("up1", ("deconv01_1", "deconv01_2"), "in12_1"),
        ("up2", ("deconv02_1", "deconv02_2"), "in13_1"),
        ("tail", ("deconv03_1",), ""),
    ]


def _cyclegan(names: Collection[str]) -> list[Row]:
    """Layers are named by position; within blocks, dropout shifts the second convolution by one."""
    blocks = sum(bool(re.fullmatch(r"model\.\d+\.conv_block\.1\.weight", name)) for name in names)
    second = 6 if "model.10.conv_block.6.weight" in names else 5
    body: list[Row] = []
    for number in range(1, blocks + 1):
        at = f"model.{number + 9}.conv_block"
        body.append((f"block{number}_first", (f"{at}.1",), f"{at}.2"))
        body.append((f"block{number}_second", (f"{at}.{second}",), f"{at}.{second + 1}"))
    end = 10 + blocks
    return [
        ("stem", ("model.1",), "model.2"),
        ("down1", ("model.4",), "model.5"),
        ("down2", ("model.7",), "model.8"),
        *body,
        ("up1", (f"model.{end}",), f"model.{end + 1}"),
        ("up2", (f"model.{end + 3}",), f"model.{end + 4}"),
        ("tail", (f"model.{end + 7}",), ""),
    ]


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
        rows=_cartoongan,
        norm=("scale", "shift"),
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
        rows=_cyclegan,
        norm=("running_mean", "running_var", "num_batches_tracked"),  # PyTorch 0.3 stored but never used them
        scale=TrainingScale(load_size=286, crop_size=256, resize="squash"),
    ),
)

EXPECTED = "; or ".join(layout.expected for layout in LAYOUTS)

# Other networks of the same projects, recognised by a tensor that only they have.
RELATIVES = (
    (r"model\.model\..*", "a U-Net"),
    (r"model\.0\.weight", "a PatchGAN, a discriminator"),
    (r"model\.\d+\.filt", "an anti-aliased ResNet, CUT's default"),
    (r"model\.2\.weight", "a ResNet with learned norms: batch norm, or affine instance norm"),
)
