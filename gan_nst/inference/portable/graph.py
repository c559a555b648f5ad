"""A generator with all that surrounds it in one graph: pictures of any size in, pictures of that size out."""

from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export import export as trace

from gan_nst.images.files import to_float, to_uint8
from gan_nst.tiling.padding import SMALLEST


class Whole(nn.Module):
    """Maps RGB pictures (n, 3, h, w) to RGB pictures (n, 3, h, w), of any size from 1x1.

    pixels: uint8, or "float" for float32 in [0, 1]. compute: the type in which the generator is given them.
    Channels come first, as convolutions have them: what runs such files expects it, and nothing is transposed.
    """

    def __init__(
        self, generator: nn.Module, pixels: Literal["uint8", "float"], compute: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.generator = generator
        self.multiple = int(getattr(generator, "multiple", 1))
        self.pixels = pixels
        self.compute = compute

    def forward(self, pictures: Tensor) -> Tensor:
        height, width = pictures.shape[2:]
        x = to_float(pictures) if self.pixels == "uint8" else pictures * 2 - 1
        rows, columns = self._places(height, width, x.device)
        x = x.index_select(2, rows).index_select(3, columns)
        y: Tensor = self.generator(x.to(self.compute))
        # Not a slice: whether that is contiguous would depend on the size, and be fixed to the example's.
        y = y.to(torch.float32).index_select(2, torch.arange(height, device=y.device))
        y = y.index_select(3, torch.arange(width, device=y.device))
        if self.pixels == "uint8":
            return to_uint8(y)
        return ((y + 1) / 2).clamp(0, 1)

    def _places(self, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Which rows and columns of the picture make the padded one, (h',) and (w',): those at the right and bottom
        mirrored, or the last one again where either side has too little to mirror.

        An index is computed where a padding would be chosen, since what is chosen is fixed by the example's size.
        """
        rows, columns = (torch.arange(self._grown(n), device=device) for n in (height, width))
        enough = ((2 * (height - 1) - rows[-1:]) >= 0) & ((2 * (width - 1) - columns[-1:]) >= 0)
        return _mirrored(rows, height, enough), _mirrored(columns, width, enough)

    def _grown(self, length: int) -> int:
        target = cast(int, torch.sym_max(length, max(SMALLEST, 2 * self.multiple)))
        return (target + self.multiple - 1) // self.multiple * self.multiple


def _mirrored(places: Tensor, length: int, enough: Tensor) -> Tensor:
    last = length - 1
    mirrored = torch.where(places > last, 2 * last - places, places)
    return torch.where(enough, mirrored, places.clamp(max=last)).clamp(min=0)


def make_program(whole: Whole) -> ExportedProgram:
    """The graph for any batch, height and width, without a trace of where its code lies."""
    kind = torch.uint8 if whole.pixels == "uint8" else torch.float32
    example = torch.zeros((2, 3, 37, 45), dtype=kind)  # of sides that nothing divides, and unlike each other
    shape = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    program = trace(whole.eval(), (example,), dynamic_shapes=(shape,), strict=False)
    program.example_inputs = None
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program
