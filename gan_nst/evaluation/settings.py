"""The settings of validation during training and of the evaluation at its end."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from gan_nst.core.options import FeatureName
from gan_nst.core.settings import Section
from gan_nst.evaluation.features import Protocol


class EvaluationSettings(Section):
    """How a run is validated during training, and which checkpoint is the best."""

    every: int = Field(1000, ge=1, description="steps between validations; the last step is always validated")
    images: int = Field(
        100, ge=2, description="at most this many validation images of each domain, evenly spread"
    )
    features: Literal["auto", "none", FeatureName] = Field(
        "auto",
        description="features compared during training; auto: inception if its weights are found (and there is a "
        "GPU, or weights are given), else none if the validation images are paired, else random",
    )
    protocol: Protocol = Field(
        "clean", description="how images are resized for the features; legacy: as pytorch-fid"
    )
    weights: Path | None = Field(None, description="file of Inception weights, instead of looking for one")
    score: str = Field(
        "auto",
        description="validation score that checkpoints/best.pt follows, ab/fid or ab/error for example; "
        "auto: the first translation's",
    )
    export: Literal["auto", "best", "last"] = Field(
        "auto",
        description="generator exported at the planned end (a session that stops earlier exports its last step); auto: "
        "best, but last if only random features chose it",
    )
