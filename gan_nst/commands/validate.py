"""Validation inside the training loop: how good the moving averages are on pictures that are not trained on."""

import logging
import math
import time
from dataclasses import asdict

import torch
from torch import Tensor

from gan_nst.core.scores import Score, more_is_better
from gan_nst.data.fixed import fixed_pictures
from gan_nst.diagnosis.measures import measure
from gan_nst.evaluation.comparison import FEWEST, compare
from gan_nst.evaluation.features import extract, extract_cached
from gan_nst.evaluation.paired import absolute_error
from gan_nst.images.files import Picture, to_picture, to_tensor
from gan_nst.inference.translator import Translator
from gan_nst.methods.base import Translation
from gan_nst.runs.folder import feature_cache
from gan_nst.runs.generators import describe
from gan_nst.runs.prepare import Prepared
from gan_nst.training.trainer import Noted, Trainer

log = logging.getLogger(__name__)

_PIXELS_A_BATCH = (
    8 * 256 * 256
)  # what a generator translates at once is far less than what its training takes


class Validation:
    """Called with a step, translates the validation pictures, notes what came of it, and tells a new best.

    Nothing of it touches the training: the same checkpoint gives the same numbers, and a run resumes bit by bit.
    """

    def __init__(self, trainer: Trainer, prepared: Prepared) -> None:
        settings, folders = prepared.settings, prepared.data_set.validation
        self._trainer = trainer
        self._score = settings.evaluation.score
        self._translations = prepared.method.translations()
        self._pictures = {
            domain: fixed_pictures(folder, settings.evaluation.pictures, settings.data)
            for domain, folder in folders.items()
        }
        self._paired = bool(prepared.data_set.pairs("validation"))
        generators = trainer.ema.networks
        self._translators = {
            name: Translator(
                generators[t.generator],
                describe(trainer.header["translations"][name]["network"], name, settings.model_dump()),
                str(prepared.device),
                settings.precision,
            )
            for name, t in self._translations.items()
        }
        self._features = prepared.features
        self._protocol = settings.evaluation.protocol
        self._real = {}
        if self._features is not None:
            cache = feature_cache(settings.data)
            for domain, pictures in self._pictures.items():
                self._real[domain] = extract_cached(
                    self._features, _as_pictures(pictures), self._protocol, cache
                )

        # Scores are compared with those that were measured alike.
        counts = ", ".join(str(len(pictures)) for pictures in self._pictures.values())
        digest = "" if self._features is None else f", {self._protocol}, {self._features.digest[:16]}"
        self._by = f"{counts} pictures{digest}"

    def __call__(self, step: int) -> Noted:
        began = time.perf_counter()
        scalars: dict[str, float] = {}
        for name, translation in self._translations.items():
            inputs, targets = self._pictures[translation.source], self._pictures[translation.target]
            outputs = self._translate(name, inputs)
            for key, score in self._judge(outputs, translation).items():
                scalars[f"validation/{name}/{key}"] = score.value
                if score.low is not None and score.high is not None:
                    scalars[f"validation/{name}/{key}/low"] = score.low
                    scalars[f"validation/{name}/{key}/high"] = score.high
            measured = measure(inputs, torch.stack([to_tensor(x) for x in outputs]), targets)
            scalars |= {
                f"measure/{name}/{what}": value
                for what, value in asdict(measured).items()
                if math.isfinite(value)
            }
        scalars |= self._trainer.gradient_shares()
        best = self._is_best(step, scalars.get(f"validation/{self._score}"))
        scalars["speed/validation_seconds"] = time.perf_counter() - began
        return Noted(scalars, "best" if best else None)

    def _translate(self, name: str, inputs: Tensor) -> list[Picture]:
        pictures = _as_pictures(inputs)
        batch = max(1, _PIXELS_A_BATCH // inputs[0, 0].numel())
        return [
            output
            for start in range(0, len(pictures), batch)
            for output in self._translators[name].translate(pictures[start : start + batch])
        ]

    def _judge(self, outputs: list[Picture], translation: Translation) -> dict[str, Score]:
        scores: dict[str, Score] = {}
        if self._features is not None:
            found = extract(self._features, outputs, self._protocol)
            scores, _ = compare(self._features, found, self._real[translation.target], all_of_them=False)
        if self._paired:
            truths = _as_pictures(self._pictures[translation.target])
            scores["error"] = Score.of_mean(
                [absolute_error(x, y) for x, y in zip(outputs, truths, strict=True)]
            )
        return scores

    def _is_best(self, step: int, value: float | None) -> bool:
        """Whether the chosen score has never been better; what is best so far goes into the checkpoints."""
        if value is None or not math.isfinite(value):
            return False
        best = self._trainer.notes.get("best")
        if best is not None and (best["score"], best["by"]) == (self._score, self._by):
            better = value > best["value"] if more_is_better(self._score) else value < best["value"]
            if not better:
                return False
        self._trainer.notes["best"] = {"step": step, "score": self._score, "value": value, "by": self._by}
        return True


def can_validate(prepared: Prepared) -> bool:
    """Whether there are validation pictures enough to compare; says so when there are not."""
    fewest = min(len(folder.files) for folder in prepared.data_set.validation.values())
    if fewest < FEWEST:
        log.info(
            f"{fewest} validation pictures: too few to compare, so no score tells the best step; give valA and valB, "
            "or a larger data.held_out"
        )
    return fewest >= FEWEST


def _as_pictures(pictures: Tensor) -> list[Picture]:
    return [to_picture(picture) for picture in pictures]
