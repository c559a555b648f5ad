"""Compilation of the networks by torch's compiler: whether it is there, whether it pays, and switching it on."""

import logging

import torch
from torch import nn

from gan_nst.core.errors import SettingsError
from gan_nst.methods.base import Method

log = logging.getLogger(__name__)

# Floating-point operations of a run on a GPU, above which compiling its networks, which takes a minute or two, should
# be won back: 10,000 steps of the published CycleGAN at 256 pixels. On a CPU it never is: convolutions take nine tenths
# of a step there, and compiled networks were 1.02 times as fast as plain ones.
_WORTH = 2e16


def resolve_compile(choice: str, device: torch.device, operations: float) -> str:
    """What `compile: auto` means, "always" or "never", for a run of that many floating-point operations.

    Raises SettingsError when "always" was asked for and no compiler works here.
    """
    worth = device.type == "cuda" and operations > _WORTH
    if choice == "never" or (choice == "auto" and not worth):
        return "never"
    reason = _why_not(device)
    if reason is None:
        return "always"
    if choice == "always":
        raise SettingsError(f"compile: always, but torch's compiler does not work here ({reason}); say never")
    log.info(f"not compiled: torch's compiler does not work here ({reason})")
    return "never"


def compile_networks(method: Method, backend: str = "inductor") -> None:
    """Has every trained network compiled at its first call, for each size of batch anew.

    Copies of the networks, the moving average for example, stay as they were written, and so do their weights' names.
    """
    for role in method.roles().values():
        networks = role.networks.values() if isinstance(role.networks, nn.ModuleDict) else [role.networks]
        for network in networks:
            network.compile(dynamic=False, backend=backend)


def _why_not(device: torch.device) -> str | None:
    """Compiles a trifle; what went wrong, in a line."""
    logging.getLogger("torch.utils.cpp_extension").setLevel(
        logging.ERROR
    )  # it warns of a CUDA that is not needed
    try:
        torch.compile(_trifle, dynamic=False)(torch.zeros(8, device=device))
    except Exception as error:  # compilers fail in many ways, all of which mean: not here
        return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
    return None


def _trifle(x: torch.Tensor) -> torch.Tensor:
    return x.sin() + 1
