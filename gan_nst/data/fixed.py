"""The few pictures that sample grids show, the same ones every time."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from gan_nst.data.folders import Folder
from gan_nst.data.settings import DataSettings
from gan_nst.images import read_picture, resize_picture, to_tensor


def fixed_pictures(folders: Mapping[str, Folder], count: int, settings: DataSettings) -> dict[str, Tensor]:
    """Pictures of each domain, evenly spread over its folder: uint8 of shape (count, 3, crop, crop), centre
    crops.

    Fewer than `count` when a folder has fewer.
    """
    count = min(count, *(len(folder.files) for folder in folders.values()))
    fixed = {}
    for domain, folder in folders.items():
        crops = []
        for index in np.linspace(0, len(folder.files) - 1, count).round().astype(int):
            picture = resize_picture(read_picture(folder.files[index]), settings.load_size, settings.resize)
            if min(picture.shape[:2]) < settings.crop_size:
                picture = resize_picture(picture, settings.crop_size, "short_side")
            top, left = ((side - settings.crop_size) // 2 for side in picture.shape[:2])
            crops.append(to_tensor(picture[top : top + settings.crop_size, left : left + settings.crop_size]))
        fixed[domain] = torch.stack(crops)
    return fixed
