"""Opens and checks everything a run needs before it begins: its data, its settings and its method."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from gan_nst.core.errors import CheckpointError, DataError, SettingsError, WeightsError, counted, shorten
from gan_nst.core.threads import training_threads
from gan_nst.data.batches import Batches, Samples
from gan_nst.data.cache import Images, open_images
from gan_nst.data.demo import make_demo
from gan_nst.data.domains import DOMAINS, DataSet, DataSettings, Folder, fingerprint, has_images, locate
from gan_nst.data.smoothing import SOFT, share_smoothed
from gan_nst.evaluation.features import Features, choose
from gan_nst.images.files import read_image
from gan_nst.methods import base
from gan_nst.runs.generators import load_weights
from gan_nst.runs.settings import RunSettings, resolve, resolve_evaluation
from gan_nst.training import distributed
from gan_nst.training.compilation import resolve_compile, step_operations

log = logging.getLogger(__name__)


DEMO_DOMAIN = "photo2cartoon"


def draw_if_missing(data: DataSettings) -> bool:
    """Draws the demo images, at the size that training loads, if they are the domain's and missing; returns whether it
    did.
    """
    folder = data.root / data.domain
    if data.a is not None or data.domain != DEMO_DOMAIN or has_images(data):
        return False
    log.info(f"{folder}: no images found; drawing the demo world there, at {data.load_size} pixels")
    try:
        make_demo(folder, size=data.load_size)
    except DataError:
        if not has_images(data):  # another run has drawn them in the meantime
            raise
    return True


def refuse_small_demo(data: DataSettings) -> None:
    """Raises DataError if the demo was drawn for a smaller job, for example on a machine without a GPU."""
    folder = data.root / data.domain
    drawn = folder / "trainA" / "photo-00000.png"
    if data.a is not None or data.domain != DEMO_DOMAIN or data.upscale or not drawn.exists():
        return
    if (size := min(read_image(drawn).shape[:2])) < data.crop_size:
        raise DataError(
            f"{folder}: its demo images were drawn at {size} pixels, data.crop_size is {data.crop_size}; "
            "remove the folder, and they will be drawn again"
        )


_COMPARED = 20  # images of a view that are compared with the images themselves


@dataclass(frozen=True)
class Prepared:
    """Everything a run needs; its settings have every `auto` and the length resolved.

    features: the network whose features validation compares, if any. until: the last step of this session. growth: the
    computation of the last step over that of the first, which a warm-up makes smaller.
    """

    settings: RunSettings
    device: torch.device
    data_set: DataSet
    images: dict[str, Images]
    method: base.Method
    batches: Batches
    features: Features | None
    until: int
    growth: float

    @property
    def header(self) -> dict[str, Any]:
        """The description of the run in every checkpoint, as plain data."""
        generators = self.method.generators
        return {
            "method": self.settings.method_name,
            "settings": self.settings.model_dump(mode="json"),
            "translations": {
                name: {
                    "generator": t.generator,
                    "source": t.source,
                    "target": t.target,
                    "network": generators[t.generator].spec.model_dump(),  # type: ignore[union-attr,operator]
                }
                for name, t in self.method.translations().items()
            },
            "data": fingerprint(self.data_set),
        }


def prepare(settings: RunSettings, device: torch.device, saved: Mapping[str, Any] | None) -> Prepared:
    """Opens the data, builds the method and checks that they fit each other.

    saved: the checkpoint that a run is resumed from. Raises GanNstError, one line, for what does not fit.
    """
    if distributed.rank() == 0:
        draw_if_missing(settings.data)
        refuse_small_demo(settings.data)
    distributed.gather(None)  # the other processes wait for the images
    data_set, images = open_data(settings, saved)
    training = settings.training
    images_a_step = training.batch_size * training.accumulation * distributed.world_size()
    steps_per_epoch = -(-max(len(images[d]) for d in DOMAINS) // images_a_step)
    settings = resolve(settings, device, steps_per_epoch)
    steps, workers = settings.training.steps, settings.data.workers
    assert steps is not None
    assert isinstance(workers, int)
    torch.manual_seed(settings.seed)
    plan = base.Plan(steps, steps_per_epoch, settings.seed)
    method = base.find(settings.method_name)(settings.method, plan)
    at_first, at_last = _operations(method, settings, saved["step"] if saved else 0)
    compiled = resolve_compile(settings.compile, device, at_last * training.accumulation * steps)
    threads = training_threads(at_last) if settings.threads == "auto" else settings.threads
    settings = settings.model_copy(update={"compile": compiled, "threads": threads})
    if saved is None and training.init_from is not None:
        _init_generators(method, training.init_from)
    views = _open_views(method, data_set, settings, images)
    samples = Samples(views, method.streams, settings.data, settings.seed)
    samples[0]  # what the augmentations cannot do is reported now
    batches = Batches(
        samples,
        training.batch_size,
        training.accumulation,
        workers=workers,
        rank=distributed.rank(),
        processes=distributed.world_size(),
        device=device,
        timeout=settings.data.timeout,
    )
    settings, features = _prepare_validation(settings, device, data_set, method, saved is not None)
    until = min(steps, settings.training.stop_at or steps)
    log.info(
        f"{len(images['a'])} images of domain a, {len(images['b'])} of domain b; {counted(steps, 'step')} in "
        f"{settings.precision} on {device}, {counted(threads, 'thread')}"
        + (f", to step {until}" if until < steps else "")
    )
    return Prepared(
        settings, device, data_set, images, method, batches, features, until, at_last / max(at_first, 1)
    )


def _prepare_validation(
    settings: RunSettings, device: torch.device, data_set: DataSet, method: base.Method, resumes: bool
) -> tuple[RunSettings, Features | None]:
    """The settings with those of the evaluation resolved, and the feature network, which only rank 0 needs.

    A run that is resumed where its weights or its validation images are missing is validated by what there is.
    """

    def resolved(settings: RunSettings) -> tuple[RunSettings, Features | None]:
        paired = bool(data_set.pairs("validation"))
        settings = resolve_evaluation(settings, device, paired, method.translations())
        wanted, weights = settings.evaluation.features, settings.evaluation.weights
        needed = wanted != "none" and distributed.rank() == 0
        return settings, choose(wanted, device, weights) if needed else None

    try:
        return resolved(settings)
    except (SettingsError, WeightsError) as error:
        if not resumes:
            raise
        log.warning(f"{error}; resuming with what is available for validation")
    plain = settings.evaluation.model_copy(update={"features": "auto", "score": "auto", "weights": None})
    return resolved(settings.model_copy(update={"evaluation": plain}))


def open_data(settings: RunSettings, saved: Mapping[str, Any] | None) -> tuple[DataSet, dict[str, Images]]:
    """The data set without the files that cannot be used, and the training images by domain.

    saved: the checkpoint of a run that is resumed or evaluated. Raises DataError.
    """
    data_set = _locate(settings, saved)
    images: dict[str, Images] = {}
    opened: dict[str, dict[str, Folder]] = {}
    # Training comes last: its images are the ones that are returned.
    order: tuple[Literal["test", "validation", "training"], ...] = ("test", "validation", "training")
    for split in order:
        folders: Mapping[str, Folder] = getattr(data_set, split)
        rules = settings.data.model_copy(update={"upscale": True}) if split == "test" else settings.data
        opened[split] = dict(folders)
        for d, folder in folders.items():
            if folder.paths:
                images[d], opened[split][d] = open_images(folder, rules, f"domain {d}, {split}")
        if split != "training" and data_set.pairs(split):  # an image is of use only with its counterpart
            common = set.intersection(*(set(folder.names) for folder in opened[split].values()))
            opened[split] = {
                d: f.select(name in common for name in f.names) for d, f in opened[split].items()
            }
    training, validation, test = opened["training"], opened["validation"], opened["test"]
    return replace(data_set, training=training, validation=validation, test=test), images


def _locate(settings: RunSettings, saved: Mapping[str, Any] | None) -> DataSet:
    """The data set; for a run that is resumed, the one it began with, wherever it is now."""
    data_set = locate(settings.data)
    if saved is None or saved["data"] == fingerprint(data_set):
        return data_set
    # Perhaps only the training folder was moved, without the splits next to it: then nothing is held out of it.
    uncut = locate(settings.data.model_copy(update={"held_out": 0.0}))
    if saved["data"] == fingerprint(uncut):
        return uncut
    log.warning(
        "the training images are not those that the run began with; resuming, but the result will differ from the "
        "original run"
    )
    return data_set


def _open_views(
    method: base.Method, data_set: DataSet, settings: RunSettings, images: Mapping[str, Images]
) -> dict[tuple[str, str], Images]:
    """The training images by domain and view; warns of smoothed images that equal the originals."""
    views = {(d, "image"): images[d] for d in DOMAINS}
    for d, view in sorted({(s.domain, s.view) for s in method.streams.values()} - views.keys()):
        folder = data_set.training[d]
        views[d, view] = open_images(folder, settings.data, f"domain {d}, {view}", view)[0]
        if view == "smoothed":
            indices = np.linspace(0, len(folder.paths) - 1, _COMPARED).astype(int)
            shares = [share_smoothed(images[d][i], views[d, view][i]) for i in indices]
            if np.median(shares) <= SOFT:
                log.warning(
                    f"{folder.root}: hardly any edges to smooth, so the discriminator sees the same images as both "
                    f"real and fake; inspect them with: gan-nst data smooth {folder.root} SMOOTHED"
                )
    return views


def _operations(method: base.Method, settings: RunSettings, step: int) -> tuple[int, int]:
    """Floating-point operations of a micro-batch, in one process: at a step, and at the last one, which may use more
    networks than a warm-up. Raises SettingsError when the networks cannot process the crops.
    """
    training, crop = settings.training, settings.data.crop_size
    assert training.steps is not None
    for generator in method.generators.values():
        multiple = getattr(generator, "multiple", 1)
        if crop % multiple:
            raise SettingsError(
                f"data.crop_size: {crop} is not a multiple of {multiple}, which the generator's down-samplings need"
            )
    last = training.steps - 1
    at_last = step_operations(method, last, training.batch_size, crop)
    if method.updates(step) == method.updates(last):
        return at_last, at_last
    return step_operations(method, step, training.batch_size, crop), at_last


def _init_generators(method: base.Method, source: Path) -> None:
    """Copies the trained generators in `source`; raises CheckpointError when none fits."""
    copied = []
    for name, translation in method.translations().items():
        weights = load_weights(source, name)
        if weights is None:
            continue
        try:
            method.generators[translation.generator].load_state_dict(weights)
        except RuntimeError as error:
            raise CheckpointError(
                f"{source}: its generator does not fit method.generator ({shorten(str(error))})"
            ) from None
        copied.append(name)
    if not copied:
        raise CheckpointError(f"{source}: has no generator for {' or '.join(method.translations())}")
    log.info(f"generators {', '.join(copied)} start from {source}")
