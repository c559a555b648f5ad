"""What a run ends with: its evaluation, exported generators, and the final samples."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from gan_nst.commands.evaluate import evaluate_run
from gan_nst.commands.shortage import dispensable
from gan_nst.core.errors import CheckpointError, DataError, WeightsError, writing
from gan_nst.core.scores import is_score
from gan_nst.data.domains import DataSet, Folder
from gan_nst.data.fixed import fixed_pictures
from gan_nst.evaluation.comparison import Metrics
from gan_nst.images.files import write_picture
from gan_nst.inference.exported import export
from gan_nst.methods.base import Translation
from gan_nst.runs.folder import exported_path, feature_cache, latest
from gan_nst.runs.prepare import Prepared
from gan_nst.runs.settings import RunSettings
from gan_nst.runs.subjects import Subject, own_split, subjects_of
from gan_nst.training import checkpoint
from gan_nst.training.samples import sample_grid

log = logging.getLogger(__name__)


def forget(run: Path, translations: Mapping[str, Translation]) -> None:
    """Removes what an earlier session ended with, which the training that goes on makes stale."""
    first = next(iter(translations))
    results = [run / "evaluation.json", run / "report.html", run / "samples" / "final.png"]
    results += (run / "samples").glob("test_*.png")
    shutil.rmtree(run / "translated", ignore_errors=True)
    with writing(run):
        for path in results + [exported_path(run, name, first) for name in translations]:
            path.unlink(missing_ok=True)


def finish(run: Path, prepared: Prepared) -> None:
    """Judges the last and the best checkpoint on the test split, exports every translation, draws
    `samples/final.png`, and says what is next.
    """
    settings = prepared.settings
    payload = checkpoint.load_newest(run / "checkpoints")[1]
    subjects = subjects_of(run, payload, prepared.device, settings.precision, settings.evaluation.export)
    first = next(iter(subjects))
    chosen = {name: subject.translators[subject.exported] for name, subject in subjects.items()}
    for name, translator in chosen.items():  # whatever comes of the evaluation, the generators are there
        export(translator.generator, translator.description, exported_path(run, name, first))
    evaluation: dict[str, Any] = {}
    with dispensable(f"no evaluation on the test split (gan-nst evaluate {run} makes up for it)"):
        evaluation = _evaluate(run, prepared, subjects)
    for name, translator in chosen.items():
        values = evaluation.get(name, {}).get(subjects[name].exported, {})
        scores = {f"test_{key}": value for key, value in values.items() if is_score(key)}
        description = translator.description.model_copy(update={"scores": scores})
        export(translator.generator, description, exported_path(run, name, first))
    translations = prepared.method.translations()
    generators = nn.ModuleDict({t.generator: chosen[name].generator for name, t in translations.items()})
    folders = _shown(prepared.data_set)
    count = min(settings.training.sample_count, *(len(folder.files) for folder in folders.values()))
    with dispensable("no final sample grid"):
        pictures = {
            domain: fixed_pictures(folder, count, settings.data) for domain, folder in folders.items()
        }
        grid = sample_grid(generators, translations, pictures, prepared.device)
        write_picture(grid, run / "samples" / "final.png")
    which = subjects[first].exported
    why = f"best by {settings.evaluation.score} on the validation pictures" if which == "best" else "the last"
    log.info(f"exported:   {exported_path(run, first, first)} (step {subjects[first].steps[which]}, {why})")
    _say_what_is_next(run, settings, bool(evaluation))


def _evaluate(run: Path, prepared: Prepared, subjects: Mapping[str, Subject]) -> dict[str, Any]:
    """The evaluation on the test split; nothing, with a warning, where there are no pictures for it."""
    settings = prepared.settings
    features = settings.evaluation.features
    try:
        split = own_split(settings, prepared.data_set, prepared.pictures)
        metrics = Metrics.choose(
            "auto" if features == "none" else features,
            settings.evaluation.protocol,
            prepared.device,
            weights=settings.evaluation.weights,
            cache=feature_cache(settings.data),
        )
        return evaluate_run(run, subjects, split, metrics)
    except (CheckpointError, DataError, WeightsError) as error:
        log.warning(f"no evaluation on the test split: {error}")
        return {}


def _say_what_is_next(run: Path, settings: RunSettings, evaluated: bool) -> None:
    """The last lines of a training: where the pictures are, and what to type."""
    data = settings.data
    if (run / "samples" / "final.png").exists():
        log.info(f"pictures:   {run / 'samples' / 'final.png'}")
    if evaluated:
        log.info(f"report:     {run / 'report.html'}")
    log.info(f"translate:  gan-nst translate {run} MY_PHOTOS --output TRANSLATED")
    log.info(f"curves:     gan-nst curves {run}")
    if latest(data.domain, settings.method_name) == run.resolve():
        run_of = f"DOMAIN={data.domain} METHOD={settings.method_name}"
        log.info(f"or:         make translate {run_of} INPUT=MY_PHOTOS OUTPUT=TRANSLATED")
        log.info(f"            make curves {run_of}, make tensorboard DOMAIN={data.domain}")


def _shown(data_set: DataSet) -> Mapping[str, Folder]:
    """The folders final samples come from: test, else validation, else training."""
    for folders in (data_set.test, data_set.validation):
        if all(folder.files for folder in folders.values()):
            return folders
    return data_set.training
