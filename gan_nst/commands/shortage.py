"""What is said, and what is done without, when memory runs out while a run is trained."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from gan_nst.core.device import choose_precision
from gan_nst.core.errors import DataError, TrainingError, reason
from gan_nst.core.memory import ran_out
from gan_nst.data.loader import died
from gan_nst.runs.settings import RunSettings
from gan_nst.training import checkpoint
from gan_nst.training.trainer import Trainer

log = logging.getLogger(__name__)


@contextlib.contextmanager
def explained(trainer: Trainer, settings: RunSettings, run: Path | None = None) -> Iterator[None]:
    """Says in one line, and with what to do, what torch says in many: memory ran out, or a loader process died.

    run: the folder that holds what can be gone on from.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if ran_out(error):
            raise TrainingError(_told(trainer, settings, run)) from None
        # torch tells of a dead loader process wherever the main one is at that moment
        told = died(error) if isinstance(error, RuntimeError) else None
        raise told or error from None


@contextlib.contextmanager
def dispensable(what: str) -> Iterator[None]:
    """Within the context, memory that runs out, or a picture that can no longer be read or written, becomes a warning:
    it goes on without, "no sample grid" for example.
    """
    try:
        yield
    except DataError as error:
        log.warning(f"{what} ({error}); it goes on without")
    except (MemoryError, RuntimeError, OSError) as error:
        if not ran_out(error):
            raise
        log.warning(f"{what}, as memory ran out ({reason(error)[:100]}); it goes on without")


def _told(trainer: Trainer, settings: RunSettings, run: Path | None) -> str:
    """Where memory ran out, and what takes less: first what a run may go on with, as it changes nothing learned."""
    training, data = settings.training, settings.data
    alike = [] if training.activation_checkpointing else ["training.activation_checkpointing=true"]
    alike += ["data.workers=0"] if data.workers and trainer.device.type == "cpu" else []
    how = f" {' '.join(alike)}" if alike else ", when other programs leave more of it"
    newest = None if run is None else next(iter(checkpoint.newest_first(run / "checkpoints")), None)
    go_on = f"{newest} is whole; go on from it with: gan-nst train --resume {run}" if newest else "start with"
    fewer = []
    if training.batch_size > 1:
        size = 1 if training.batch_size % 2 else training.batch_size // 2
        times = training.accumulation * training.batch_size // size
        fewer.append(f"training.batch_size={size} training.accumulation={times}")
    if settings.precision == "float32" and choose_precision("auto", trainer.device) == "bfloat16":
        fewer.append("precision=bfloat16")
    fewer.append(f"a data.crop_size below {data.crop_size}")
    return (
        f"out of memory on {trainer.device} after step {trainer.step}: {go_on}{how}; or start a new run with "
        f"{' or '.join(fewer)}"
    )
