"""Networks, and `build`: any of them from plain data."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from gan_nst.config import Section, validate
from gan_nst.errors import SettingsError
from gan_nst.networks.patchgan import PatchGan, PatchGanSpec
from gan_nst.networks.resnet import ResnetGenerator, ResnetSpec

_NETWORKS: dict[str, tuple[type[Section], type[nn.Module]]] = {
    "resnet": (ResnetSpec, ResnetGenerator),
    "patchgan": (PatchGanSpec, PatchGan),
}


def build(spec: Section | Mapping[str, Any]) -> nn.Module:
    """The network that `spec` describes, initialised; `{"name": "resnet", "width": 64, ...}` for example.

    Raises SettingsError for an unknown name or a spec that does not fit it.
    """
    plain = spec.model_dump() if isinstance(spec, Section) else dict(spec)
    name = plain.get("name")
    if not isinstance(name, str) or name not in _NETWORKS:
        raise SettingsError(f"network {name!r} is unknown; there are {', '.join(sorted(_NETWORKS))}")
    spec_type, network_type = _NETWORKS[name]
    network: nn.Module = network_type(validate(spec_type, plain, where=f"network {name}"))  # type: ignore[arg-type]
    initialise(network)
    return network


def initialise(network: nn.Module, deviation: float = 0.02) -> None:
    """Convolution weights from N(0, deviation), biases 0 (Zhu et al. 2017, appendix 7.1)."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0.0, deviation)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    if isinstance(network, ResnetGenerator) and network.spec.start_as_identity:
        nn.init.zeros_(network.segments["tail"].convolution.weight)  # type: ignore[arg-type]


__all__ = ["build", "initialise"]
