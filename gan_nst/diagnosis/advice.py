"""What to try against a finding, in terms of the run's own settings."""

from collections.abc import Sequence

from gan_nst.diagnosis.curves import History


def number(history: History, path: str) -> float | None:
    """The value of a setting that is a number; None when the run has no such setting."""
    value = history.setting(path)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def scaled(history: History, path: str, factor: float, instead_of_zero: float | None = None) -> str:
    """The setting times a factor, "method.cycle_weight=20 instead of 10"; empty when the run has no such setting, or
    has 0 and there is nothing to set instead.
    """
    value = number(history, path)
    if value is None or (value == 0 and instead_of_zero is None):
        return ""
    return f"{path}={value * factor or instead_of_zero:.3g} instead of {value:.3g}"


def lower_rate(history: History) -> str:
    """Half the learning rate."""
    return scaled(history, "method.learning_rate", 0.5) or "a lower learning rate"


def weaker_discriminator(history: History) -> str:
    """A layer less, else half the width, else half the learning rate."""
    layers = number(history, "method.discriminator.layers")
    if layers is not None and layers > 1:
        return f"method.discriminator.layers={layers - 1:.0f} instead of {layers:.0f}"
    width = number(history, "method.discriminator.width")
    if width is not None and width > 1:
        return f"method.discriminator.width={width // 2:.0f} instead of {width:.0f}"
    return lower_rate(history)


def rebalance(history: History, family: str, families: Sequence[str], *, louder: bool) -> str:
    """A term's weight times or by ten; where it has none, as the adversarial term, the other terms' first weight by or
    times ten.
    """
    factor = 10.0 if louder else 0.1
    own = scaled(history, f"method.{family}_weight", factor, instead_of_zero=1 if louder else None)
    others = (scaled(history, f"method.{other}_weight", 1 / factor) for other in families if other != family)
    return own or next(filter(None, others), "") or f"another weight for {family}"
