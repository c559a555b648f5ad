"""Sample grids: fixed images of both domains and their translations, with captions."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from gan_nst.images.arrays import ImageArray, to_float, to_image, to_uint8
from gan_nst.methods.base import Translation

_GAP = 2


@torch.inference_mode()
def sample_grid(
    generators: nn.ModuleDict,
    translations: Mapping[str, Translation],
    images: Mapping[str, Tensor],
    device: torch.device,
) -> ImageArray:
    """Returns a grid: a row per image and, for each translation, real, fake, reconstructed and identity images.

    images: by domain, uint8 of shape (count, 3, h, w), with the same count and size for all. There is no reconstructed
    image if the method does not translate back.
    """
    columns: list[tuple[str, Tensor]] = []
    for translation in translations.values():
        generator = generators[translation.generator]
        real, other = images[translation.source], images[translation.target]
        fake = _through(generator, real, device)
        columns += [(f"real {translation.source}", real), (f"fake {translation.target}", fake)]
        back = next(
            (
                t
                for t in translations.values()
                if (t.source, t.target) == (translation.target, translation.source)
            ),
            None,
        )
        if back is not None:
            columns.append(
                (f"reconstructed {translation.source}", _through(generators[back.generator], fake, device))
            )
        columns.append((f"identity {translation.target}", _through(generator, other, device)))
    return image_grid([(caption, [to_image(x) for x in column]) for caption, column in columns])


def image_grid(columns: Sequence[tuple[str, Sequence[ImageArray]]]) -> ImageArray:
    """Returns columns of images of one size under their captions. Small images are enlarged so that captions fit."""
    height, width = columns[0][1][0].shape[:2]
    zoom = max(1, round(128 / width))
    height, width = height * zoom, width * zoom
    font = ImageFont.load_default(11)
    top = 16
    rows = max(len(column) for _, column in columns)
    sheet = Image.new("RGB", (len(columns) * (width + _GAP), top + rows * (height + _GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (caption, column) in enumerate(columns):
        left = number * (width + _GAP)
        draw.text((left + 2, 2), caption, "black", font)
        for row, image in enumerate(column):
            enlarged = np.repeat(np.repeat(image, zoom, 0), zoom, 1)
            sheet.paste(Image.fromarray(enlarged), (left, top + row * (height + _GAP)))
    return np.array(sheet)


def _through(generator: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    """Translates images one by one, so that a large grid needs no more memory than a small one."""
    return torch.cat([to_uint8(generator(to_float(x[None]).to(device))).cpu() for x in images])
