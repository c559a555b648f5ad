"""The hostile cases: a file that lies or runs code, times the places that take such a file."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from children import command
from fuzz_checkpoints import make_trainer
from hostile_files import lying_onnx, lying_programs, lying_safetensors, pickles
from PIL import Image

from gan_nst.config import dump_yaml
from gan_nst.data.files import Names
from gan_nst.data.index import Index, read_index, write_index

Content = str | bytes

_CONFIG = """
method: {name: cyclegan, generator: {width: 2, blocks: 1, downsamplings: 1}, discriminator: {width: 2, layers: 1}}
training: {steps: 3}
data: {a: data/trainA, b: data/trainB, test_a: data/testA, test_b: data/testB, root: data, load_size: 16, crop_size: 16}
evaluation: {features: none, score: none, export: last}
precision: float32
device: cpu
"""
_CHECKPOINT = "run/checkpoints/step-0000002.pt"
_INCEPTION, _SQUEEZENET = "weights-inception-2015-12-05-6726825d.pth", "squeezenet1_1-b8a52dc0.pth"


@dataclass(frozen=True)
class Case:
    """prepare: makes a working folder hostile. run: what is then done in it; its result is an exit code, one of
    `codes`. writes: what of the folder may change. check: a problem found in what was written.
    """

    kind: str
    name: str
    prepare: Callable[[Path], None]
    run: Callable[[], int]
    codes: tuple[int, ...] = (2,)
    writes: tuple[str, ...] = ()
    check: Callable[[Path], str | None] = field(default=lambda work: None)


def make_base(base: Path) -> None:
    """A folder `work` with a run of two steps, its pictures and some photographs, and `outside` beside it."""
    work = base / "work"
    for number, name in enumerate(("data/trainA", "data/trainB", "data/testA", "data/testB", "photos")):
        (work / name).mkdir(parents=True)
        source = np.random.default_rng(number)
        for picture in range(4):
            Image.fromarray(source.integers(0, 256, (20, 24, 3), np.uint8)).save(
                work / name / f"{picture}.png"
            )
    (base / "outside").mkdir()
    shutil.copy(work / "photos" / "0.png", base / "outside" / "secret.png")
    (base / "outside" / "secret.txt").write_text("secret")
    os.chdir(work)
    trainer, _ = make_trainer(Path("made"), _CONFIG)
    (work / "run").mkdir()
    trainer.save("best")
    shutil.rmtree("run/checkpoints", ignore_errors=True)
    os.renames("made", "run/checkpoints")
    Path("run/checkpoints/tiny.yaml").rename("tiny.yaml")
    Path("run/settings.yaml").write_text(dump_yaml(trainer.header["settings"]))
    Path("run/metrics.jsonl").write_text(
        '{"step": 1, "generator/cycle_a": 1.5}\n{"step": 2, "generator/cycle_a": 1.0}\n'
    )
    assert command("export", "run", "--to", "safetensors", "--out", "generator.safetensors") == 0


def all_cases(base: Path) -> list[Case]:
    """Every case. base: the folder that `make_base` made, of which each case gets a copy beside it."""
    canary = base.parent / "case" / "canary"
    whole = (base / "work" / "generator.safetensors").read_bytes()
    told = _description(whole)
    return [
        *_pickles(canary),
        *_generators("safetensors", lying_safetensors(whole)),
        *_generators("onnx", lying_onnx(told)),
        *_generators("pt2", lying_programs(told, canary)),
        *_settings(canary),
        *_caches(),
        *_links(),
        *_logs(),
        *_names(),
        *_archives(),
    ]


def _description(whole: bytes) -> str:
    length = int.from_bytes(whole[:8], "little")
    return json.loads(whole[8 : 8 + length])["__metadata__"]["gan_nst"]


def _write(files: dict[str, Content], work: Path) -> None:
    for name, content in files.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).unlink(missing_ok=True)
        (work / name).write_bytes(content.encode() if isinstance(content, str) else content)


def _cli(*arguments: object, **environment: str) -> Callable[[], int]:
    def run() -> int:
        os.environ.update(environment)
        return command(*arguments)

    return run


def _offer(*paths: str) -> int:
    """What the page's list of runs does with them."""
    from gan_nst.commands.app_runs import make_offer
    from gan_nst.errors import GanNstError

    try:
        offer = make_offer(paths, "cpu", "float32")
        for number in range(len(offer.sources)):
            offer.translator(number, offer.directions(number)[0][1])
    except GanNstError as error:
        print(f"gan-nst: {error}")
        return 2
    return 0


