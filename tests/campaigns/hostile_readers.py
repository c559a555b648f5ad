"""Hostile files for every reader of untrusted files: pickles, generators, settings."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from hostile_case import CHECKPOINT, CONFIG, EVALUATE, TRANSLATE, Case, cli, nothing, write
from hostile_files import pickles

_INCEPTION, _SQUEEZENET = "weights-inception-2015-12-05-6726825d.pth", "squeezenet1_1-b8a52dc0.pth"


def _offer(*paths: str) -> int:
    """Opens the paths as the web page would; returns an exit code."""
    from gan_nst.core.errors import GanNstError
    from gan_nst.core.options import TranslatorOptions
    from gan_nst.runs.generators import load_translator
    from gan_nst.web.jobs import find_choices

    try:
        for choice in find_choices(paths):
            load_translator(
                choice.path,
                TranslatorOptions(device="cpu", precision="float32", direction=choice.direction),
            )
    except GanNstError as error:
        print(f"gan-nst: {error}")
        return 2
    return 0


_FOLDERS = ("--images", "data/testA", "--reference", "data/testB")
_VGG = ("method.name=cartoongan", "method.features.network=vgg19", "data.held_out=0")
_WEIGHTS = {
    # place: the file, and the command that reads it
    "resume": (CHECKPOINT, cli("train", "--resume", "run")),
    "translate a run": (CHECKPOINT, cli("translate", "run", "photos", *TRANSLATE)),
    "translate a checkpoint": ("x.pt", cli("translate", "x.pt", "photos", *TRANSLATE)),
    "translate a generator": ("x.safetensors", cli("translate", "x.safetensors", "photos", *TRANSLATE)),
    "translate ONNX": ("x.onnx", cli("translate", "x.onnx", "photos", *TRANSLATE)),
    "translate a program": ("x.pt2", cli("translate", "x.pt2", "photos", *TRANSLATE)),
    "evaluate a run": (CHECKPOINT, cli("evaluate", "run", *EVALUATE)),
    "evaluate a checkpoint": ("x.pt", cli("evaluate", "x.pt", *EVALUATE)),
    "evaluate a generator": (
        "x.safetensors",
        cli("evaluate", "x.safetensors", "--data", "data", *EVALUATE),
    ),
    "export a run": (
        CHECKPOINT,
        cli("export", "run", "--format", "safetensors", "--output", "x.safetensors"),
    ),
    "the page's run": (CHECKPOINT, partial(_offer, "run")),
    "the page's checkpoint": ("x.pt", partial(_offer, "x.pt")),
    "the page's generator": ("x.safetensors", partial(_offer, "x.safetensors")),
    "the page's folder": ("found/x.safetensors", partial(_offer, "found")),
    "start from": ("x.pt", cli("train", "tiny.yaml", "training.init_from=x.pt")),
    "start from a run": (CHECKPOINT, cli("train", "tiny.yaml", "training.init_from=run")),
    "import": ("x.pth", cli("import", "x.pth", "y.safetensors")),
    "inception, given": (
        "x.pth",
        cli("evaluate", *_FOLDERS, "--weights", "x.pth", "--features", "inception", *EVALUATE),
    ),
    "inception, a folder": (f"w/{_INCEPTION}", cli("evaluate", *_FOLDERS, *EVALUATE, GAN_NST_WEIGHTS="w")),
    "inception, the hub": (
        f"t/hub/checkpoints/{_INCEPTION}",
        cli("evaluate", *_FOLDERS, *EVALUATE, TORCH_HOME="t"),
    ),
    "inception, in training": (
        "x.pth",
        cli("train", "tiny.yaml", "evaluation.features=inception", "evaluation.weights=x.pth"),
    ),
    "LPIPS, a folder": (f"w/{_SQUEEZENET}", cli("evaluate", "run", *EVALUATE, GAN_NST_WEIGHTS="w")),
    "VGG, given": ("x.pth", cli("train", "cartoon.yaml", "method.features.weights=x.pth")),
    "SqueezeNet, a folder": (
        f"w/{_SQUEEZENET}",
        cli("train", "cartoon.yaml", "method.features.network=squeezenet1_1", GAN_NST_WEIGHTS="w"),
    ),
}
_CARTOON = CONFIG.replace("cyclegan", "cartoongan")


def pickle_cases(canary: Path) -> Iterator[Case]:
    for what, content in pickles(canary).items():
        for place, (file, run) in _WEIGHTS.items():
            files = {file: content, "cartoon.yaml": _CARTOON}
            writes = () if place.startswith(("translate", "import")) else ("data/.cache",)
            yield Case(
                f"pickle, {place}", f"pickle {what}: {place}", partial(write, files), run, writes=writes
            )
        best = {"run/checkpoints/best.pt": content}
        yield Case(
            "pickle, best",
            f"pickle {what}: best",
            partial(write, best),
            cli("evaluate", "run", *EVALUATE),
            (0,),
            ("run", "data/.cache"),
        )


def generator_cases(suffix: str, files: dict[str, bytes]) -> Iterator[Case]:
    file = f"x.{suffix}"
    ways = {
        "translate": cli("translate", file, "photos", *TRANSLATE),
        "export": cli("export", file, "--format", "safetensors", "--output", "y.safetensors"),
        "evaluate": cli("evaluate", file, "--data", "data", *EVALUATE),
        "page": partial(_offer, file),
    }
    for what, content in files.items():
        for way, run in ways.items():
            broken = ("all memory", "another size", "no image", "not a number")
            codes = (1, 2) if suffix == "onnx" and what in broken and way == "translate" else (2,)
            if suffix == "onnx" and what in broken and way == "page":
                codes = (0, 2)  # the page translates nothing yet
            yield Case(
                f"{suffix}, {way}",
                f"{suffix} {what}: {way}",
                partial(write, {file: content}),
                run,
                codes,
                ("out",),
            )


def settings_cases(canary: Path) -> Iterator[Case]:
    touch = f"touch {canary}"
    values = {
        "apply": f"!!python/object/apply:os.system ['{touch}']",
        "new": f"!!python/object/new:os.system ['{touch}']",
        "call": f"!!python/object/apply:subprocess.check_output [[touch, '{canary}']]",
        "name": "!!python/name:os.system",
        "module": "!!python/module:this",
        "object": "!!python/object:pathlib.Path {}",
        "tuple": "!!python/tuple [1]",
        "exec": f"!!python/object/apply:exec [\"open('{canary}', 'w')\"]",
        "tag": "!evil x",
        "itself": "&a [*a]",
        "deep": "[" * 5000,
    }
    for what, value in values.items():
        text = f"{CONFIG}x: {value}\n"
        yield Case(
            "YAML, train", f"YAML {what}: train", partial(write, {"x.yaml": text}), cli("train", "x.yaml")
        )
        override = f"data.augmentations={value}"
        yield Case("YAML, override", f"YAML {what}: override", nothing, cli("train", "tiny.yaml", override))
        own = partial(write, {"run/settings.yaml": text})
        if what != "itself":  # valid YAML, and curves reads only a few of its keys
            yield Case("YAML, curves", f"YAML {what}: curves", own, cli("curves", "run"))
        yield Case(
            "YAML, report",
            f"YAML {what}: report",
            own,
            cli("evaluate", "run", *EVALUATE),
            (0, 2),
            ("run", "data/.cache"),
        )
