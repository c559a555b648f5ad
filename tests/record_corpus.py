"""Makes the corpus of record.py out of the tests' helpers. It is run once, at the commit before the refactor."""

import io
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

TESTS = Path(__file__).resolve().parent
for folder in ("campaigns", "commands", "inference", "data"):
    sys.path.append(str(TESTS / folder))

TINY = [
    "device=cpu",
    "precision=float32",
    "data.load_size=36",
    "data.crop_size=32",
    "data.upscale=true",
    "method.generator.width=4",
    "method.generator.blocks=1",
    "method.generator.downsamplings=1",
    "method.discriminator.width=4",
    "training.log_every=1",
    "training.checkpoint_every=2",
    "training.sample_every=4",
    "training.sample_count=2",
]


def make_corpus(out, shared):
    out.mkdir(parents=True)
    for part in (pictures, sets, videos, archives, foreign, models, settings):
        part(out)
    if shared is not None:
        (out / "inputs").mkdir()
        for path in (shared / "inputs").iterdir():
            (shutil.copytree if path.is_dir() else shutil.copy)(path, out / "inputs" / path.name)
        (out / "inputs" / "photos").mkdir()
        photos = sorted((shared / "data" / "photo2hayao" / "testA").iterdir())[:4]
        for path in photos:
            shutil.copy(path, out / "inputs" / "photos")
    for path in (path for path in out.rglob("*") if not path.is_symlink()):
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (1_700_000_000, 1_700_000_000))


def pictures(out):
    import awkward
    import broken_files

    awkward.write(out / "awkward")
    (out / "whole").mkdir()
    for name, content in broken_files.intact_files().items():
        (out / "whole" / name).write_bytes(content)
    (out / "broken").mkdir()
    for fault in broken_files.faults(0, 0):
        if len(fault.content) < 100_000 and (
            "cut" not in fault.name or f"cut{len_half(fault)}." in fault.name
        ):
            (out / "broken" / fault.name).write_bytes(fault.content)
    (out / "few").mkdir()
    for name in (
        "turned6.jpg",
        "alpha.png",
        "adobe16.png",
        "gray16.tif",
        "palette.gif",
        "p3_alpha.png",
        "cmyk.jpg",
    ):
        shutil.copy(out / "awkward" / name, out / "few")
    (out / "few" / "below" / "deeper").mkdir(parents=True)
    shutil.copy(out / "awkward" / "lossy.avif", out / "few" / "below")
    shutil.copy(out / "awkward" / "linear.png", out / "few" / "below" / "deeper")
    (out / "some" / "below").mkdir(parents=True)  # whole ones and broken ones
    shutil.copy(out / "awkward" / "alpha.png", out / "some")
    shutil.copy(out / "awkward" / "float_not_finite.tif", out / "some" / "below")
    (out / "some" / "cut.jpg").write_bytes((out / "awkward" / "turned6.jpg").read_bytes()[:900])
    (out / "some" / "text.png").write_text("no picture")
    (out / "some" / "notes.txt").write_text("no picture")


def len_half(fault):
    import broken_files

    return len(broken_files.intact_files()[fault.of]) * 5 // 10 if fault.of else -1


def noise(height, width, seed):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def fill(folder, count, size=(40, 40), first=0):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        Image.fromarray(noise(*size, number)).save(folder / f"{number:03d}.png")
    return folder