_TRANSLATE = ("--output", "out", "--device", "cpu", "--precision", "float32")
_EVALUATE = ("--device", "cpu", "--precision", "float32")
_FOLDERS = ("--pictures", "data/testA", "--reference", "data/testB")
_VGG = ("method.name=cartoongan", "method.features.network=vgg19", "data.held_out=0")
_WEIGHTS = {
    # place: the file, and what reads it
    "resume": (_CHECKPOINT, _cli("train", "--resume", "run")),
    "translate a run": (_CHECKPOINT, _cli("translate", "run", "photos", *_TRANSLATE)),
    "translate a checkpoint": ("x.pt", _cli("translate", "x.pt", "photos", *_TRANSLATE)),
    "translate a generator": ("x.safetensors", _cli("translate", "x.safetensors", "photos", *_TRANSLATE)),
    "translate ONNX": ("x.onnx", _cli("translate", "x.onnx", "photos", *_TRANSLATE)),
    "translate a program": ("x.pt2", _cli("translate", "x.pt2", "photos", *_TRANSLATE)),
    "evaluate a run": (_CHECKPOINT, _cli("evaluate", "run", *_EVALUATE)),
    "evaluate a checkpoint": ("x.pt", _cli("evaluate", "x.pt", *_EVALUATE)),
    "evaluate a generator": (
        "x.safetensors",
        _cli("evaluate", "x.safetensors", "--data", "data", *_EVALUATE),
    ),
    "export a run": (_CHECKPOINT, _cli("export", "run", "--to", "safetensors", "--out", "x.safetensors")),
    "the page's run": (_CHECKPOINT, partial(_offer, "run")),
    "the page's checkpoint": ("x.pt", partial(_offer, "x.pt")),
    "the page's generator": ("x.safetensors", partial(_offer, "x.safetensors")),
    "the page's folder": ("found/x.safetensors", partial(_offer, "found")),
    "start from": ("x.pt", _cli("train", "tiny.yaml", "training.init_from=x.pt")),
    "start from a run": (_CHECKPOINT, _cli("train", "tiny.yaml", "training.init_from=run")),
    "import": ("x.pth", _cli("import", "x.pth", "y.safetensors")),
    "inception, given": (
        "x.pth",
        _cli("evaluate", *_FOLDERS, "--weights", "x.pth", "--features", "inception", *_EVALUATE),
    ),
    "inception, a folder": (f"w/{_INCEPTION}", _cli("evaluate", *_FOLDERS, *_EVALUATE, GAN_NST_WEIGHTS="w")),
    "inception, the hub": (
        f"t/hub/checkpoints/{_INCEPTION}",
        _cli("evaluate", *_FOLDERS, *_EVALUATE, TORCH_HOME="t"),
    ),
    "inception, in training": (
        "x.pth",
        _cli("train", "tiny.yaml", "evaluation.features=inception", "evaluation.weights=x.pth"),
    ),
    "LPIPS, a folder": (f"w/{_SQUEEZENET}", _cli("evaluate", "run", *_EVALUATE, GAN_NST_WEIGHTS="w")),
    "VGG, given": ("x.pth", _cli("train", "cartoon.yaml", "method.features.weights=x.pth")),
    "SqueezeNet, a folder": (
        f"w/{_SQUEEZENET}",
        _cli("train", "cartoon.yaml", "method.features.network=squeezenet1_1", GAN_NST_WEIGHTS="w"),
    ),
}
_CARTOON = _CONFIG.replace("cyclegan", "cartoongan")


def _pickles(canary: Path) -> Iterator[Case]:
    for what, content in pickles(canary).items():
        for place, (file, run) in _WEIGHTS.items():
            files = {file: content, "cartoon.yaml": _CARTOON}
            writes = () if place.startswith(("translate", "import")) else ("data/.cache",)
            yield Case(
                f"pickle, {place}", f"pickle {what}: {place}", partial(_write, files), run, writes=writes
            )
        best = {"run/checkpoints/best.pt": content}
        yield Case(
            "pickle, best",
            f"pickle {what}: best",
            partial(_write, best),
            _cli("evaluate", "run", *_EVALUATE),
            (0,),
            ("run", "data/.cache"),
        )


