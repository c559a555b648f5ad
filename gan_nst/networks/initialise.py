"""The initial weights of every network."""

from torch import nn


def initialise(network: nn.Module, deviation: float = 0.02) -> None:
    """Convolution weights from N(0, deviation), biases 0 (Zhu et al. 2017, appendix 7.1)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, deviation)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
