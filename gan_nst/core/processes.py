"""Several processes that share one job and never speak until its end, as torchrun starts them."""

import os
import time

import torch
from torch.distributed import is_torchelastic_launched
from torch.distributed.rendezvous import rendezvous

from gan_nst.core.errors import SettingsError


def share() -> tuple[int, int]:
    """This process's number, from 0, and how many there are. Raises SettingsError for an environment that makes no
    sense.
    """
    number, count = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise SettingsError(
            f"RANK={number} WORLD_SIZE={count}: the environment must count processes from 0; set both, or neither"
        )
    return int(number), int(count)


def local_rank() -> int:
    """This process's number on its machine: the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def own_device(device: str) -> str:
    """The device for this process: of several processes on a machine each takes another GPU."""
    if share()[1] > 1 and device in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{local_rank() % torch.cuda.device_count()}"
    return device


def wait_for_all() -> None:
    """Returns when every process of torchrun's has come here.

    It ends all others as soon as one has ended with an exit code, which one broken picture gives.
    """
    if share()[1] == 1 or not is_torchelastic_launched():
        return
    store, _, count = next(iter(rendezvous("env://")))
    store.add("finished", 1)
    while store.add("finished", 0) < count:
        time.sleep(0.2)