def _generators(suffix: str, files: dict[str, bytes]) -> Iterator[Case]:
    file = f"x.{suffix}"
    ways = {
        "translate": _cli("translate", file, "photos", *_TRANSLATE),
        "export": _cli("export", file, "--to", "safetensors", "--out", "y.safetensors"),
        "evaluate": _cli("evaluate", file, "--data", "data", *_EVALUATE),
        "page": partial(_offer, file),
    }
    for what, content in files.items():
        for way, run in ways.items():
            broken = ("all memory", "another size", "no picture", "not a number")
            codes = (1, 2) if suffix == "onnx" and what in broken and way == "translate" else (2,)
            if suffix == "onnx" and what in broken and way == "page":
                codes = (0, 2)  # which translates nothing yet
            yield Case(
                f"{suffix}, {way}",
                f"{suffix} {what}: {way}",
                partial(_write, {file: content}),
                run,
                codes,
                ("out",),
            )


def _settings(canary: Path) -> Iterator[Case]:
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
        "laughs": "[&a [x, x], &b [*a, *a], "
        + ", ".join(
            f"&{n} [*{m}, *{m}]"
            for m, n in zip("bcdefghijklmnopqrstuvw", "cdefghijklmnopqrstuvwx", strict=True)
        )
        + "]",
        "itself": "&a [*a]",
        "deep": "[" * 5000,
    }
    for what, value in values.items():
        text = f"{_CONFIG}x: {value}\n"
        yield Case(
            "YAML, train", f"YAML {what}: train", partial(_write, {"x.yaml": text}), _cli("train", "x.yaml")
        )
        override = f"data.augmentations={value}"
        yield Case("YAML, override", f"YAML {what}: override", _nothing, _cli("train", "tiny.yaml", override))
        own = partial(_write, {"run/settings.yaml": text})
        yield Case("YAML, curves", f"YAML {what}: curves", own, _cli("curves", "run"))
        yield Case(
            "YAML, report",
            f"YAML {what}: report",
            own,
            _cli("evaluate", "run", *_EVALUATE),
            (0, 2),
            ("run", "data/.cache"),
        )


def _nothing(work: Path) -> None:
    pass


def _cache_of(change: Callable[[Index], Index | bytes], work: Path) -> None:
    """The cache of the training pictures as it is made, with another index."""
    os.chdir(work)
    from children import in_child

    assert in_child(command, "train", "tiny.yaml", "--dry-run").value == 0
    for path in (work / "data/.cache").glob("*.index"):
        changed = change(read_index(path))
        if isinstance(changed, bytes):
            path.write_bytes(changed)
        else:
            write_index(path, changed)


def _caches() -> Iterator[Case]:
    def rows(**columns: int) -> Callable[[Index], Index]:
        def change(index: Index) -> Index:
            changed = index.rows.copy()
            for column, value in columns.items():
                changed[column] = value
            return replace(index, rows=changed)

        return change

    changes = {
        "another file": lambda index: replace(index, data="../../../outside/secret.txt"),
        "any file": lambda index: replace(index, data="/etc/passwd"),
        "no text": lambda index: replace(index, data=["x"]),
        "more than there is": lambda index: replace(index, end=10**15),
        "deep": lambda index: b"[" * 100_000,
        "long numbers": lambda index: b"9" * 10_000,
        "a pickle": lambda index: b"cposix\nsystem\n",
        **{
            f"{name} {value}": rows(**{name: value})
            for name in ("side", "offset", "height", "width", "checksum")
            for value in (-1, -(10**6), 2**31 - 1, 0)
            if name != "checksum" or value >= 0
        },
        "both negative": rows(height=-16, width=-16),
        "a problem of no text": lambda index: replace(index, problems={0: [1]}),
        "paths that lead out": lambda index: replace(index, names=Names(["/etc/passwd"] * len(index.names))),
        "a picture swollen": rows(height=10**9, width=0),
    }
    for what, change in changes.items():
        prepare = partial(_cache_of, change)
        yield Case(
            "cache", f"cache {what}", prepare, _cli("train", "tiny.yaml"), (0, 2), ("data/.cache", "runs")
        )


def _link(links: dict[str, str], work: Path) -> None:
    for name, target in links.items():
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.symlink_to(target)


