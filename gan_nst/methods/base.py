"""A method is a list of updates, each of which moves one role's networks down its losses."""

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor, nn

from gan_nst.core.errors import SettingsError, format_value
from gan_nst.core.settings import Section
from gan_nst.data.domains import Stream
from gan_nst.objectives.augment import Augmentation, augment
from gan_nst.objectives.losses import together

Batch = dict[str, Tensor]
"""One step's tensors by name: images (n, 3, h, w) in [-1, 1]. An update may leave detached fakes for a later one."""

Losses = dict[str, Tensor]
"""Weighted scalar terms by name. Their sum is minimised, and each one is logged."""


@dataclass(frozen=True)
class Role:
    """Networks that share one Adam optimizer.

    learning_rate: a pure function of the step, so that it has no state to save.
    """

    networks: nn.Module
    learning_rate: Callable[[int], float]
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0


@dataclass(frozen=True)
class Update:
    """One optimizer step: `role`'s networks move down `losses`. `after` may then clip a parameter to its range."""

    role: str
    losses: Callable[[Batch], Losses]
    after: Callable[[], None] | None = None


@dataclass(frozen=True)
class Translation:
    """A translation that users can ask for: images of `source`, through `generator`, become like those of `target`."""

    generator: str
    source: str
    target: str


@dataclass(frozen=True)
class Plan:
    """The planned length of a run, which schedules follow, and the seed of the method's own random numbers."""

    steps: int
    steps_per_epoch: int
    seed: int = 0


class MethodSettings(Section):
    """Settings of every method."""

    differentiable_augmentation: tuple[Augmentation, ...] = Field(
        (), description="of what discriminators see: colour, translation, cutout; for small data sets"
    )


class Method(nn.Module, ABC):
    """A way to train translators. The trainer only calls `updates` at every step."""

    Settings: ClassVar[type[MethodSettings]]
    paper: ClassVar[str]
    streams: ClassVar[Mapping[str, Stream]]
    resumable: ClassVar[frozenset[str]] = frozenset()  # own settings that may change when a run is resumed

    generators: nn.ModuleDict

    def __init__(self, settings: MethodSettings, plan: Plan) -> None:
        super().__init__()
        self._augmentations = settings.differentiable_augmentation

    def score(self, discriminator: nn.Module, *images: Tensor) -> Sequence[Tensor]:
        """Returns a discriminator's scores for several inputs of shape (n, 3, h, w), augmented, in one pass."""
        return together(discriminator, *(augment(x, self._augmentations) for x in images))

    @classmethod
    def resolve(cls, settings: MethodSettings) -> MethodSettings:
        """Returns the method's settings with every `auto` resolved for this machine."""
        return settings

    @abstractmethod
    def roles(self) -> dict[str, Role]:
        """Returns the roles by name. Every trained network belongs to exactly one."""

    @abstractmethod
    def updates(self, step: int) -> list[Update]:
        """Returns the updates of a step, in order."""

    @abstractmethod
    def translations(self) -> dict[str, Translation]:
        """Returns the translations by name, "ab" for example. The first is the default."""


def names() -> list[str]:
    """Returns the names of all methods, which are the other modules of this package."""
    package = importlib.import_module("gan_nst.methods")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.name != "base")


def find(name: Any) -> type[Method]:
    """Returns the method that `gan_nst.methods.<name>` defines. Raises SettingsError for an unknown name."""
    if name not in names():
        given = format_value(name)
        close = get_close_matches(given.strip("'"), names(), 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise SettingsError(f"method.name: expected one of {', '.join(names())}, got {given}{hint}")
    module = importlib.import_module(f"gan_nst.methods.{name}")
    defined = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Method) and value.__module__ == module.__name__
    ]
    assert len(defined) == 1, f"{module.__name__} must define exactly one Method"
    return defined[0]
