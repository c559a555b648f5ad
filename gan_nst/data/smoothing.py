"""Edge-smoothed images: cartoons without their clear edges (Chen et al. 2018, section 3.2.1)."""

import cv2
import numpy as np

from gan_nst.images.arrays import ImageArray

SOFT = 0.005  # share of pixels; drawn cartoons have 0.27 to 0.63 at 64 pixels, "Hayao" images 0.01 to 0.98 at 256

_KERNEL = 5  # pixels; of the dilation and of the Gaussian, as every public port has it
_LOW, _HIGH = 100, 200  # Canny's thresholds, likewise


def smooth_edges(image: ImageArray) -> ImageArray:
    """The image, RGB uint8 (h, w, 3), blurred along its edges only.

    Edges are found by Canny on the gray values and dilated; there the image is replaced by its Gaussian blur, for which
    OpenCV uses the weights (1, 4, 6, 4, 1) / 16.
    """
    edges = cv2.Canny(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), _LOW, _HIGH)
    near = cv2.dilate(edges, np.ones((_KERNEL, _KERNEL), np.uint8)) > 0
    blurred = cv2.GaussianBlur(image, (_KERNEL, _KERNEL), 0, borderType=cv2.BORDER_REFLECT_101)
    return np.where(near[..., None], blurred, image)


def share_smoothed(image: ImageArray, smoothed: ImageArray) -> float:
    """The share of pixels that smoothing changed; `SOFT` or less is practically unchanged."""
    return float((image != smoothed).any(-1).mean())
