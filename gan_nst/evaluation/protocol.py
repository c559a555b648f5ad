"""How a picture becomes a feature network's input: the step that makes FIDs differ from library to library."""

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from gan_nst.images.files import Picture, to_tensor

Protocol = Literal["clean", "legacy"]

DESCRIPTIONS: dict[Protocol, str] = {
    "clean": "anti-aliased bicubic (Pillow) on float values, clipped to 0..255, then (x - 128) / 128",
    "legacy": "bilinear without anti-aliasing (torch) on float values, then 2 x / 255 - 1, as pytorch-fid does",
}


def prepare(picture: Picture, size: int, protocol: Protocol) -> Tensor:
    """A picture, RGB uint8 (h, w, 3), as float32 (3, size, size), about [-1, 1].

    "clean" is Parmar et al. 2022 (arXiv:2104.11222): each channel is resized as floats, so that nothing is rounded,
    with a filter that grows with the scale, so that nothing aliases. "legacy" is what pytorch-fid does, and with it
    most published numbers. Where alpha was, there is white: transparent pixels have no colour to compare.
    """
    if protocol == "legacy":
        x = to_tensor(picture)[None].to(torch.float32) / 255
        return 2 * F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)[0] - 1
    channels = [
        Image.fromarray(np.ascontiguousarray(picture[..., c], np.float32)).resize(
            (size, size), Image.Resampling.BICUBIC
        )
        for c in range(3)
    ]
    values = np.stack([np.asarray(channel) for channel in channels]).clip(0, 255)
    return (torch.from_numpy(values) - 128) / 128
