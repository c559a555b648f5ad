"""`gan-nst train`: from two folders of images to a run with a translator in it."""

import contextlib
import logging
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gan_nst.commands.evaluate import evaluate_run
from gan_nst.core.device import (
    choose_device,
    choose_precision,
    is_out_of_memory,
    local_rank,
    tune_convolutions,
)
from gan_nst.core.errors import (
    CheckpointError,
    DataError,
    SettingsError,
    TrainingError,
    WeightsError,
    reason,
    writing,
)
from gan_nst.core.files import OptionalOutput, write_file
from gan_nst.core.options import TrainOptions
from gan_nst.core.scores import Score, is_score, more_is_better
from gan_nst.core.settings import dump_yaml, merge
from gan_nst.data.batches import died, fixed_images, mix
from gan_nst.data.domains import DataSet, Folder
from gan_nst.diagnosis.curves import read_run
from gan_nst.diagnosis.measures import measure
from gan_nst.diagnosis.rules import diagnose
from gan_nst.evaluation.comparison import FEWEST, Metrics, compare_features
from gan_nst.evaluation.features import extract, extract_cached
from gan_nst.evaluation.paired import absolute_error
from gan_nst.images.arrays import ImageArray, to_image, to_tensor
from gan_nst.images.files import write_image
from gan_nst.inference.exported import export
from gan_nst.inference.translator import Translator
from gan_nst.methods.base import Translation
from gan_nst.runs.folder import (
    exported_path,
    feature_cache,
    find_run,
    latest,
    new_run,
    refuse_used,
    training_in,
)
from gan_nst.runs.generators import describe
from gan_nst.runs.prepare import Prepared, prepare
from gan_nst.runs.settings import RunSettings, find_config, load_settings, resume_settings
from gan_nst.runs.subjects import Subject, own_split, subjects_of
from gan_nst.training import checkpoint, distributed
from gan_nst.training.compilation import Forecast
from gan_nst.training.monitor import Monitor
from gan_nst.training.samples import sample_grid
from gan_nst.training.trainer import IntervalAction, IntervalResult, Trainer

log = logging.getLogger(__name__)


@contextlib.contextmanager
def explained(trainer: Trainer, settings: RunSettings, run: Path | None = None) -> Iterator[None]:
    """Says in one line, and with what to do, what torch says in many: memory ran out, or a loader process died.

    run: the folder that holds what can be gone on from.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if is_out_of_memory(error):
            raise TrainingError(_told(trainer, settings, run)) from None
        # torch tells of a dead loader process wherever the main one is at that moment
        told = died(error) if isinstance(error, RuntimeError) else None
        raise told or error from None


@contextlib.contextmanager
def dispensable(what: str) -> Iterator[None]:
    """Within the context, memory that runs out, or an image that can no longer be read or written, becomes a warning:
    it goes on without, "no sample grid" for example.
    """
    try:
        yield
    except DataError as error:
        log.warning(f"{what} ({error}); it goes on without")
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        log.warning(f"{what}, as memory ran out ({reason(error)[:100]}); it goes on without")


def _told(trainer: Trainer, settings: RunSettings, run: Path | None) -> str:
    """Where memory ran out, and what takes less: first what a run may go on with, as it changes nothing learned."""
    training, data = settings.training, settings.data
    alike = [] if training.activation_checkpointing else ["training.activation_checkpointing=true"]
    alike += ["data.workers=0"] if data.workers and trainer.device.type == "cpu" else []
    how = f" {' '.join(alike)}" if alike else ", when other programs leave more of it"
    newest = None if run is None else next(iter(checkpoint.newest_first(run / "checkpoints")), None)
    go_on = f"{newest} is whole; go on from it with: gan-nst train --resume {run}" if newest else "start with"
    fewer = []
    if training.batch_size > 1:
        size = 1 if training.batch_size % 2 else training.batch_size // 2
        times = training.accumulation * training.batch_size // size
        fewer.append(f"training.batch_size={size} training.accumulation={times}")
    if settings.precision == "float32" and choose_precision("auto", trainer.device) == "bfloat16":
        fewer.append("precision=bfloat16")
    fewer.append(f"a data.crop_size below {data.crop_size}")
    return (
        f"out of memory on {trainer.device} after step {trainer.step}: {go_on}{how}; or start a new run with "
        f"{' or '.join(fewer)}"
    )


# All of a run's metrics are read each time; looked at whenever there are so many times as many, they cost next to
# nothing in all.
_GROWTH = 1.1


class Watch:
    """Warns of each kind of alarm once a session, at the first look that finds it."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._next = 0.0
        self._told: set[str] = set()

    def __call__(self, step: int) -> None:
        """Looks at what was logged before a step, unless that is little more than the last time."""
        if step < self._next:
            return
        self._next = _GROWTH * step
        with suppress(DataError):  # nothing is logged yet, or it could not be, which was told
            for finding in diagnose(read_run(self._run)):
                if finding.level == "alarm" and finding.kind not in self._told:
                    self._told.add(finding.kind)
                    log.warning(
                        f"{finding.kind}, step {finding.step}: {finding.evidence} Try: {finding.advice}"
                    )


