"""Translates single images: any image in, the translated image of the same size out."""

import functools
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar, cast, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from gan_nst.core.device import autocast, choose_device, choose_precision, memory_format
from gan_nst.core.errors import DataError
from gan_nst.core.options import TranslatorOptions
from gan_nst.core.terminal import progress_bar
from gan_nst.images.arrays import ImageArray, to_float, to_image, to_tensor, to_uint8
from gan_nst.images.files import to_rgb
from gan_nst.images.photo import Pixels
from gan_nst.inference.exported import Description
from gan_nst.networks import build
from gan_nst.networks.resnet import ResnetGenerator
from gan_nst.tiling.segments import Statistics, bytes_a_pixel, run_with_statistics, stages
from gan_nst.tiling.strips import (
    Strips,
    pad_to_multiple,
    padded_indices,
    padded_length,
    transposed_generator,
)

log = logging.getLogger(__name__)

P = TypeVar("P", bound=Pixels)

_BATCH_PIXELS = {"cpu": 256**2}  # on the CPU larger batches were measured to be slower
_OTHER_BATCH_PIXELS = 8 * 256**2
_UNKNOWN_BYTES_A_PIXEL = 2048.0  # of a network that is not one of our generators


class Translator:
    """Translates images with one generator.

    generator: maps (n, 3, h, w) in [-1, 1] to the same; its `multiple` divides the sizes it takes. memory: bytes that
    the network may use at once; what does not fit is translated in parts, with the same result. scratch: the folder
    that then holds a scratch file; the system's for temporary files by default.
    """

    def __init__(
        self,
        generator: nn.Module,
        description: Description,
        device: str = "auto",
        precision: str = "auto",
        *,
        memory: int = TranslatorOptions.memory,
        scratch: Path | None = None,
    ) -> None:
        self.device = choose_device(device)
        self.precision = choose_precision(precision, self.device)
        self.description = description
        self.memory = memory
        self.scratch = Path(tempfile.gettempdir()) if scratch is None else scratch
        layout = memory_format(self.device)
        self.generator = generator.to(self.device).to(memory_format=layout).requires_grad_(False).eval()
        self._multiple = int(getattr(generator, "multiple", 1))
        self._bytes_a_pixel = _bytes_a_pixel(generator, description)

    @overload
    def __call__(self, image: Image.Image) -> Image.Image: ...
    @overload
    def __call__(self, image: P) -> P: ...
    def __call__(self, image: Image.Image | P) -> Image.Image | P:
        """Returns the translated image, of the same size and kind: a Pillow image, or an RGB array (h, w, 3) of uint8
        or uint16.
        """
        if isinstance(image, Image.Image):
            return Image.fromarray(self.translate([to_rgb(image)])[0])
        return self.translate([image])[0]

    @property
    def takes_statistics(self) -> bool:
        """Whether the generator can be normalised by given statistics, and so be computed in strips."""
        return isinstance(self.generator, ResnetGenerator)

    @torch.inference_mode()
    def translate(self, images: Sequence[P], statistics: Statistics | None = None) -> list[P]:
        """Translates images of the same size and type: RGB, (h, w, 3), uint8 or uint16, in and out.

        statistics: returns what to normalise by instead of the images' own statistics. Raises DataError when not even
        the smallest strip of an image fits in memory, or the scratch file does not fit on the disk.
        """
        for image in images:
            known = image.dtype in (np.uint8, np.uint16)
            if not known or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
                raise ValueError(
                    f"expected RGB uint8 or uint16 of shape (h, w, 3), got {image.dtype} {image.shape}"
                )
        if not images:
            return []
        batch_size = self.fits(*images[0].shape[:2])
        translated: list[Pixels] = []
        if batch_size == 0:
            translated += [self._in_strips(image, statistics) for image in images]
        else:
            for first in range(0, len(images), batch_size):
                translated += self._in_one_batch(images[first : first + batch_size], statistics)
        return cast(list[P], translated)

    def fits(self, height: int, width: int) -> int:
        """The best batch size for images of a size; 0 when a single one does not fit in memory."""
        pixels = padded_length(height, self._multiple) * padded_length(width, self._multiple)
        together = max(1, _BATCH_PIXELS.get(self.device.type, _OTHER_BATCH_PIXELS) // pixels)
        return min(together, int(self.memory / (self._bytes_a_pixel * pixels)))

    def scale_of(self, height: int, width: int) -> float:
        """How many times larger an image's shorter side is than the training images' was."""
        return min(height, width) / self.description.training_scale.load_size

    def _in_one_batch(self, images: Sequence[Pixels], statistics: Statistics | None) -> list[Pixels]:
        batch = torch.stack([self._floats(image) for image in images])
        height, width = batch.shape[2:]
        padded = pad_to_multiple(batch, self._multiple)
        with autocast(self.precision, self.device):
            output = self._forward(padded, statistics)
        return [_to_pixels(x, images[0].dtype) for x in output[:, :, :height, :width]]

    def _forward(self, batch: Tensor, statistics: Statistics | None) -> Tensor:
        if statistics is not None:
            return run_with_statistics(self._resnet(), batch, statistics)
        output: Tensor = self.generator(batch)
        return output

    def _in_strips(self, image: Pixels, statistics: Statistics | None) -> Pixels:
        height, width = image.shape[:2]
        if not self.takes_statistics:
            needed = self._bytes_a_pixel * height * width / 2**30
            raise DataError(
                f"{width}x{height} pixels need about {needed:.1f} GiB, and this file cannot be translated in "
                "strips; give the run or its .safetensors, a smaller --scale, or more --memory"
            )
        canvas = np.empty_like(image)
        source, target, generator = image, canvas, self._resnet()
        if width > height:
            source, target, generator = image.swapaxes(0, 1), canvas.swapaxes(0, 1), self._transposed
        down, across = (i.numpy() for i in padded_indices(source.shape[0], source.shape[1], self._multiple))

        def rows(span: range) -> Tensor:
            return self._floats(source[down[span.start : span.stop]][:, across])[None]

        def sink(span: range, x: Tensor) -> None:
            part = target[span.start : span.stop]
            part[:] = _to_pixels(x[0, :, : part.shape[0], : part.shape[1]], image.dtype)

        with progress_bar(f"{width}x{height}") as report, autocast(self.precision, self.device):
            strips = Strips(
                generator,
                rows,
                len(down),
                len(across),
                memory=self.memory,
                scratch=self.scratch,
                statistics=statistics,
            )
            log.info(
                f"{width}x{height} pixels: translating in strips, {len(strips.passes)} passes, with "
                f"{strips.needed / 1e9:.1f} GB of scratch space in {self.scratch}"
            )
            strips.translate(sink, report)
        return canvas

    @functools.cached_property
    def _transposed(self) -> ResnetGenerator:
        return transposed_generator(self._resnet())

    def _resnet(self) -> ResnetGenerator:
        if not isinstance(self.generator, ResnetGenerator):
            raise ValueError("this generator does not accept statistics")
        return self.generator

    def _floats(self, pixels: Pixels) -> Tensor:
        """Pixels (h, w, 3) as float32 (3, h, w) in [-1, 1] on the device."""
        if pixels.dtype == np.uint8:
            return to_float(to_tensor(cast(ImageArray, pixels)).to(self.device))
        return torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1).to(self.device) / 32767.5 - 1


def _to_pixels(x: Tensor, dtype: np.dtype[np.generic]) -> Pixels:
    """Floats (3, h, w) in [-1, 1] as pixels (h, w, 3), rounded and clipped."""
    if dtype == np.uint8:
        return to_image(to_uint8(x))
    values = ((x + 1) * 32767.5).round().clamp(0, 65535)
    return np.ascontiguousarray(values.permute(1, 2, 0).cpu().numpy().astype(np.uint16))


def _bytes_a_pixel(generator: nn.Module, description: Description) -> float:
    if isinstance(generator, ResnetGenerator):
        return bytes_a_pixel(stages(generator))
    if description.network.get("name") != "resnet":
        return _UNKNOWN_BYTES_A_PIXEL
    with torch.device("meta"):  # a portable file still describes its network
        network = build(description.network)
    assert isinstance(network, ResnetGenerator)
    return bytes_a_pixel(stages(network))
