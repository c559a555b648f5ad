"""The networks of generators and discriminators, which `build` makes from plain data, and frozen networks.

`resnet` (generators in segments), `patchgan` and `cartoon` (discriminators), `norm` (the instance norm), `features`
(frozen networks for content losses).
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from gan_nst.core.errors import SettingsError, format_value
from gan_nst.core.settings import Section, validate
from gan_nst.networks.cartoon import CartoonDiscriminator, CartoonDiscriminatorSpec
from gan_nst.networks.patchgan import PatchGan, PatchGanSpec
from gan_nst.networks.resnet import ResnetGenerator, ResnetSpec

_NETWORKS: dict[str, tuple[type[Section], type[nn.Module]]] = {
    "resnet": (ResnetSpec, ResnetGenerator),
    "patchgan": (PatchGanSpec, PatchGan),
    "cartoon": (CartoonDiscriminatorSpec, CartoonDiscriminator),
}


def build(spec: Section | Mapping[str, Any]) -> nn.Module:
    """Returns the network that `spec` describes, initialised; `{"name": "resnet", "width": 64, ...}` for example.

    Raises SettingsError for an unknown name or a spec that does not fit the network.
    """
    plain = spec.model_dump() if isinstance(spec, Section) else dict(spec)
    name = plain.get("name")
    if not isinstance(name, str) or name not in _NETWORKS:
        raise SettingsError(
            f"network: expected one of {', '.join(sorted(_NETWORKS))}, got {format_value(name)}"
        )
    spec_type, network_type = _NETWORKS[name]
    return network_type(validate(spec_type, plain, where=f"network {name}"))