def sets(out):
    """Data sets, good and bad."""
    from gan_nst.data.demo import make_demo

    make_demo(out / "demo", size=36, count=12, held_out=10)
    make_demo(out / "unsplit", size=36, count=40, held_out=2)
    for split in ("valA", "valB", "testA", "testB"):
        shutil.rmtree(out / "unsplit" / split)
    for number, split in enumerate(("trainA", "trainB", "valA", "valB", "testA", "testB")):
        fill(out / "noise" / split, 8 if split.startswith("train") else 3, first=100 * number)
    for name in ("leaky", "damaged", "small", "same", "mixed", "links"):
        shutil.copytree(out / "noise", out / name)
    with Image.open(out / "leaky" / "trainA" / "003.png") as image:
        image.resize((80, 80)).save(out / "leaky" / "testA" / "like.png")
        image.save(out / "leaky" / "trainA" / "again.png")
        image.save(out / "leaky" / "valA" / "again.bmp")
    for number in range(12):
        (out / "damaged" / "trainA" / f"bad{number:02d}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (out / "damaged" / "testB" / "empty.jpg").write_bytes(b"")
    Image.fromarray(noise(20, 50, 1)).save(out / "small" / "trainB" / "small.png")
    shutil.rmtree(out / "same" / "trainB")
    shutil.copytree(out / "same" / "trainA", out / "same" / "trainB")
    for number in range(30):
        gray = Image.fromarray(noise(40, 40, 1000 + number)).convert("L")
        gray.save(out / "mixed" / "trainB" / f"gray{number}.png")
    Image.new("RGB", (40, 40), (9, 9, 9)).save(out / "mixed" / "trainA" / "flat.png")
    Image.fromarray(noise(40, 200, 5)).save(out / "mixed" / "trainA" / "long.png")
    Image.fromarray(noise(40, 40, 77)).save(out / "mixed" / "testA" / "alone.png")
    for name in ("trainA/1.heic", "trainA/sub/2.HEIC", "trainA/notes.txt", "trainA/README", "testA/3.raw"):
        (out / "mixed" / name).parent.mkdir(exist_ok=True)
        (out / "mixed" / name).touch()
    (out / "links" / "trainA" / "000.png").unlink()
    (out / "links" / "trainA" / "000.png").symlink_to("../../few/alpha.png")
    (out / "links" / "trainA" / "nothing.png").symlink_to("no/where.png")
    (out / "links" / "trainB" / "loop").symlink_to("..")
    fill(out / "one", 1)
    fill(out / "five", 5, (60, 60))
    fill(out / "other", 6, (50, 70), first=40)
    shutil.copytree(out / "five", out / "nan")
    Image.fromarray(np.full((9, 9), np.nan, np.float32)).save(out / "nan" / "bad.tiff")
    for number in range(8):
        for split in ("trainA", "trainB"):
            (out / "flat" / split).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40), (20 * number,) * 3).save(out / "flat" / split / f"{number}.png")
    fill(out / "untrained" / "testA", 3)
    fill(out / "untrained" / "testB", 1)
    (out / "empty").mkdir()
    (out / "empty" / ".keep").touch()


