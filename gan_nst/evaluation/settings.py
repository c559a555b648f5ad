"""The settings of the evaluation, in the training loop and at its end."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from gan_nst.core.settings import Section
from gan_nst.evaluation.features import Protocol


class EvaluationSettings(Section):
    """How a run is judged while it goes, and which checkpoint is the best."""

    every: int = Field(1000, ge=1, description="steps between validations; there is one at the end as well")
    images: int = Field(
        100, ge=2, description="most validation images of each domain, evenly spread over those there are"
    )
    features: Literal[
        "auto", "none", "inception", "inception-768", "inception-192", "inception-64", "random"
    ] = Field(
        "auto",
        description="compared during training; auto: inception if it lies here (and there is a GPU, or weights are "
        "given), else none when validation images are paired, else random",
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
        description="generator exported at the end of the plan (a session that ends earlier exports its last step); "
        "auto: best, but last where only random features chose it",
    )