def _links() -> Iterator[Case]:
    inputs = {
        "a file of the system": {"photos/x.png": "/etc/passwd"},
        "a device": {"photos/x.png": "/dev/zero"},
        "nothing": {"photos/x.png": "nowhere"},
        "itself": {"photos/x.png": "x.png"},
        "a loop": {"photos/x": "."},
        "a loop above": {"photos/x": "../photos"},
        "a picture outside": {"photos/x.png": "../../outside/secret.png"},
        "a folder outside": {"photos/x": "../../outside"},
    }
    run = _cli("translate", "generator.safetensors", "photos", *_TRANSLATE)
    for what, links in inputs.items():
        yield Case(
            "link, translate", f"link to {what}: translate", partial(_link, links), run, (0, 1), ("out",)
        )
        smooth = _cli("data", "smooth", "photos", "out")
        yield Case("link, smooth", f"link to {what}: smooth", partial(_link, links), smooth, (0, 2), ("out",))
        train = {
            name.replace("photos", "data/trainA"): to.replace("photos", "trainA")
            for name, to in links.items()
        }
        writes = ("data/.cache", "runs")
        yield Case(
            "link, train",
            f"link to {what}: train",
            partial(_link, train),
            _cli("train", "tiny.yaml"),
            (0, 2),
            writes,
        )
    outputs = {
        "a folder that leads out": ({"out/sub": "../../outside"}, (2,)),
        "a folder above": ({"out/sub": "../.."}, (2,)),
        "a file that leads out": ({"out/0.png": "../../outside/secret.txt"}, (0, 2)),
        "an unfinished one": ({"out/.0.png.part": "../../outside/secret.txt"}, (0, 2)),
        "a device": ({"out/0.png": "/dev/full"}, (0, 2)),
    }
    for what, (links, codes) in outputs.items():

        def prepare(work: Path, links: dict = links) -> None:
            shutil.copytree(work / "photos", work / "photos" / "sub")
            _link(links, work)

        yield Case("output, translate", f"output {what}: translate", prepare, run, codes, ("out",))
        yield Case(
            "output, smooth",
            f"output {what}: smooth",
            prepare,
            _cli("data", "smooth", "photos", "out"),
            codes,
            ("out",),
        )
    unfinished = {
        "export": (
            ".y.safetensors.part",
            _cli("export", "run", "--to", "safetensors", "--out", "y.safetensors"),
            ("y.safetensors",),
        ),
        "curves": (".curves.png.part", _cli("curves", "run", "--out", "curves.png"), ("curves.png",)),
        "report": ("run/.evaluation.part", _cli("evaluate", "run", *_EVALUATE), ("run", "data/.cache")),
    }
    for what, (name, action, writes) in unfinished.items():
        links = partial(_link, {name: "../outside/secret.txt" if "/" not in name else "../../outside"})
        yield Case("output, unfinished", f"output unfinished: {what}", links, action, (0, 2), (*writes, name))


_MARKUP = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&"


def _logs() -> Iterator[Case]:
    good = '{"step": 1, "generator/cycle_a": 1.5}\n{"step": 2, "generator/cycle_a": 1.0}\n'
    lines = {
        "deep": "[" * 100_000,
        "a deep value": '{"step": 3, "x": ' + "[" * 5000 + "]" * 5000 + "}",
        "long": '{"step": 3, "x": "' + "y" * 5_000_000 + '"}',
        "control characters": '{"step": 3, "\\u001b[2J\\r\\n/x": 1}\n\x00\x1b[2J\x07',
        "numbers without end": '{"step": ' + "9" * 10_000 + "}",
        "a step beyond floats": '{"step": 1' + "0" * 400 + ', "x": 1}',
        "a step before all": '{"step": -5, "generator/cycle_a": 1}',
        "a value beyond floats": '{"step": 3, "x": 1' + "0" * 400 + "}",
        "no numbers": '{"step": 3, "generator/cycle_a": {"a": 1}, "validation/ab/error": "x"}',
        "markup": json.dumps(
            {"step": 3, f"generator/{_MARKUP}": 1, f"validation/{_MARKUP}/error": 1, _MARKUP: 2}
        ),
        "no slashes": '{"step": 3, "": 1, "/": 2, "//": 3, "validation/": 4, "measure/a/b/c/d": 5}',
        "bytes": b"\xff\xfe\x00" * 100,
    }
    for what, line in lines.items():
        text = good.encode() + (line if isinstance(line, bytes) else line.encode()) + b"\n"
        prepare = partial(_write, {"run/metrics.jsonl": text})
        yield Case(
            "log, curves", f"log {what}: curves", prepare, _cli("curves", "run"), (0,), ("run/curves.png",)
        )
        report = _cli("evaluate", "run", *_EVALUATE)
        yield Case("log, report", f"log {what}: report", prepare, report, (0,), ("run", "data/.cache"), _page)
    texts = {
        "settings": {
            "run/settings.yaml": f"data: {{domain: {json.dumps(_MARKUP)}}}\nmethod: {{name: {json.dumps(_MARKUP)}}}\n"
        }
    }
    texts["no settings"] = {"run/settings.yaml": _MARKUP}
    for what, files in texts.items():
        report = _cli("evaluate", "run", *_EVALUATE)
        yield Case(
            "report", f"report {what}", partial(_write, files), report, (0,), ("run", "data/.cache"), _page
        )

    def rename(work: Path) -> None:
        for name in ("testA", "testB"):
            for number, path in enumerate((work / "data" / name).iterdir()):
                path.rename(path.with_name(f"{number}<img src=x onerror=alert(1)>\"'&.png"))

    yield Case(
        "report",
        "report file names",
        rename,
        _cli("evaluate", "run", *_EVALUATE),
        (0,),
        ("run", "data/.cache"),
        _page,
    )


