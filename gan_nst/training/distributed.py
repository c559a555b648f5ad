"""Several processes that train one run. With a single process, every function is a no-op."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@contextmanager
def session(device_type: str) -> Iterator[None]:
    """Joins the processes that torchrun started, within the context.

    Without a GPU the group exists until the process ends: gloo sometimes aborts a process that takes it down, and
    torchrun then ends the others, which may still be evaluating.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if not dist.is_initialized():
        # gloo carries messages between hosts, so that they do not wait for a GPU.
        dist.init_process_group("cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo")
    try:
        yield
    finally:
        if device_type == "cuda":
            dist.destroy_process_group()


def rank() -> int:
    """Returns this process's rank. Only rank 0 writes files."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Returns the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def average_gradients(parameters: Sequence[Tensor]) -> None:
    """Replaces every gradient with its mean over the processes, in one message."""
    if world_size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= world_size()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def broadcast(value: Any) -> Any:
    """Returns rank 0's value in every process."""
    return gather(value)[0]


def gather(value: Any) -> list[Any]:
    """Returns the values of all processes by rank, in every process."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def all_reduce_max(value: Tensor) -> None:
    """Replaces a tensor with its maximum over the processes."""
    if world_size() > 1:
        dist.all_reduce(value, dist.ReduceOp.MAX)
