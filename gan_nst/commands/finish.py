"""What a run ends with: exported generators, the final samples, and how good they are where the truth is
known.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from gan_nst.commands.prepare import Prepared
from gan_nst.commands.runs import exported_path, latest
from gan_nst.commands.settings import RunSettings
from gan_nst.data.fixed import fixed_pictures
from gan_nst.data.folders import DataSet, Folder
from gan_nst.data.pictures import Pictures
from gan_nst.errors import DataError, writing
from gan_nst.evaluation.cost import generator_cost
from gan_nst.evaluation.paired import colour_statistics, map_colours, paired_score
from gan_nst.images import Picture, read_picture, resize_picture, write_picture
from gan_nst.inference.exported import Description, TrainingScale, export
from gan_nst.inference.folder import translate_stream
from gan_nst.inference.translator import Translator
from gan_nst.methods.base import Translation
from gan_nst.training.samples import picture_grid, sample_grid

log = logging.getLogger(__name__)

_MOST_FITTED = 1000  # training pictures of a domain that the colour map is fitted on


def forget(run: Path, translations: Mapping[str, Translation]) -> None:
    """Removes what an earlier session ended with, which the training that goes on makes stale."""
    first = next(iter(translations))
    results = [run / "evaluation.json", run / "samples" / "final.png"]
    for path in results + [exported_path(run, name, first) for name in translations]:
        path.unlink(missing_ok=True)


def finish(run: Path, generators: nn.ModuleDict, prepared: Prepared) -> None:
    """Evaluates on a paired test split, exports every translation, draws `samples/final.png`, and says what is next."""
    settings, data_set = prepared.settings, prepared.data_set
    translations = prepared.method.translations()
    translators = {}
    for name, translation in translations.items():
        generator = generators[translation.generator]
        description = describe(generator, name, settings)
        translators[name] = Translator(generator, description, str(prepared.device), settings.precision)
    evaluation: dict[str, Any] = {}
    try:
        pairs = _read_pairs(data_set, settings)
    except DataError as error:
        log.warning(f"no evaluation on the test split: {error}")
        pairs = {}
    if pairs:
        evaluation = _evaluate(run, translators, translations, pairs, prepared.pictures)
    first = next(iter(translations))
    for name, translator in translators.items():
        scores = {
            f"test_{kind}": value for kind, value in evaluation.get(name, {}).get("translated", {}).items()
        }
        description = translator.description.model_copy(update={"scores": scores})
        export(translator.generator, description, exported_path(run, name, first))
    grid = sample_grid(
        generators,
        translations,
        fixed_pictures(_shown(data_set), settings.training.sample_count, settings.data),
        prepared.device,
    )
    write_picture(grid, run / "samples" / "final.png")
    if evaluation:
        _report_cost(run, translators[first], evaluation, settings)
    _say_what_is_next(run, settings)


def _report_cost(
    run: Path, translator: Translator, evaluation: dict[str, Any], settings: RunSettings
) -> None:
    """Adds the generator's size and speed to the evaluation, and saves it."""
    cost = generator_cost(translator.generator, translator, settings.data.crop_size)
    evaluation["generator"] = asdict(cost)
    with writing(run / "evaluation.json"):
        (run / "evaluation.json").write_text(json.dumps(evaluation, indent=2) + "\n", encoding="utf-8")
    log.info(
        f"generator: {cost.parameters / 1e6:.2f} M parameters, {cost.multiply_adds / 1e9:.2f} G multiply-adds and "
        f"{cost.milliseconds:.1f} ms a picture of {cost.size} pixels"
    )


def _say_what_is_next(run: Path, settings: RunSettings) -> None:
    """The last lines of a training: where the pictures are, and what to type."""
    data = settings.data
    log.info(f"pictures:   {run / 'samples' / 'final.png'}")
    log.info(f"translate:  gan-nst translate {run} MY_PHOTOS --output TRANSLATED")
    log.info(f"curves:     tensorboard --logdir {run}")
    if latest(data.domain, settings.method_name) == run.resolve():
        make = f"make translate DOMAIN={data.domain} METHOD={settings.method_name}"
        log.info(f"or:         {make} INPUT=MY_PHOTOS OUTPUT=TRANSLATED")
        log.info(f"            make tensorboard DOMAIN={data.domain}")