class _Markup(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.problem: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        told = dict(attributes)
        source = told.get("src") or "data:"
        if (
            tag in ("script", "iframe", "object")
            or not source.startswith("data:")
            or any(n.startswith("on") for n in told)
        ):
            self.problem = f"report.html has <{tag} {told}>"[:300]


def _page(work: Path) -> str | None:
    page = work / "run" / "report.html"
    return _Markup(page.read_text()).problem if page.exists() else "no report"


def _names() -> Iterator[Case]:
    odd = {
        "lines": "a\nb\r\nc",
        "escapes": "\x1b[2J\x1b]0;x\x07",
        "option": "-rf",
        "help": "--help",
        "turned": "a\u202egnp.exe",
        "markup": "<script>",
        "bytes": os.fsdecode(b"\xff\xfe"),
        "pattern": "*?[x]",
        "shell": "$(touch x);`touch x`",
        "format": "%s{0}{x!r}",
        "long": "x" * 240,
        "dots": "a...",  # names that begin with a dot are hidden, and left out
    }
    for what, name in odd.items():

        def rename(work: Path, name: str = name) -> None:
            (work / "photos" / "0.png").rename(work / "photos" / f"{name}.png")
            (work / "photos" / "1.png").write_bytes(b"no picture")
            (work / "photos" / "1.png").rename(work / "photos" / f"{name}.jpg")

        run = _cli("translate", "generator.safetensors", "photos", *_TRANSLATE)
        yield Case("name, translate", f"name {what}: translate", rename, run, (1,), ("out",))

        def domain(work: Path, name: str = name) -> None:
            (work / "data" / "trainA" / "0.png").rename(work / "data" / "trainA" / f"{name}.png")

        writes = ("data/.cache", "runs")
        yield Case("name, train", f"name {what}: train", domain, _cli("train", "tiny.yaml"), (0,), writes)
    for what in (
        "../x",
        "../../x",
        "..",
        "/tmp/gan_nst-hostile-x",
        "",
        "a/../../../x",
        "a\nb",
        "\x1b[2J",
        "x/..",
        ".",
    ):
        train = _cli("train", "tiny.yaml", f"data.domain={what}")
        yield Case("domain, set", f"domain {what!r}: set", _nothing, train)
        own = partial(_write, {"x.yaml": _CONFIG.replace("data: {", f"data: {{domain: {json.dumps(what)}, ")})
        yield Case("domain, file", f"domain {what!r}: file", own, _cli("train", "x.yaml"))

        def experiments(work: Path) -> None:
            _write({"experiments/default/cyclegan.yaml": _CONFIG}, work)

        yield Case("domain, option", f"domain {what!r}: option", experiments, _cli("train", "--domain", what))
        yield Case(
            "domain, demo", f"domain {what!r}: demo", experiments, _cli("data", "demo", "--domain", what)
        )


def _archives() -> Iterator[Case]:
    """What `gan-nst data get` must not unpack, where that is there."""
    try:
        from helpers_archives import hostile_archives
    except ImportError:
        return
    found = hostile_archives()
    for name, content in found.items() if hasattr(found, "items") else found:
        file = f"archives/{name}"
        run = _cli("data", "get", file, "--into", "got")
        yield Case("archive", f"archive {name}", partial(_write, {file: content}), run)
