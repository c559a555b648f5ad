"""Validation in the training loop: scores on the validation images, and the best step so far."""

import contextlib
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import asdict

import torch
from torch import Tensor

from gan_nst.core.device import is_out_of_memory
from gan_nst.core.errors import CheckpointError, DataError, WeightsError, reason
from gan_nst.core.scores import Score, more_is_better
from gan_nst.data.batches import fixed_images
from gan_nst.diagnosis.measures import measure
from gan_nst.evaluation.comparison import FEWEST, compare_features
from gan_nst.evaluation.features import extract, extract_cached
from gan_nst.evaluation.paired import absolute_error
from gan_nst.images.arrays import ImageArray, to_image, to_tensor
from gan_nst.inference.translator import Translator
from gan_nst.methods.base import Translation
from gan_nst.runs.folder import feature_cache
from gan_nst.runs.generators import describe
from gan_nst.runs.prepare import Prepared
from gan_nst.training.trainer import IntervalResult, Trainer

log = logging.getLogger(__name__)


@contextlib.contextmanager
def skip_on_failure(what: str) -> Iterator[None]:
    """Turns running out of memory within the context, and files that cannot be used, into a warning.

    what: the consequence, for example "no sample grid".
    """
    try:
        yield
    except (CheckpointError, DataError, WeightsError) as error:
        log.warning(f"{what}: {error}")
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        log.warning(f"{what}: out of memory ({reason(error)[:100]})")


class Validation:
    """Called with a step, translates the validation images and returns their scores; keeps the best step's checkpoint.

    It does not touch the training: the same checkpoint gives the same numbers, and a run resumes bit by bit.
    """

    def __init__(self, trainer: Trainer, prepared: Prepared) -> None:
        settings = prepared.settings
        self._trainer, self._prepared, self._protocol = trainer, prepared, settings.evaluation.protocol
        self._translations = prepared.method.translations()
        self._images = {
            domain: fixed_images(folder, settings.evaluation.images, settings.data)
            for domain, folder in prepared.data_set.validation.items()
        }
        self._paired = bool(prepared.data_set.pairs("validation"))
        self._translators = {
            name: Translator(
                trainer.ema.networks[t.generator],
                describe(trainer.header["translations"][name]["network"], name, settings.model_dump()),
                str(prepared.device),
                settings.precision,
            )
            for name, t in self._translations.items()
        }
        # Only scores that were measured in the same way are compared.
        self._measured_by = f"{', '.join(str(len(images)) for images in self._images.values())} images"
        self._real = {}
        if prepared.features is not None:
            cache = feature_cache(settings.data)
            for domain, images in self._images.items():
                self._real[domain] = extract_cached(
                    prepared.features, _as_images(images), self._protocol, cache
                )
            self._measured_by += f", {self._protocol}, {prepared.features.digest[:16]}"

    def __call__(self, step: int) -> IntervalResult | None:
        with skip_on_failure(f"step {step}: no validation"):
            return self._validate(step)
        return None

    def _validate(self, step: int) -> IntervalResult:
        began = time.perf_counter()
        scalars: dict[str, float] = {}
        for name, translation in self._translations.items():
            inputs, targets = self._images[translation.source], self._images[translation.target]
            outputs = self._translators[name].translate(_as_images(inputs))
            for key, score in self._compare(outputs, translation).items():
                scalars[f"validation/{name}/{key}"] = score.value
                if score.low is not None and score.high is not None:
                    scalars[f"validation/{name}/{key}/low"] = score.low
                    scalars[f"validation/{name}/{key}/high"] = score.high
            measured = asdict(measure(inputs, torch.stack([to_tensor(x) for x in outputs]), targets))
            scalars |= {f"measure/{name}/{key}": x for key, x in measured.items() if math.isfinite(x)}
        with skip_on_failure(f"step {step}: no gradient shares"):  # they take more memory than all else
            scalars |= self._trainer.gradient_shares()
        is_best = self._is_best(step, scalars.get(f"validation/{self._prepared.settings.evaluation.score}"))
        scalars["speed/validation_seconds"] = time.perf_counter() - began
        return IntervalResult(scalars, "best" if is_best else None)

    def _compare(self, outputs: list[ImageArray], translation: Translation) -> dict[str, Score]:
        scores: dict[str, Score] = {}
        features = self._prepared.features
        if features is not None:
            found = extract(features, outputs, self._protocol)
            scores, _ = compare_features(features, found, self._real[translation.target], all_of_them=False)
        if self._paired:
            truths = _as_images(self._images[translation.target])
            scores["error"] = Score.of_mean(
                [absolute_error(x, y) for x, y in zip(outputs, truths, strict=True)]
            )
        return scores

    def _is_best(self, step: int, value: float | None) -> bool:
        """Whether the chosen score has never been better; the best so far is kept in the checkpoints."""
        if value is None or not math.isfinite(value):
            return False
        score, notes = self._prepared.settings.evaluation.score, self._trainer.notes
        best = notes.get("best")
        if best is not None and (best["score"], best["by"]) == (score, self._measured_by):
            better = value > best["value"] if more_is_better(score) else value < best["value"]
            if not better:
                return False
        notes["best"] = {"step": step, "score": score, "value": value, "by": self._measured_by}
        return True


def can_validate(prepared: Prepared) -> bool:
    """Whether there are enough validation images to compare; logs when there are not."""
    fewest = min(len(folder.files) for folder in prepared.data_set.validation.values())
    if fewest < FEWEST:
        log.info(
            f"{fewest} validation images: too few to compare, so no step can be chosen as the best; add valA and valB, "
            "or raise data.held_out"
        )
    return fewest >= FEWEST


def _as_images(images: Tensor) -> list[ImageArray]:
    return [to_image(image) for image in images]
