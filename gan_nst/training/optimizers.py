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
    """Loads the saved moments, each in the layout of its weight; betas and the like stay the settings' own.

    A fused step pairs them by their places in memory, and a checkpoint of another device or an older version may have
    them otherwise. Raises an Exception when the state is of other weights, or none.
    """
    groups = optimizer.state_dict()["param_groups"]
    if [group["params"] for group in state["param_groups"]] != [group["params"] for group in groups]:
        raise ValueError("an optimizer's weights are others")
    optimizer.load_state_dict({"state": state["state"], "param_groups": groups})
    for parameter, moments in optimizer.state.items():
        shapes = {name: tuple(value.shape) for name, value in moments.items()}
        if shapes != {"step": (), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}:
            raise ValueError("an optimizer's moments are of other weights")
        for name in ("exp_avg", "exp_avg_sq"):
            moments[name] = torch.empty_like(parameter).copy_(moments[name])