def videos(out):
    from fractions import Fraction

    import test_frames as stills
    from helpers_films import clouds, moving, rolling, write_clip

    where = out / "videos"
    where.mkdir()
    write_clip(where / "clip.mp4", rolling(), sounds=("aac", "aac"))
    write_clip(
        where / "times.mkv", rolling(), times=[0, 90, 200, 270, 400, 520, 600, 690, 800, 1000, 1100, 1210]
    )
    write_clip(where / "late.mkv", rolling(), begin=3)
    write_clip(where / "turned.mp4", rolling(6), turn=90)
    write_clip(where / "aspect.mp4", rolling(6), aspect=Fraction(4, 3))
    write_clip(where / "deep.mkv", rolling(6), layout="yuv420p10le")
    write_clip(where / "full.mkv", rolling(6), layout="yuv444p")
    write_clip(where / "odd.mkv", rolling(6, 47, 63), layout="yuv444p")
    write_clip(where / "old.avi", rolling(6), codec="mpeg4", sounds=())
    write_clip(where / "moves.mp4", moving(clouds(96, 128, 3), clouds(48, 48, 5)).frames, sounds=())
    write_clip(where / "cuts.mp4", [*rolling(6), *(255 - frame for frame in rolling(6))], sounds=())
    whole = write_clip(where / "whole.mkv", rolling(40))
    (where / "broken.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (where / "text.mp4").write_text("no video\n" * 100)
    pan = [stills.shot(0, x=n * 96 // 107) for n in range(107)]
    scenes = [*stills.stills(0, 1, 2), *stills.flat(0, 12), *stills.still(1, 30), *pan, *stills.still(4)]
    stills.write_film(where / "scenes.mp4", scenes + [stills.card("DIRECTED", "BY NOBODY")] * 24)
    drawn = out / "drawn"
    drawn.mkdir()
    for number, frame in enumerate(rolling(5), 8):
        Image.fromarray(frame).save(drawn / f"frame{number}.png")
    odd = shutil.copytree(drawn, out / "drawn_odd")
    Image.fromarray(clouds(8, 8)).save(odd / "frame20.png")


def archives(out):
    import gzip

    from helpers_archives import data_set, hostile_archives, picture, tar_of, zip_of

    (out / "archives").mkdir()
    good = {
        "pets.zip": zip_of(data_set("pets/")),
        "pets.tar.gz": tar_of(data_set(), gzip.compress),
        "two.zip": zip_of({f"{name}/1.png": picture() for name in ("dogs", "cats")}),
        "three.zip": zip_of({f"{name}/1.png": picture() for name in ("one", "two", "three")}),
        "tests.zip": zip_of(data_set(splits=("testA", "testB"))),
        "inside.zip": zip_of({**data_set(), "trainA/run.sh": b"#!/bin/sh\n", "__MACOSX/x.png": picture()}),
    }
    for name, data in [
        *good.items(),
        *((name, data) for name, data in hostile_archives() if len(data) < 60_000),
    ]:
        (out / "archives" / name).write_bytes(data)


def foreign(out):
    import test_data_commands
    import test_foreign
    import test_import
    import torch

    where = out / "foreign"
    where.mkdir()
    weights = test_import.cyclegan()
    weights = {name: weight * 0.2 for name, weight in weights.items()}
    torch.save(weights, where / "latest_net_G_A.pth")
    torch.save(weights, where / "200_net_G_B.pth")
    torch.manual_seed(3)
    test_data_commands.cyclegan_file(where / "small_net_G.pth")
    torch.manual_seed(0)
    torch.save(test_foreign.Cartoongan().state_dict(), where / "cartoongan.pth")
    torch.save({"features.0.weight": torch.ones(2)}, where / "another.pth")
    torch.save({"state_dict": weights, "epoch": 3}, where / "nested.pth")
    torch.save({**weights, "model.1.bias": torch.full((2,), torch.nan)}, where / "nan.pth")
    torch.save([torch.ones(2)], where / "list.pth")
    torch.save({"conv01_1.weight": torch.ones(64, 3, 7, 7).to_sparse()}, where / "sparse.pth")
    torch.save({**weights, "z": random.Random(0)}, where / "code.pth")
    (where / "cut.pth").write_bytes((where / "latest_net_G_A.pth").read_bytes()[:1000])


def models(out):
    """Trained runs and generators, whole and broken."""
    import test_export
    import torch

    where = out / "models"
    where.mkdir()
    test_export.make(where / "strong.safetensors")
    test_export.make(where / "large.safetensors", stem=1e4)
    (where / "fake.safetensors").write_bytes(b"no tensors")
    (where / "cut.safetensors").write_bytes((where / "strong.safetensors").read_bytes()[:2000])
    recipe = TESTS.parent / "experiments" / "{}" / "{}.yaml"
    for name, domain, method, rest in (
        (
            "cyclegan",
            "default",
            "cyclegan",
            "method.discriminator.layers=2 training.steps=4 evaluation.every=2",
        ),
        (
            "cartoongan",
            "photo2cartoon",
            "cartoongan",
            "training.steps=6 method.warm_up=0.5 evaluation.every=3",
        ),
    ):
        words = ["train", str(recipe).format(domain, method), *TINY, *rest.split()]
        words += ["data.root=c", "data.domain=demo", "data.cache=never", "--out", f"c/models/{name}"]
        link = out.parent / "c"
        link.symlink_to(out.name)  # so that the run holds the paths at which it is replayed
        environment = {**os.environ, "PYTHONPATH": str(TESTS.parent), "OMP_NUM_THREADS": "1"}
        environment |= {"XDG_CACHE_HOME": str(out / "home"), "TORCH_HOME": str(out / "home")}
        environment.pop("GAN_NST_WEIGHTS", None)
        try:
            subprocess.run(
                [sys.executable, "-m", "gan_nst", *words], cwd=out.parent, env=environment, check=True
            )
        finally:
            link.unlink()
            shutil.rmtree(out / "home", ignore_errors=True)
        for events in (where / name).glob("events*"):
            events.unlink()
    run = where / "cyclegan"
    newest = max((run / "checkpoints").glob("step-*.pt"))
    payload = torch.load(newest, weights_only=True)

    def spoilt(name, change=None, data=None):
        folder = where / name / "checkpoints"
        folder.mkdir(parents=True)
        shutil.copy(run / "settings.yaml", where / name)
        buffer = io.BytesIO()
        torch.save(payload, buffer)
        buffer.seek(0)
        other = torch.load(buffer, weights_only=True)
        if change:
            change(other)
        torch.save(other, folder / newest.name)
        if data is not None:
            (folder / newest.name).write_bytes(data)

    spoilt("format7", lambda p: p.update(format=7))
    spoilt("stargan", lambda p: p["settings"]["method"].update(name="stargan"))
    spoilt("cut", data=newest.read_bytes()[:1000])
    spoilt("no_data", lambda p: p["settings"].pop("data"))
    spoilt("method_x", lambda p: p["settings"].update(method="x"))
    spoilt("size_x", lambda p: p["settings"]["data"].update(load_size="x"))
    spoilt("no_translations", lambda p: p.update(translations={}))
    spoilt("wide", lambda p: p["translations"]["ab"]["network"].update(width=512, blocks=50))
    spoilt("other_name", lambda p: p["translations"]["ab"].update(generator="xy"))
    spoilt("not_finite", lambda p: p["ema"]["ab.segments.tail.convolution.bias"].fill_(float("nan")))
    spoilt("incomplete", lambda p: p.pop("optimizers"))
    spoilt("bare")  # nothing but one checkpoint and the settings
    spoilt("no_checkpoints")
    (where / "no_checkpoints" / "checkpoints" / newest.name).unlink()
    (where / "no_checkpoints" / "checkpoints" / ".keep").touch()
    shutil.copytree(run, where / "no_best")
    (where / "no_best" / "checkpoints" / "best.pt").write_bytes(b"damaged")
    (where / "no_metrics").mkdir()
    shutil.copy(run / "settings.yaml", where / "no_metrics")
    torch.save({"a": 1}, where / "other.pt")
    for number in range(3):  # runs of the tests of curves
        shutil.copytree(TESTS / "evaluation" / "demo_runs" / str(number), where / f"curves{number}")


def settings(out):
    where = out / "settings"
    where.mkdir()
    for path in (TESTS.parent / "experiments").glob("*/*.yaml"):
        shutil.copy(path, where / f"{path.parent.name}_{path.name}")
    (where / "broken.yaml").write_text("method: {name: [")
    (where / "unknown.yaml").write_text("method: {name: cyclegan}\non_cpu: {training: {stepz: 3}}\n")
    (where / "both.yaml").write_text("method: {name: cyclegan}\ntraining: {steps: 3, epochs: 4}\n")
    (where / "list.yaml").write_text("- 1\n- 2\n")
    (where / "on_cpu.yaml").write_text("method: {name: cyclegan}\non_cpu: 3\n")
    (where / "nameless.yaml").write_text("training: {steps: 3}\n")
