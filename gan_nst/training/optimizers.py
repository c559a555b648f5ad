"""The optimizers: one Adam a role, its whole step in one call."""

from typing import Any

import torch

from gan_nst.methods.base import Role


def make_optimizer(role: Role) -> torch.optim.Adam:
    """The role's Adam; its learning rate is set anew at every step."""
    return torch.optim.Adam(
        role.networks.parameters(),
        role.learning_rate(0),
        role.betas,
        weight_decay=role.weight_decay,
        fused=True,
    )


def restore_optimizer(optimizer: torch.optim.Adam, state: dict[str, Any]) -> None:
    """Loads a saved state, every moment in the layout of its weight.

    A fused step pairs them by their places in memory, and a checkpoint of another device or an older version may have
    them otherwise. Raises ValueError or KeyError when the state is of other weights.
    """
    optimizer.load_state_dict(state)
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if value.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter).copy_(value)