_PIXELS_A_BATCH = (
    8 * 256 * 256
)  # what a generator translates at once is far less than what its training takes


class Validation:
    """Called with a step, translates the validation images, notes what came of it, and tells a new best.

    Nothing of it touches the training: the same checkpoint gives the same numbers, and a run resumes bit by bit.
    """

    def __init__(self, trainer: Trainer, prepared: Prepared) -> None:
        settings, folders = prepared.settings, prepared.data_set.validation
        self._trainer = trainer
        self._score = settings.evaluation.score
        self._translations = prepared.method.translations()
        self._images = {
            domain: fixed_images(folder, settings.evaluation.images, settings.data)
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
            for domain, images in self._images.items():
                self._real[domain] = extract_cached(self._features, _as_images(images), self._protocol, cache)

        # Scores are compared with those that were measured alike.
        counts = ", ".join(str(len(images)) for images in self._images.values())
        digest = "" if self._features is None else f", {self._protocol}, {self._features.digest[:16]}"
        self._by = f"{counts} images{digest}"

    def __call__(self, step: int) -> IntervalResult:
        began = time.perf_counter()
        scalars: dict[str, float] = {}
        for name, translation in self._translations.items():
            inputs, targets = self._images[translation.source], self._images[translation.target]
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
        return IntervalResult(scalars, "best" if best else None)

    def _translate(self, name: str, inputs: Tensor) -> list[ImageArray]:
        images = _as_images(inputs)
        batch = max(1, _PIXELS_A_BATCH // inputs[0, 0].numel())
        return [
            output
            for start in range(0, len(images), batch)
            for output in self._translators[name].translate(images[start : start + batch])
        ]

    def _judge(self, outputs: list[ImageArray], translation: Translation) -> dict[str, Score]:
        scores: dict[str, Score] = {}
        if self._features is not None:
            found = extract(self._features, outputs, self._protocol)
            scores, _ = compare_features(
                self._features, found, self._real[translation.target], all_of_them=False
            )
        if self._paired:
            truths = _as_images(self._images[translation.target])
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
    """Whether there are validation images enough to compare; says so when there are not."""
    fewest = min(len(folder.files) for folder in prepared.data_set.validation.values())
    if fewest < FEWEST:
        log.info(
            f"{fewest} validation images: too few to compare, so no score tells the best step; give valA and valB, "
            "or a larger data.held_out"
        )
    return fewest >= FEWEST


def _as_images(images: Tensor) -> list[ImageArray]:
    return [to_image(image) for image in images]


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
        images = {domain: fixed_images(folder, count, settings.data) for domain, folder in folders.items()}
        grid = sample_grid(generators, translations, images, prepared.device)
        write_image(grid, run / "samples" / "final.png")
    which = subjects[first].exported
    why = f"best by {settings.evaluation.score} on the validation images" if which == "best" else "the last"
    log.info(f"exported:   {exported_path(run, first, first)} (step {subjects[first].steps[which]}, {why})")
    _say_what_is_next(run, settings, bool(evaluation))


def _evaluate(run: Path, prepared: Prepared, subjects: Mapping[str, Subject]) -> dict[str, Any]:
    """The evaluation on the test split; nothing, with a warning, where there are no images for it."""
    settings = prepared.settings
    features = settings.evaluation.features
    try:
        split = own_split(settings, prepared.data_set, prepared.images)
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
    """The last lines of a training: where the images are, and what to type."""
    data = settings.data
    if (run / "samples" / "final.png").exists():
        log.info(f"images:   {run / 'samples' / 'final.png'}")
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


def train(
    config: Path | str | None = None,
    overrides: Sequence[str] = (),
    options: TrainOptions = TrainOptions(),
) -> Path | None:
    """Trains, or resumes training, and returns the run folder; None after a dry run.

    config: a YAML file; without one, `options.domain` and `options.method` choose it. overrides: `section.key=value`
    texts. Raises GanNstError, one line, for every mistake in what was given.
    """
    if options.resume is None:
        start = _begin(Path(config) if config else None, list(overrides), options.domain, options.method)
    elif config or options.domain or options.method or options.output:
        raise SettingsError(
            "--resume takes its settings from the run; omit the settings file, --domain, --method and --output"
        )
    else:
        start = _go_on(options.resume, overrides)
    with distributed.session(start.device.type):
        return _train(start, options.output, options.dry_run)


@dataclass(frozen=True)
class _Start:
    """Where a session of training begins."""

    settings: RunSettings
    device: torch.device
    run: Path | None = None
    payload: dict[str, Any] | None = None


def _begin(config: Path | None, overrides: list[str], domain: str | None, method: str | None) -> _Start:
    if config is None:
        if domain is None:
            raise SettingsError("nothing to train: give a settings file, --domain NAME, or --resume RUN")
        config = find_config(domain, method or "cyclegan")
        overrides = [f"data.domain={domain}", *overrides]
    elif method is not None or domain is not None:
        raise SettingsError("--domain and --method choose a settings file; give either them or the file")
    settings, device, small = load_settings(config, overrides)
    if small:
        size = settings.data.crop_size
        log.info(f"on the CPU: the small job of {config}'s on_cpu block ({size}-pixel crops, small networks)")
    return _Start(settings, device)


def _go_on(path: Path, overrides: Sequence[str]) -> _Start:
    run = find_run(path)
    file, payload = checkpoint.load_newest(run / "checkpoints")
    # stop_at ended the session that it was given to, and no other.
    saved = merge(payload["settings"], {"training": {"stop_at": None}})
    before, settings = resume_settings(saved, overrides, file)
    log.info(f"going on from {file}, step {payload['step']}")
    old, new = before.training.steps, settings.training.steps
    if new != old:
        log.warning(
            f"training.steps {old} -> {new}: schedules now follow {new} steps, "
            "so at a step the learning rate, and a warm-up if there is one, are no longer what they were"
        )
    return _Start(settings, choose_device(settings.device), run, payload)


def _train(start: _Start, out: Path | None, dry_run: bool) -> Path | None:
    device = start.device
    if device.type == "cuda" and distributed.world_size() > 1:
        device = torch.device("cuda", local_rank())
        torch.cuda.set_device(device)
    tune_convolutions(device)
    if distributed.rank() != 0:
        logging.getLogger("gan_nst").setLevel(logging.WARNING)
    prepared = prepare(start.settings, device, start.payload)
    settings = prepared.settings
    if dry_run:
        _rehearse(prepared, start.payload["step"] if start.payload else 0)
        return None
    run = start.run or distributed.broadcast(
        new_run(settings.data.domain, settings.method_name, out) if distributed.rank() == 0 else None
    )
    with training_in(run) if distributed.rank() == 0 else contextlib.nullcontext():
        if start.run is None and distributed.rank() == 0:
            refuse_used(run)  # by a run that began and ended since
        _train_in(run, prepared, start.payload)
    return run


def _train_in(run: Path, prepared: Prepared, payload: dict[str, Any] | None) -> None:
    """Trains in a run's folder, from its beginning or from a checkpoint."""
    settings = prepared.settings
    trainer = _trainer(prepared, run, compiled=settings.compile == "always")
    if settings.compile == "always":
        log.info("the networks are compiled at the first step, which takes a minute or two")
    torch.manual_seed(mix(settings.seed, "training", distributed.rank()))
    with explained(trainer, settings, run):
        if payload is not None:
            trainer.restore(payload)
        trainer.interval_actions = _intervals(trainer, prepared, run)
        if distributed.rank() != 0:
            trainer.run(prepared.until)
            return
        _run(trainer, prepared, run)
        finish(run, prepared)
    if trainer.step < (settings.training.steps or 0):
        log.info(
            f"stopped at {trainer.step} of {settings.training.steps}; go on with: gan-nst train --resume {run}"
        )


def _trainer(prepared: Prepared, run: Path, compiled: bool) -> Trainer:
    return Trainer(
        prepared.method,
        prepared.settings.training,
        prepared.batches,
        device=prepared.device,
        precision=prepared.settings.precision,
        checkpoints=run / "checkpoints",
        header=prepared.header,
        compiled=compiled,
        images_of=prepared.batches.files,
    )


def _rehearse(prepared: Prepared, first: int) -> None:
    """Says what would be trained, and what some steps, which are taken and thrown away, tell of the whole."""
    settings = prepared.settings
    trainer = _trainer(prepared, Path(), compiled=False)
    trainer.step = max((settings.training.steps or 1) - 1, 0)  # any warm-up is over by then
    forecast, told = Forecast(prepared.device, first, prepared.until), None
    with explained(trainer, settings):
        for step, micro_batches in enumerate(prepared.batches(first), first + 1):
            if told or step > prepared.until:
                break
            trainer.train_step(micro_batches)
            told = forecast.after(step)
    log.info(f"{dump_yaml(settings.model_dump(mode='json'))}dry run: no run was made; {_sizes(prepared)}")
    if told:
        log.info(told + (", before the networks are compiled" if settings.compile == "always" else ""))
    elif first >= prepared.until:
        log.info(f"nothing is left to do: the run is at step {first} of {prepared.until}")


def _run(trainer: Trainer, prepared: Prepared, run: Path) -> None:
    """Trains under a monitor."""
    settings = prepared.settings
    plain = dump_yaml(settings.model_dump(mode="json"))
    write_file(run / "settings.yaml", plain)
    if trainer.step < prepared.until:
        forget(run, prepared.method.translations())
    monitor = Monitor(run, trainer.step, prepared.until)
    monitor.text("settings", plain)
    trainer.monitor = monitor
    trainer.forecast = Forecast(trainer.device, trainer.step, prepared.until, prepared.growth)
    try:
        trainer.run(prepared.until)
    finally:
        monitor.close()


def _intervals(trainer: Trainer, prepared: Prepared, run: Path) -> list[IntervalAction]:
    """What happens in the loop beside training: validation, sample grids of validation or else training images, and
    looks at the curves.

    Rank 0 alone does it; the others need to know when.
    """
    settings, data_set = prepared.settings, prepared.data_set
    validates = can_validate(prepared)
    draw = validate = watch = None
    if distributed.rank() == 0:
        watched = (
            data_set.validation if all(f.files for f in data_set.validation.values()) else data_set.training
        )
        count = min(settings.training.sample_count, *(len(folder.files) for folder in watched.values()))
        samples = {domain: fixed_images(folder, count, settings.data) for domain, folder in watched.items()}
        draw = partial(_draw_samples, trainer, samples, run, OptionalOutput(run / "samples"))
        validate = partial(_validate, Validation(trainer, prepared)) if validates else None
        watch = Watch(run)
    every = settings.training.sample_every
    intervals = [IntervalAction(every, draw), IntervalAction(every, watch)]
    if validates:
        intervals.append(IntervalAction(settings.evaluation.every, validate, at_end=True))
    return intervals


def _draw_samples(
    trainer: Trainer, images: dict[str, Tensor], run: Path, effort: OptionalOutput, step: int
) -> None:
    with dispensable(f"step {step}: no sample grid"):
        grid = sample_grid(trainer.ema.networks, trainer.method.translations(), images, trainer.device)
        with effort.attempt():
            write_image(grid, run / "samples" / f"step-{step:06d}.png")
        if trainer.monitor is not None:
            trainer.monitor.image(step, "samples", grid, step // trainer.settings.sample_every)


def _validate(validation: Validation, step: int) -> IntervalResult | None:
    with dispensable(f"step {step}: no validation"):
        return validation(step)
    return None


def _sizes(prepared: Prepared) -> str:
    roles = prepared.method.roles()
    counts = {name: sum(p.numel() for p in role.networks.parameters()) for name, role in roles.items()}
    return ", ".join(f"{name} {count / 1e6:.2f} M parameters" for name, count in counts.items())
