"""CartoonGAN: photographs into cartoons, in one direction (Chen, Lai and Liu 2018, CVPR, pages 9465 to 9474).

The discriminator learns to tell cartoons from translated photographs and from cartoons with smoothed edges, so that it
demands clear edges. A content loss preserves what the photograph shows; in the warm-up the generator minimises only
that. The original training code was never published. Order and details follow the paper and, where it is silent,
znxlwm/pytorch-CartoonGAN: discriminator first, its three terms summed, the learning rate divided by ten twice.
"""

from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from gan_nst.data.domains import Stream
from gan_nst.methods.base import (
    Batch,
    Losses,
    Method,
    MethodSettings,
    Plan,
    Role,
    Translation,
    Update,
)
from gan_nst.networks import build
from gan_nst.networks.cartoon import CartoonDiscriminatorSpec
from gan_nst.networks.features import FeatureSettings, FrozenFeatures
from gan_nst.networks.features import resolve as resolve_features
from gan_nst.networks.resnet import Padding, ResnetSpec
from gan_nst.objectives.losses import ADVERSARIAL, l1


class CartoonGeneratorSpec(ResnetSpec):
    """The published generator: 8 blocks, two convolutions at every resampling, reflection padding everywhere."""

    blocks: int = Field(8, ge=1, le=100, description="residual blocks")
    convolutions: Literal[1, 2] = Field(2, description="convolutions at every down- and up-sampling")
    padding: Padding = Field("reflect", description="of the convolutions that CycleGAN pads with zeros")


class CartoonGanSettings(MethodSettings):
    """The settings of CartoonGAN. Defaults are the published values where those carry over."""

    name: Literal["cartoongan"] = "cartoongan"
    generator: CartoonGeneratorSpec = CartoonGeneratorSpec()
    discriminator: CartoonDiscriminatorSpec = CartoonDiscriminatorSpec()
    features: FeatureSettings = Field(FeatureSettings(), description="of the content loss")
    adversarial: Literal["lsgan", "bce"] = Field("bce", description="adversarial loss")
    content_weight: float = Field(1.0, ge=0, description="of the difference between features of ab(a) and a")
    warm_up: float = Field(1 / 11, ge=0, le=1, description="share of the steps with the content loss only")
    learning_rate: float = Field(2e-4, gt=0, description="of both optimizers, before the decay")
    betas: tuple[float, float] = Field((0.5, 0.999), description="Adam's moment decays")
    decay_at: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        (0.5, 0.75), description="shares of the steps after the warm-up at which the rate falls to a tenth"
    )


class CartoonGan(Method):
    """One generator and one discriminator; one update per step in the warm-up, two after it."""

    Settings = CartoonGanSettings
    paper = "Chen et al. 2018, CartoonGAN: Generative Adversarial Networks for Photo Cartoonization"
    # A cartoon and its smoothed version share crop and flip, so that within a step they differ only in their edges. The
    # paper draws them independently (its sum over S(e)); znxlwm/pytorch-CartoonGAN pairs them, as here.
    streams: ClassVar = {
        "real_a": Stream("a"),
        "real_b": Stream("b"),
        "b_smoothed": Stream("b", "smoothed", tied_to="real_b"),
    }

    resumable: ClassVar = frozenset({"features.weights"})  # the file may move; its hash is checked

    def __init__(self, settings: CartoonGanSettings, plan: Plan) -> None:
        super().__init__(settings, plan)
        self.settings = settings
        self.plan = plan
        self.generators = nn.ModuleDict({"ab": build(settings.generator)})
        self.discriminators = nn.ModuleDict({"b": build(settings.discriminator)})
        self.features = FrozenFeatures(settings.features)
        self.adversarial = ADVERSARIAL[settings.adversarial]

    @classmethod
    def resolve(cls, settings: MethodSettings) -> MethodSettings:
        assert isinstance(settings, CartoonGanSettings)
        return settings.model_copy(update={"features": resolve_features(settings.features)})

    def roles(self) -> dict[str, Role]:
        rate = partial(learning_rate, self.settings, self.plan)
        return {
            "generator": Role(self.generators, rate, self.settings.betas),
            "discriminator": Role(self.discriminators, rate, self.settings.betas),
        }

    def updates(self, step: int) -> list[Update]:
        if step < warm_up_steps(self.settings, self.plan):
            return [Update("generator", self.content_losses)]
        return [
            Update("discriminator", self.discriminator_losses),
            Update("generator", self.generator_losses),
        ]

    def translations(self) -> dict[str, Translation]:
        return {"ab": Translation("ab", "a", "b")}

    def content_losses(self, batch: Batch) -> Losses:
        """The content term (equation 4 and section 3.3)."""
        real = batch["real_a"]
        return {"content": self._content(self.generators["ab"](real), real)}

    def generator_losses(self, batch: Batch) -> Losses:
        """The generator's part of the edge-promoting adversarial loss (equation 3), and the content term."""
        fake = self.generators["ab"](batch["real_a"])
        (scores,) = self.score(self.discriminators["b"], fake)
        return {
            "adversarial": self.adversarial(scores, True),
            "content": self._content(fake, batch["real_a"]),
        }

    def discriminator_losses(self, batch: Batch) -> Losses:
        """The edge-promoting adversarial loss (equation 3): cartoons against smoothed cartoons and translations."""
        fake = self.generators["ab"](batch["real_a"]).detach()
        images = batch["real_b"], batch["b_smoothed"], fake
        real_scores, smoothed_scores, fake_scores = self.score(self.discriminators["b"], *images)
        return {
            "discriminator_real": self.adversarial(real_scores, True),
            "discriminator_smoothed": self.adversarial(smoothed_scores, False),
            "discriminator_fake": self.adversarial(fake_scores, False),
        }

    def _content(self, fake: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            wanted = self.features(real)
        return self.settings.content_weight * l1(self.features(fake), wanted)


def warm_up_steps(settings: CartoonGanSettings, plan: Plan) -> int:
    """Returns the number of steps with the content loss only."""
    return round(settings.warm_up * plan.steps)


def learning_rate(settings: CartoonGanSettings, plan: Plan, step: int) -> float:
    """Returns the rate at a step: a tenth, then a hundredth, from given shares of the steps after the warm-up."""
    start = warm_up_steps(settings, plan)
    share = (step - start) / max(1, plan.steps - start)
    return settings.learning_rate * 0.1 ** sum(share >= at for at in settings.decay_at)
