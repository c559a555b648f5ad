"""The FID Inception network: torch-fidelity's layers, our own loading and input."""

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_fidelity import FeatureExtractorInceptionV3

from gan_nst.core import pretrained
from gan_nst.core.errors import WeightsError

# What pytorch-fid and torch-fidelity call the features of 64, 192, 768 and 2048 numbers, and the layers before each.
_STAGES = {
    64: ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1"),
    192: ("Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2"),
    768: ("Mixed_5b", "Mixed_5c", "Mixed_5d", *(f"Mixed_6{letter}" for letter in "abcde")),
    2048: ("Mixed_7a", "Mixed_7b", "Mixed_7c"),
}


class Inception(FeatureExtractorInceptionV3):  # type: ignore[misc]
    """Maps pictures (n, 3, 299, 299), about [-1, 1], to features (n, dimension).

    The library's own class unpickles its file, insists on every layer, and resizes in its own way.
    """

    def __init__(self, file: io.BytesIO, dimension: int) -> None:
        self.needed = [name for width, names in _STAGES.items() if width <= dimension for name in names]
        super().__init__("inception-v3-compat", [str(dimension)], feature_extractor_weights_path=file)
        self.eval()

    @classmethod
    def load(cls, path: Path, dimension: int) -> "Inception":
        """The network up to the features of so many numbers, from the whole file or from its lower part.

        Raises WeightsError when the file lacks a layer that is needed, or is of another network.
        """
        weights = pretrained.load(path)
        # The constructor unpickles; what it is given is a file in memory that is written here, from tensors alone.
        file = io.BytesIO()
        torch.save(weights, file)
        file.seek(0)
        try:
            with torch.random.fork_rng(
                devices=[]
            ):  # layers draw initial weights, unnoticed by a run's random state
                return cls(file, dimension)
        except (KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise WeightsError(
                f"{path}: not the FID Inception network for {dimension} features ({reason})"
            ) from None

    def load_state_dict(self, state: Any, strict: bool = True, assign: bool = False) -> Any:
        for name in self.state_dict():
            if name.split(".")[0] in self.needed and "num_batches" not in name and name not in state:
                raise KeyError(f"it lacks {name}")
        return nn.Module.load_state_dict(self, state, strict=False, assign=assign)

    def forward(self, x: Tensor) -> Tensor:
        for name in self.needed:
            x = getattr(self, name)(x)
        return x.mean((2, 3))
