"""Sizes at which the complete benchmark takes seconds."""

from gan_nst.commands.bench import Sizes

TOY = Sizes(step=32, width=4, blocks=1, image=32, images=2)
