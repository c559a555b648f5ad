"""CycleGAN: unpaired translation through cycle consistency (Zhu et al. 2017, arXiv:1703.10593).

Order and weights are those of the published code: first the generators, on fresh fakes; then the discriminators, on
fakes from the replay buffer, with half their loss. Identity weights are absolute here: the published
"lambda_identity 0.5" multiplies the cycle weight of 10, which gives 5.
"""

from functools import partial
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

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
from gan_nst.networks.patchgan import PatchGanSpec
from gan_nst.networks.resnet import ResnetSpec
from gan_nst.objectives.losses import ADVERSARIAL, l1, together
from gan_nst.objectives.replay import ReplayBuffer


class CycleGanSettings(MethodSettings):
    """The settings of CycleGAN. Defaults are the published values."""

    name: Literal["cyclegan"] = "cyclegan"
    generator: ResnetSpec = Field(ResnetSpec(), description="both generators")
    discriminator: PatchGanSpec = Field(PatchGanSpec(), description="both discriminators")
    adversarial: Literal["lsgan", "bce"] = Field("lsgan", description="adversarial loss")
    cycle_weight: float = Field(10.0, ge=0, description="of |ba(ab(a)) - a| and |ab(ba(b)) - b|")
    identity_weight: float = Field(
        5.0, ge=0, description="of |ba(a) - a| and |ab(b) - b|; 0: without these terms"
    )
    replay: int = Field(50, ge=0, description="images in each replay buffer; 0: none")
    learning_rate: float = Field(2e-4, gt=0, description="of both optimizers, before the decay")
    betas: tuple[float, float] = Field((0.5, 0.999), description="Adam's moment decays")
    decay_from: float = Field(
        0.5, ge=0, le=1, description="share of the steps after which the rate falls to zero"
    )
    decay_by: Literal["step", "epoch"] = Field(
        "step", description="how the rate falls: every step, or every epoch"
    )


class CycleGan(Method):
    """Two generators and two discriminators; two updates per step."""

    Settings = CycleGanSettings
    paper = "Zhu et al. 2017, Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks"
    streams: ClassVar = {"real_a": Stream("a"), "real_b": Stream("b")}

    def __init__(self, settings: CycleGanSettings, plan: Plan) -> None:
        super().__init__(settings, plan)
        self.settings = settings
        self.plan = plan
        self.generators = nn.ModuleDict({"ab": build(settings.generator), "ba": build(settings.generator)})
        self.discriminators = nn.ModuleDict(
            {"a": build(settings.discriminator), "b": build(settings.discriminator)}
        )
        self.replays = nn.ModuleDict(
            {"a": ReplayBuffer(settings.replay, plan.seed), "b": ReplayBuffer(settings.replay, plan.seed + 1)}
        )
        self.adversarial = ADVERSARIAL[settings.adversarial]

    def roles(self) -> dict[str, Role]:
        rate = partial(learning_rate, self.settings, self.plan)
        return {
            "generator": Role(self.generators, rate, self.settings.betas),
            "discriminator": Role(self.discriminators, rate, self.settings.betas),
        }

    def updates(self, step: int) -> list[Update]:
        return [
            Update("generator", self.generator_losses),
            Update("discriminator", self.discriminator_losses),
        ]

    def translations(self) -> dict[str, Translation]:
        return {"ab": Translation("ab", "a", "b"), "ba": Translation("ba", "b", "a")}

    def generator_losses(self, batch: Batch) -> Losses:
        """Adversarial, cycle and identity terms (equations 1 to 3 and section 5.2); leaves fake_a and fake_b."""
        s, real_a, real_b = self.settings, batch["real_a"], batch["real_b"]
        ab, ba = self.generators["ab"], self.generators["ba"]
        identity = s.identity_weight > 0
        fake_b, *identity_b = together(ab, real_a, *([real_b] if identity else []))
        fake_a, reconstructed_a, *identity_a = together(ba, real_b, fake_b, *([real_a] if identity else []))
        reconstructed_b = ab(fake_a)
        batch["fake_a"], batch["fake_b"] = fake_a.detach(), fake_b.detach()
        (scores_a,) = self.score(self.discriminators["a"], fake_a)
        (scores_b,) = self.score(self.discriminators["b"], fake_b)
        losses = {
            "adversarial_ab": self.adversarial(scores_b, True),
            "adversarial_ba": self.adversarial(scores_a, True),
            "cycle_a": s.cycle_weight * l1(reconstructed_a, real_a),
            "cycle_b": s.cycle_weight * l1(reconstructed_b, real_b),
        }
        if identity:
            losses["identity_a"] = s.identity_weight * l1(identity_a[0], real_a)
            losses["identity_b"] = s.identity_weight * l1(identity_b[0], real_b)
        return losses

    def discriminator_losses(self, batch: Batch) -> Losses:
        """Half the sum of the real and the fake term, so that the discriminators learn more slowly (section 7.1)."""
        return {f"discriminator_{domain}": self._discriminator_loss(domain, batch) for domain in ("a", "b")}

    def _discriminator_loss(self, domain: str, batch: Batch) -> Tensor:
        pooled = self.replays[domain](batch[f"fake_{domain}"])
        real, fake = self.score(self.discriminators[domain], batch[f"real_{domain}"], pooled)
        return 0.5 * (self.adversarial(real, True) + self.adversarial(fake, False))


def learning_rate(settings: CycleGanSettings, plan: Plan, step: int) -> float:
    """Returns the rate at a step: constant, then falling linearly, every step to zero or every epoch as published."""
    if settings.decay_by == "step":
        start = round(settings.decay_from * plan.steps)
        return settings.learning_rate * (1 - max(0, step - start) / max(1, plan.steps - start))
    # Published: with n constant and m decaying epochs, epoch e (from 1) has the factor 1 - max(0, e - n) / (m + 1).
    epoch, epochs = step // plan.steps_per_epoch + 1, -(-plan.steps // plan.steps_per_epoch)
    constant = round(settings.decay_from * epochs)
    return settings.learning_rate * (1 - max(0, epoch - constant) / (epochs - constant + 1))
