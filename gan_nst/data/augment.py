"""The augmentation of training pictures: an albumentations pipeline whose draws are a function of one seed."""

import os
import random
import warnings

import numpy as np

from gan_nst.core.errors import SettingsError
from gan_nst.data.settings import DataSettings
from gan_nst.images.files import Picture

os.environ.setdefault(
    "NO_ALBUMENTATIONS_UPDATE", "1"
)  # before its import: it would ask a registry for its version


class Augmentation:
    """Random crop, horizontal flip, then whatever the settings add, by albumentations' own names."""

    def __init__(self, settings: DataSettings) -> None:
        import albumentations

        steps = [
            albumentations.RandomCrop(settings.crop_size, settings.crop_size),
            albumentations.HorizontalFlip(p=settings.flip),
        ]
        for number, entry in enumerate(settings.augmentations):
            where = f"data.augmentations[{number}]"
            options = dict(entry)
            name = options.pop("name", None)
            transform = getattr(albumentations, str(name), None)
            if not (isinstance(transform, type) and issubclass(transform, albumentations.BasicTransform)):
                raise SettingsError(
                    f"{where}: {name!r} is no albumentations transform (name: ColorJitter, for example)"
                )
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")  # it only warns of options it does not know
                    steps.append(transform(**options))
            except Exception as error:  # it raises what its validators raise
                raise SettingsError(f"{where}: {name}: {' '.join(str(error).split())}") from None
        self._pipeline = albumentations.Compose(steps)
        self._crop_size = settings.crop_size

    def __call__(self, picture: Picture, seed: int) -> Picture:
        """The augmented crop, always the same for the same picture and seed: RGB uint8 (crop_size, crop_size,
        3).
        """
        # One generator for all steps: seeded apart but alike, every step's first draw would be the same
        # number.
        self._pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
        try:
            result: Picture = self._pipeline(image=picture)["image"]
        except (
            Exception
        ) as error:  # it raises what its transforms raise: a crop larger than the picture, for example
            raise SettingsError(f"data.augmentations: {' '.join(str(error).split())}") from None
        if result.shape != (self._crop_size, self._crop_size, 3) or result.dtype != np.uint8:
            raise SettingsError(
                f"data.augmentations: they turn a crop of {self._crop_size} pixels into {result.dtype} {result.shape}"
            )
        return result
