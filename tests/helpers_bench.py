"""Sizes at which the whole benchmark takes seconds."""

from gan_nst.commands.bench import Sizes

TOY = Sizes(step=32, width=4, blocks=1, channels=8, side=16, matrix=64, image=32, images=2, seconds=0.05)
