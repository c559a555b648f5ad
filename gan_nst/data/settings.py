"""The settings of the data."""

from pathlib import Path, PurePath
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from gan_nst.core.errors import one_line
from gan_nst.core.settings import Section
from gan_nst.images.files import Resize


class DataSettings(Section):
    """Where the pictures are and how they become training crops."""

    domain: str = Field(
        "photo2cartoon", min_length=1, description="name of the folder under data.root, and of the runs"
    )
    root: Path = Field(Path("datasets"), description="folder of the data sets, and of the cache")
    a: Path | None = Field(
        None, description="folder of domain a's training pictures, instead of data.root/data.domain"
    )
    b: Path | None = Field(None, description="folder of domain b's training pictures")
    test_a: Path | None = Field(None, description="folder of domain a's test pictures, beside data.a")
    test_b: Path | None = Field(None, description="folder of domain b's test pictures, beside data.b")
    held_out: float = Field(
        0.05, ge=0, lt=0.5, description="share cut from training for a test or validation split not given"
    )
    load_size: int = Field(286, ge=8, description="shorter side, in pixels, that pictures are resized to")
    crop_size: int = Field(256, ge=8, description="side of the random training crop")
    resize: Resize = Field(
        "short_side",
        description="short_side keeps the aspect; squash makes a square, as published; none keeps the size",
    )
    upscale: bool = Field(False, description="accept pictures whose shorter side is under the crop size")
    flip: float = Field(0.5, ge=0, le=1, description="probability of a horizontal flip")
    augmentations: list[dict[str, Any]] = Field(
        [], description="further albumentations transforms: [{name: ColorJitter, p: 0.5}]"
    )
    workers: int | Literal["auto"] = Field(
        "auto", description="loader processes; auto: none on CPU, up to 4 for a GPU"
    )
    timeout: float = Field(
        300.0, ge=0, description="seconds that a batch may take, after which its pictures are named; 0: any"
    )
    cache: str = Field(
        "auto", description="auto: in data.root/.cache when the disk has room; never; or a folder"
    )
    skip_broken: bool = Field(False, description="leave broken pictures out instead of stopping")

    @field_validator("domain")
    @classmethod
    def _is_a_name(cls, domain: str) -> str:
        """Runs and data sets are written to folders that are called by it, and to none elsewhere."""
        path = PurePath(domain)
        if path.is_absolute() or ".." in path.parts or not path.name or one_line(domain) != domain:
            raise ValueError("expected a folder's name, without .. and control characters")
        return domain

    @model_validator(mode="after")
    def _fits(self) -> "DataSettings":
        if (self.a is None) != (self.b is None):
            raise ValueError("a and b go together: give both folders, or none to use data.root/data.domain")
        if (self.test_a or self.test_b) and self.a is None:
            raise ValueError("test_a and test_b go with a and b")
        if self.resize != "none" and self.crop_size > self.load_size:
            raise ValueError(
                f"crop_size: {self.crop_size} is larger than load_size, {self.load_size}; lower it or raise load_size"
            )
        if isinstance(self.workers, int) and self.workers < 0:
            raise ValueError(f"workers: expected 0 or more, got {self.workers}")
        return self
