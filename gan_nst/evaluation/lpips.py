"""LPIPS: how far two pictures are apart as people see it (Zhang et al. 2018, arXiv:1801.03924)."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from gan_nst.core import pretrained
from gan_nst.core.errors import WeightsError
from gan_nst.images.files import Picture, to_float, to_tensor
from gan_nst.networks.features import SQUEEZENET

SMALLEST = 32  # pixels; below, SqueezeNet's last layers see next to nothing


@dataclass(frozen=True)
class Lpips:
    """LPIPS v0.1 on SqueezeNet 1.1, by torchmetrics, which brings the linear heads.

    file, digest: of the SqueezeNet weights.
    """

    network: nn.Module
    file: str
    digest: str

    @classmethod
    def find(cls, device: torch.device, download: bool = False) -> "Lpips | None":
        """The metric, or None where no weights lie. Raises WeightsError for weights of another network."""
        path = pretrained.fetch(SQUEEZENET) if download else pretrained.find(SQUEEZENET)
        return None if path is None else cls.load(path, device)

    @classmethod
    def load(cls, path: Path, device: torch.device) -> "Lpips":
        """The metric with the SqueezeNet in a file. Raises WeightsError for any other file."""
        # torchmetrics' public functions would download; the class behind them takes weights from elsewhere.
        from torchmetrics.functional.image.lpips import _LPIPS

        weights = pretrained.load(path)
        with torch.random.fork_rng(
            devices=[]
        ):  # layers draw initial weights, unnoticed by a run's random state
            network = _LPIPS(net="squeeze", pnet_rand=True)
        sliced = {}
        for name, weight in weights.items():
            part, _, rest = name.partition(".")
            number = rest.split(".")[0]
            slot = next(
                (i for i, s in enumerate(network.net.slices) if number in dict(s.named_children())), None
            )
            if part == "features" and slot is not None:
                sliced[f"slices.{slot}.{rest}"] = weight
        try:
            network.net.load_state_dict(sliced)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise WeightsError(f"{path}: not SqueezeNet 1.1 ({reason})") from None
        return cls(network.to(device), path.name, pretrained.digest(path))

    @torch.inference_mode()
    def __call__(self, x: Picture, y: Picture) -> float:
        """The distance of two pictures of one size, RGB uint8 (h, w, 3); 0 for equal ones."""
        device = next(self.network.parameters()).device
        a, b = (to_float(to_tensor(picture)[None].to(device)) for picture in (x, y))
        return float(self.network(a, b))
