"""`gan-nst train`: from two folders of images to a run with a translator in it."""

import contextlib
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gan_nst.core.device import (
    choose_device,
    choose_precision,
    is_out_of_memory,
    local_rank,
    tune_convolutions,
)
from gan_nst.core.errors import (
    DataError,
    SettingsError,
    TrainingError,
    writing,
)
from gan_nst.core.files import OptionalOutput, write_file
from gan_nst.core.options import TrainOptions
from gan_nst.core.scores import is_score
from gan_nst.core.settings import dump_yaml, merge
from gan_nst.core.threads import computing_with
from gan_nst.data.batches import fixed_images, mix
from gan_nst.data.domains import Folder
from gan_nst.diagnosis.curves import read_run
from gan_nst.diagnosis.rules import diagnose
from gan_nst.evaluation.comparison import Metrics
from gan_nst.images.files import write_image
from gan_nst.inference.exported import export
from gan_nst.runs.assessment import evaluate_run
from gan_nst.runs.folder import (
    exported_path,
    feature_cache,
    find_run,
    latest,
    new_run,
    training_in,
)
from gan_nst.runs.prepare import Prepared, prepare
from gan_nst.runs.settings import RunSettings, find_config, load_settings, resume_settings
from gan_nst.runs.subjects import held_out, subjects_of
from gan_nst.runs.validation import Validation, can_validate, skip_on_failure
from gan_nst.training import checkpoint, distributed
from gan_nst.training.compilation import Forecast
from gan_nst.training.monitor import Monitor, is_selected
from gan_nst.training.samples import sample_grid
from gan_nst.training.trainer import IntervalAction, Trainer

log = logging.getLogger(__name__)


def train(
    config: Path | str | None = None,
    overrides: Sequence[str] = (),
    options: TrainOptions = TrainOptions(),
) -> Path | None:
    """Trains, or resumes training, and returns the run folder; None after a dry run.

    config: a YAML file; without one, `options.domain` and `options.method` choose it. overrides: `section.key=value`
    texts. Raises GanNstError, one line, for every mistake in what was given.
    """
    run = payload = None
    if options.resume is None:
        settings, device = _new_settings(config, overrides, options)
    elif config or options.domain or options.method or options.output:
        raise SettingsError(
            "--resume takes its settings from the run; omit the settings file, --domain, --method and --output"
        )
    else:
        run, payload, settings = load_resumed(options.resume, overrides)
        device = choose_device(settings.device)
    with distributed.session(device.type):
        if device.type == "cuda" and distributed.world_size() > 1:
            device = torch.device("cuda", local_rank())
            torch.cuda.set_device(device)
        tune_convolutions(device)
        is_main = distributed.rank() == 0
        if not is_main:
            logging.getLogger("gan_nst").setLevel(logging.WARNING)
        prepared = prepare(settings, device, payload)
        settings = prepared.settings
        assert isinstance(settings.threads, int)
        if options.dry_run:
            with computing_with(settings.threads):
                _rehearse(prepared, payload["step"] if payload else 0)
            return None
        if run is None:
            run = distributed.broadcast(
                new_run(settings.data.domain, settings.method_name, options.output) if is_main else None
            )
        with training_in(run) if is_main else contextlib.nullcontext(), computing_with(settings.threads):
            _train_in(run, prepared, payload)
    return run


def _new_settings(
    config: Path | str | None, overrides: Sequence[str], options: TrainOptions
) -> tuple[RunSettings, torch.device]:
    """The settings of a new run."""
    if config is None:
        if options.domain is None:
            raise SettingsError("nothing to train: give a settings file, --domain NAME, or --resume RUN")
        config = find_config(options.domain, options.method or "cyclegan")
        overrides = [f"data.domain={options.domain}", *overrides]
    elif options.method is not None or options.domain is not None:
        raise SettingsError("--domain and --method choose a settings file; give either them or the file")
    settings, device, small = load_settings(Path(config), overrides)
    if small:
        size = settings.data.crop_size
        log.info(f"on the CPU: the small job of {config}'s on_cpu block ({size}-pixel crops, small networks)")
    return settings, device


def load_resumed(path: Path, overrides: Sequence[str]) -> tuple[Path, dict[str, Any], RunSettings]:
    """The folder of a run, its newest checkpoint, and its settings under overrides."""
    run = find_run(path)
    file, payload = checkpoint.load_newest(run / "checkpoints")
    # stop_at applied only to the session that it was given to.
    saved = merge(payload["settings"], {"training": {"stop_at": None}})
    saved.setdefault("threads", torch.get_num_threads())  # as runs of the first version used
    settings = resume_settings(saved, overrides, file)
    log.info(f"resuming from {file}, step {payload['step']}")
    return run, payload, settings


