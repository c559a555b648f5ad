"""Networks, and `build`: any of them from plain data."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from gan_nst.core.errors import SettingsError
from gan_nst.core.settings import Section, validate
from gan_nst.networks.cartoon import CartoonDiscriminator, CartoonDiscriminatorSpec
from gan_nst.networks.initialise import initialise
from gan_nst.networks.patchgan import PatchGan, PatchGanSpec
from gan_nst.networks.resnet import ResnetGenerator, ResnetSpec

_NETWORKS: dict[str, tuple[type[Section], type[nn.Module]]] = {
    "resnet": (ResnetSpec, ResnetGenerator),
    "patchgan": (PatchGanSpec, PatchGan),
    "cartoon": (CartoonDiscriminatorSpec, CartoonDiscriminator),
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
    return network_type(validate(spec_type, plain, where=f"network {name}"))


__all__ = ["build", "initialise"]
