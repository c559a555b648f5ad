"""CycleGAN as a plain loop, written out: what our trainer must equal, and what its speed is compared with.

It imports torch alone. Layers and order are those of the published PyTorch code, in one file and without
options: six separate generator passes, separate discriminator passes, torch's default Adam, plain float32 (or
float64).
"""

import random

import torch
from torch import Tensor, nn


class Residual(nn.Sequential):
    """x + branch(x)."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3, bias=False),
            nn.InstanceNorm2d(channels),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3, bias=False),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as x."""
        out: Tensor = x + super().forward(x)  # type: ignore[no-untyped-call]
        return out


def generator(width: int = 64, blocks: int = 9) -> nn.Sequential:
    """The ResNet generator with two down-samplings and transposed convolutions, without its dead biases."""
    w = width
    layers: list[nn.Module] = [
        nn.ReflectionPad2d(3),
        nn.Conv2d(3, w, 7, bias=False),
        nn.InstanceNorm2d(w),
        nn.ReLU(),
    ]
    for c in (w, 2 * w):
        layers += [nn.Conv2d(c, 2 * c, 3, 2, 1, bias=False), nn.InstanceNorm2d(2 * c), nn.ReLU()]
    layers += [Residual(4 * w) for _ in range(blocks)]
    for c in (4 * w, 2 * w):
        layers += [
            nn.ConvTranspose2d(c, c // 2, 3, 2, 1, 1, bias=False),
            nn.InstanceNorm2d(c // 2),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(w, 3, 7), nn.Tanh())


def discriminator(width: int = 64, layers: int = 3) -> nn.Sequential:
    """The PatchGAN, without its dead biases."""
    modules: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
    channels = width
    for number in range(1, layers + 1):
        wider = width * min(2**number, 8)
        stride = 2 if number < layers else 1
        modules += [
            nn.Conv2d(channels, wider, 4, stride, 1, bias=False),
            nn.InstanceNorm2d(wider),
            nn.LeakyReLU(0.2),
        ]
        channels = wider
    return nn.Sequential(*modules, nn.Conv2d(channels, 1, 4, 1, 1))


class Pool:
    """The history of fakes; `draw` returns numbers in [0, 1) and stands in for the random generator."""

    def __init__(self, capacity: int, draw: random.Random) -> None:
        self.capacity = capacity
        self.draw = draw
        self.images: list[Tensor] = []

    def __call__(self, fakes: Tensor) -> Tensor:
        """As many images as given."""
        returned = []
        for fake in fakes:
            if len(self.images) < self.capacity:
                self.images.append(fake)
            elif self.draw.random() > 0.5:
                chosen = self.draw.randrange(self.capacity)
                self.images[chosen], fake = fake, self.images[chosen]
            returned.append(fake)
        return torch.stack(returned)


class Reference(nn.Module):
    """The four networks, two optimizers and one `step`.

    cycle, identity: final weights of the terms. The learning rate is set from outside, through the
    optimizers.
    """

    def __init__(
        self,
        width: int = 64,
        blocks: int = 9,
        discriminator_width: int = 64,
        layers: int = 3,
        cycle: float = 10.0,
        identity: float = 5.0,
        pool: int = 50,
    ) -> None:
        super().__init__()
        self.ab, self.ba = generator(width, blocks), generator(width, blocks)
        self.discriminators = nn.ModuleDict(
            {domain: discriminator(discriminator_width, layers) for domain in "ab"}
        )
        generators = [*self.ab.parameters(), *self.ba.parameters()]
        self.generator_adam = torch.optim.Adam(generators, 2e-4, (0.5, 0.999))
        self.discriminator_adam = torch.optim.Adam(self.discriminators.parameters(), 2e-4, (0.5, 0.999))
        self.pools = {domain: Pool(pool, random.Random(seed)) for seed, domain in enumerate("ab")}
        self.cycle, self.identity = cycle, identity

    def step(self, real_a: Tensor, real_b: Tensor) -> dict[str, float]:
        """One step on a batch of each domain, (n, 3, h, w) in [-1, 1]; returns the weighted terms."""
        fake_b = self.ab(real_a)
        reconstructed_a = self.ba(fake_b)
        fake_a = self.ba(real_b)
        reconstructed_b = self.ab(fake_a)
        identity_b, identity_a = self.ab(real_b), self.ba(real_a)
        self.discriminators.requires_grad_(False)
        terms = {
            "adversarial_ab": (self.discriminators["b"](fake_b) - 1).pow(2).mean(),
            "adversarial_ba": (self.discriminators["a"](fake_a) - 1).pow(2).mean(),
            "cycle_a": self.cycle * (reconstructed_a - real_a).abs().mean(),
            "cycle_b": self.cycle * (reconstructed_b - real_b).abs().mean(),
            "identity_a": self.identity * (identity_a - real_a).abs().mean(),
            "identity_b": self.identity * (identity_b - real_b).abs().mean(),
        }
        self.generator_adam.zero_grad()
        sum(terms.values(), torch.zeros(())).backward()
        self.generator_adam.step()
        self.discriminators.requires_grad_(True)
        self.discriminator_adam.zero_grad()
        for domain, real, fake in (("a", real_a, fake_a), ("b", real_b, fake_b)):
            network, fake = self.discriminators[domain], self.pools[domain](fake.detach())
            loss = 0.5 * ((network(real) - 1).pow(2).mean() + network(fake).pow(2).mean())
            loss.backward()
            terms[f"discriminator_{domain}"] = loss
        self.discriminator_adam.step()
        return {name: term.item() for name, term in terms.items()}