def _rehearse(prepared: Prepared, first: int) -> None:
    """Logs what would be trained, and a forecast from a few steps, which are discarded."""
    settings = prepared.settings
    trainer = _trainer(prepared, Path(), compiled=False)
    trainer.step = max((settings.training.steps or 1) - 1, 0)  # any warm-up is over by then
    forecast, estimate = Forecast(prepared.device, first, prepared.until), None
    with _explained(trainer, settings):
        for step, micro_batches in enumerate(prepared.batches(first), first + 1):
            if estimate or step > prepared.until:
                break
            trainer.train_step(micro_batches)
            estimate = forecast.after(step)
    roles = prepared.method.roles()
    sizes = ", ".join(
        f"{name} {sum(p.numel() for p in role.networks.parameters()) / 1e6:.2f} M parameters"
        for name, role in roles.items()
    )
    log.info(f"{dump_yaml(settings.model_dump(mode='json'))}dry run: no run was created; {sizes}")
    if estimate:
        log.info(estimate + (", before the networks are compiled" if settings.compile == "always" else ""))
    elif first >= prepared.until:
        log.info(f"nothing left to train: the run is at step {first} of {prepared.until}")


def _train_in(run: Path, prepared: Prepared, payload: dict[str, Any] | None) -> None:
    """Trains in a run's folder, from its beginning or from a checkpoint, and finishes the run."""
    settings = prepared.settings
    trainer = _trainer(prepared, run, compiled=settings.compile == "always")
    if settings.compile == "always":
        log.info("compiling the networks at the first step, which takes a minute or two")
    torch.manual_seed(mix(settings.seed, "training", distributed.rank()))
    with _explained(trainer, settings, run):
        if payload is not None:
            trainer.restore(payload)
        trainer.interval_actions = _intervals(trainer, prepared, run)
        if distributed.rank() != 0:
            trainer.run(prepared.until)
            return
        plain = dump_yaml(settings.model_dump(mode="json"))
        write_file(run / "settings.yaml", plain)
        if trainer.step < prepared.until:
            _remove_results(run, prepared)
        monitor = trainer.monitor = Monitor(run, trainer.step, prepared.until)
        monitor.text("settings", plain)
        trainer.forecast = Forecast(trainer.device, trainer.step, prepared.until, prepared.growth)
        try:
            trainer.run(prepared.until)
        finally:
            monitor.close()
        _finish(run, prepared)
    if trainer.step < (settings.training.steps or 0):
        log.info(
            f"stopped at step {trainer.step} of {settings.training.steps}; resume with: gan-nst train --resume {run}"
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


def _remove_results(run: Path, prepared: Prepared) -> None:
    """Removes the results of an earlier session, which more training makes stale."""
    translations = prepared.method.translations()
    first = next(iter(translations))
    results = [run / "evaluation.json", run / "report.html", run / "samples" / "final.png"]
    results += (run / "samples").glob("test_*.png")
    results += [exported_path(run, name, first) for name in translations]
    shutil.rmtree(run / "translated", ignore_errors=True)
    with writing(run):
        for path in results:
            path.unlink(missing_ok=True)


def _intervals(trainer: Trainer, prepared: Prepared, run: Path) -> list[IntervalAction]:
    """What happens at intervals of the training, on rank 0: sample grids, looks at the curves, validation."""
    settings, is_main = prepared.settings, distributed.rank() == 0
    watch = _watching(trainer, prepared, run) if is_main else None
    intervals = [IntervalAction(settings.training.sample_every, watch)]
    if can_validate(prepared):
        validate = Validation(trainer, prepared) if is_main else None
        intervals.append(IntervalAction(settings.evaluation.every, validate, at_end=True))
    return intervals


def _watching(trainer: Trainer, prepared: Prepared, run: Path) -> Callable[[int], None]:
    """Draws a sample grid when it is called with a step, and warns of each kind of alarm in the curves once."""
    images = _fixed_images(prepared, (prepared.data_set.validation, prepared.data_set.training))
    output = OptionalOutput(run / "samples")
    warned: set[str] = set()

    def watch(step: int) -> None:
        # Events and curves are read from their beginning each time, so a longer run does this more rarely.
        selected = is_selected(step // trainer.settings.sample_every)
        with skip_on_failure(f"step {step}: no sample grid"):
            grid = sample_grid(trainer.ema.networks, trainer.method.translations(), images, trainer.device)
            with output.attempt():
                write_image(grid, run / "samples" / f"step-{step:06d}.png")
            if selected and trainer.monitor is not None:
                trainer.monitor.image(step, "samples", grid)
        if not selected:
            return
        with contextlib.suppress(DataError):  # nothing is logged yet, or could not be, which was reported
            for finding in diagnose(read_run(run)):
                if finding.level == "alarm" and finding.kind not in warned:
                    warned.add(finding.kind)
                    log.warning(
                        f"{finding.kind}, step {finding.step}: {finding.evidence} Try: {finding.advice}"
                    )

    return watch


def _fixed_images(prepared: Prepared, splits: Sequence[Mapping[str, Folder]]) -> dict[str, Tensor]:
    """Images to draw samples of, by domain: from the first split that has some in every domain."""
    settings = prepared.settings
    folders = next(split for split in splits if all(folder.files for folder in split.values()))
    count = min(settings.training.sample_count, *(len(folder.files) for folder in folders.values()))
    return {domain: fixed_images(folder, count, settings.data) for domain, folder in folders.items()}


def _finish(run: Path, prepared: Prepared) -> None:
    """Evaluates the last and the best checkpoint on the test split, exports every translation, draws
    `samples/final.png`, and logs what to do next.
    """
    settings, data_set = prepared.settings, prepared.data_set
    payload = checkpoint.load_newest(run / "checkpoints")[1]
    subjects = subjects_of(run, payload, prepared.device, settings.precision, settings.evaluation.export)
    first = next(iter(subjects))
    chosen = {name: subject.translators[subject.exported] for name, subject in subjects.items()}
    for name, translator in chosen.items():  # even if the evaluation fails, the generators are there
        export(translator.generator, translator.description, exported_path(run, name, first))
    evaluation: dict[str, Any] = {}
    with skip_on_failure(f"no evaluation on the test split (to repeat it: gan-nst evaluate {run})"):
        features = settings.evaluation.features
        metrics = Metrics.choose(
            "auto" if features == "none" else features,
            settings.evaluation.protocol,
            prepared.device,
            weights=settings.evaluation.weights,
            cache=feature_cache(settings.data),
        )
        evaluation = evaluate_run(run, subjects, held_out(settings, data_set, prepared.images), metrics)
    for name, translator in chosen.items():
        values = evaluation.get(name, {}).get(subjects[name].exported, {})
        scores = {f"test_{key}": value for key, value in values.items() if is_score(key)}
        description = translator.description.model_copy(update={"scores": scores})
        export(translator.generator, description, exported_path(run, name, first))
    translations = prepared.method.translations()
    with skip_on_failure("no final sample grid"):
        images = _fixed_images(prepared, (data_set.test, data_set.validation, data_set.training))
        generators = nn.ModuleDict({t.generator: chosen[name].generator for name, t in translations.items()})
        grid = sample_grid(generators, translations, images, prepared.device)
        write_image(grid, run / "samples" / "final.png")
    which = subjects[first].exported
    why = f"best by {settings.evaluation.score} on the validation images" if which == "best" else "the last"
    log.info(f"exported:   {exported_path(run, first, first)} (step {subjects[first].steps[which]}, {why})")
    if (run / "samples" / "final.png").exists():
        log.info(f"images:     {run / 'samples' / 'final.png'}")
    if evaluation:
        log.info(f"report:     {run / 'report.html'}")
    log.info(f"translate:  gan-nst translate {run} MY_PHOTOS --output TRANSLATED")
    log.info(f"curves:     gan-nst curves {run}")
    domain, method = settings.data.domain, settings.method_name
    if latest(domain, method) == run.resolve():
        log.info(
            f"or:         make translate DOMAIN={domain} METHOD={method} INPUT=MY_PHOTOS OUTPUT=TRANSLATED"
        )
        log.info(f"            make curves DOMAIN={domain} METHOD={method}, make tensorboard DOMAIN={domain}")


@contextlib.contextmanager
def _explained(trainer: Trainer, settings: RunSettings, run: Path | None = None) -> Iterator[None]:
    """Turns what torch raises when memory runs out into one line that says what needs less: first the settings that
    a run may be resumed with, since they change no result.

    run: the folder that holds a checkpoint to resume from.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        training, device = settings.training, trainer.device
        same = [] if training.activation_checkpointing else ["training.activation_checkpointing=true"]
        same += ["data.workers=0"] if settings.data.workers and device.type == "cpu" else []
        newest = [] if run is None else checkpoint.newest_first(run / "checkpoints")
        remedy = (
            f"{newest[0]} is intact; resume with: gan-nst train --resume {run}" if newest else "start with"
        )
        less = []
        if training.batch_size > 1:
            size = 1 if training.batch_size % 2 else training.batch_size // 2
            accumulation = training.accumulation * training.batch_size // size
            less.append(f"training.batch_size={size} training.accumulation={accumulation}")
        if settings.precision == "float32" and choose_precision("auto", device) == "bfloat16":
            less.append("precision=bfloat16")
        less.append(f"a data.crop_size below {settings.data.crop_size}")
        raise TrainingError(
            f"out of memory on {device} after step {trainer.step}: {remedy}"
            f"{' ' + ' '.join(same) if same else ', once other programs leave more of it'}; or start a new run with "
            f"{' or '.join(less)}"
        ) from None
