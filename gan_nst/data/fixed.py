"""The few pictures that sample grids and validations show, the same ones every time."""

import numpy as np
import torch
from torch import Tensor

from gan_nst.data.domains import Folder
from gan_nst.data.settings import DataSettings
from gan_nst.images.files import read_picture, resize_picture, to_tensor


def fixed_pictures(folder: Folder, count: int, settings: DataSettings) -> Tensor:
    """At most `count` pictures, evenly spread over a folder: uint8 of shape (count, 3, crop, crop), centre crops at
    the training's scale.
    """
    crops = []
    for index in np.linspace(0, len(folder.files) - 1, min(count, len(folder.files))).round().astype(int):
        picture = resize_picture(read_picture(folder.files[index]), settings.load_size, settings.resize)
        if min(picture.shape[:2]) < settings.crop_size:
            picture = resize_picture(picture, settings.crop_size, "short_side")
        top, left = ((side - settings.crop_size) // 2 for side in picture.shape[:2])
        crops.append(to_tensor(picture[top : top + settings.crop_size, left : left + settings.crop_size]))
    return torch.stack(crops)
