"""The settings of the training loop, which are the same for every method."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from gan_nst.core.settings import Section


class TrainingSettings(Section):
    """How long to train, with how many images, and what to write when."""

    epochs: float | None = Field(200, gt=0, description="planned length in passes over the larger domain")
    steps: int | None = Field(
        None, ge=1, description="planned length in steps; schedules follow it; replaces epochs"
    )
    stop_at: int | None = Field(
        None, ge=1, description="end this session at that step without changing the plan"
    )
    batch_size: int = Field(1, ge=1, description="images of each domain in a micro-batch")
    accumulation: int = Field(1, ge=1, description="micro-batches whose gradients are averaged in a step")
    ema: float = Field(
        0.999, ge=0, lt=1, description="decay of the generators' moving average; 0: the current weights"
    )
    gradient_clip: float | None = Field(
        None, gt=0, description="largest gradient norm of an update; null: no limit"
    )
    on_nonfinite: Literal["stop", "skip"] = Field(
        "stop",
        description="at a loss or gradient that is not finite: end the run, or skip that step",
    )
    activation_checkpointing: bool = Field(
        False,
        description="recompute the generators' activations instead of storing them: less memory, more time",
    )
    init_from: Path | None = Field(
        None, description="run or exported generator to take the generators' initial weights from"
    )
    log_every: int = Field(50, ge=1, description="steps between lines of metrics")
    sample_every: int = Field(500, ge=1, description="steps between sample grids")
    sample_count: int = Field(6, ge=1, le=64, description="images of each domain in a sample grid")
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints")
    checkpoints_kept: int = Field(2, ge=2, description="newest checkpoints kept")

    @model_validator(mode="after")
    def _has_a_length(self) -> "TrainingSettings":
        if self.steps is None and self.epochs is None:
            raise ValueError("steps: missing, and so is epochs; give one of them")
        return self