def describe(generator: nn.Module, translation: str, settings: RunSettings) -> Description:
    """What an exported generator of this run says of itself."""
    return Description(
        network=generator.spec.model_dump(),  # type: ignore[union-attr,operator]
        translation=translation,
        training_scale=TrainingScale(
            load_size=settings.data.load_size, crop_size=settings.data.crop_size, resize=settings.data.resize
        ),
        method=settings.method_name,
    )


def _shown(data_set: DataSet) -> Mapping[str, Folder]:
    """The folders final samples come from: test, else validation, else training."""
    for folders in (data_set.test, data_set.validation):
        if all(folder.files for folder in folders.values()):
            return folders
    return data_set.training


def _read_pairs(data_set: DataSet, settings: RunSettings) -> dict[str, dict[Path, Picture]]:
    """By domain, the paired test pictures under their common name, at the training's scale; empty without
    pairs.
    """
    pairs: dict[str, dict[Path, Picture]] = {"a": {}, "b": {}}
    for path_a, path_b in data_set.paired_test():
        name = path_a.relative_to(data_set.test["a"].root).with_suffix(".png")
        for domain, path in (("a", path_a), ("b", path_b)):
            pairs[domain][name] = resize_picture(
                read_picture(path), settings.data.load_size, settings.data.resize
            )
        if pairs["a"][name].shape != pairs["b"][name].shape:
            raise DataError(f"{path_a}: not of the same proportions as its pair, {path_b}")
    return pairs if pairs["a"] else {}


def _evaluate(
    run: Path,
    translators: Mapping[str, Translator],
    translations: Mapping[str, Translation],
    pairs: Mapping[str, Mapping[Path, Picture]],
    pictures: Mapping[str, Pictures],
) -> dict[str, Any]:
    """The paired scores of every translation, of the untouched input and of the best colour map; draws a
    sheet of each.
    """
    statistics = {domain: colour_statistics(_spread(pictures[domain])) for domain in pictures}
    result: dict[str, Any] = {"split": "test", "pairs": len(pairs["a"])}
    for name, translator in translators.items():
        source, target = translations[name].source, translations[name].target
        inputs, truths = pairs[source], pairs[target]
        outputs = dict(translate_stream(translator, inputs.items()))
        for path, picture in outputs.items():
            write_picture(picture, run / "translated" / name / path)
        mapped = [map_colours(picture, statistics[source], statistics[target]) for picture in inputs.values()]
        ordered = [outputs[path] for path in inputs]
        scores = {
            "translated": paired_score(ordered, list(truths.values())),
            "untouched": paired_score(list(inputs.values()), list(truths.values())),
            "colour_map": paired_score(mapped, list(truths.values())),
        }
        result[name] = {kind: asdict(score) for kind, score in scores.items()}
        described = ", ".join(
            f"{kind.replace('_', ' ')} {s.error:.4f} (SSIM {s.ssim:.3f})" for kind, s in scores.items()
        )
        log.info(f"{name} against the truth of {len(inputs)} test pictures, mean absolute error: {described}")
        shown = _alike(inputs)
        columns = [("input", inputs), ("translated", outputs), ("truth", truths)]
        sheet = picture_grid([(caption, [column[path] for path in shown]) for caption, column in columns])
        write_picture(sheet, run / "samples" / f"test_{name}.png")
    return result


def _spread(pictures: Pictures) -> Iterator[Picture]:
    """At most so many pictures, evenly spread."""
    for index in np.unique(
        np.linspace(0, len(pictures) - 1, min(len(pictures), _MOST_FITTED)).round().astype(int)
    ):
        yield pictures[int(index)]


def _alike(pictures: Mapping[Path, Picture]) -> list[Path]:
    """The first eight pictures that have the size of the first."""
    shape = next(iter(pictures.values())).shape
    return [path for path, picture in pictures.items() if picture.shape == shape][:8]
