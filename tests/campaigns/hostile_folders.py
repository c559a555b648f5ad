"""Hostile folders and names: links that lead outside, names that are markup or options, archives."""

import json
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from helpers_archives import hostile_archives
from hostile_case import CONFIG, EVALUATE, TRANSLATE, Case, cli, nothing, write


def _link(links: dict[str, str], work: Path) -> None:
    for name, target in links.items():
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.symlink_to(target)


def link_cases() -> Iterator[Case]:
    inputs = {
        "a file of the system": {"photos/x.png": "/etc/passwd"},
        "a device": {"photos/x.png": "/dev/zero"},
        "nothing": {"photos/x.png": "nowhere"},
        "itself": {"photos/x.png": "x.png"},
        "a loop": {"photos/x": "."},
        "a loop above": {"photos/x": "../photos"},
        "an image outside": {"photos/x.png": "../../outside/secret.png"},
        "a folder outside": {"photos/x": "../../outside"},
    }
    run = cli("translate", "generator.safetensors", "photos", *TRANSLATE)
    for what, links in inputs.items():
        yield Case(
            "link, translate", f"link to {what}: translate", partial(_link, links), run, (0, 1), ("out",)
        )
        smooth = cli("data", "smooth", "photos", "out")
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
            cli("train", "tiny.yaml"),
            (0, 2),
            writes,
        )
    outputs = {
        "a folder that leads out": ({"out/sub": "../../outside"}, (2,)),
        "a folder above": ({"out/sub": "../.."}, (2,)),
        "a file that leads out": ({"out/0.png": "../../outside/secret.txt"}, (0, 2)),
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
            cli("data", "smooth", "photos", "out"),
            codes,
            ("out",),
        )
    links = partial(_link, {"run/.evaluation.part": "../../outside"})
    writes = ("run", "data/.cache", "run/.evaluation.part")
    action = cli("evaluate", "run", *EVALUATE)
    yield Case("output, unfinished", "output unfinished: report", links, action, (0, 2), writes)


def name_cases() -> Iterator[Case]:
    names = {
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
        "dots": "a...",  # names that begin with a dot are hidden, and skipped
    }
    for what, name in names.items():

        def rename(work: Path, name: str = name) -> None:
            (work / "photos" / "0.png").rename(work / "photos" / f"{name}.png")
            (work / "photos" / "1.png").write_bytes(b"no image")
            (work / "photos" / "1.png").rename(work / "photos" / f"{name}.jpg")

        run = cli("translate", "generator.safetensors", "photos", *TRANSLATE)
        yield Case("name, translate", f"name {what}: translate", rename, run, (1,), ("out",))

        def domain(work: Path, name: str = name) -> None:
            (work / "data" / "trainA" / "0.png").rename(work / "data" / "trainA" / f"{name}.png")

        writes = ("data/.cache", "runs")
        yield Case("name, train", f"name {what}: train", domain, cli("train", "tiny.yaml"), (0,), writes)
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
        train = cli("train", "tiny.yaml", f"data.domain={what}")
        yield Case("domain, set", f"domain {what!r}: set", nothing, train)
        own = partial(write, {"x.yaml": CONFIG.replace("data: {", f"data: {{domain: {json.dumps(what)}, ")})
        yield Case("domain, file", f"domain {what!r}: file", own, cli("train", "x.yaml"))

        def experiments(work: Path) -> None:
            write({"experiments/default/cyclegan.yaml": CONFIG}, work)

        yield Case("domain, option", f"domain {what!r}: option", experiments, cli("train", "--domain", what))
        yield Case(
            "domain, demo", f"domain {what!r}: demo", experiments, cli("data", "demo", "--domain", what)
        )


def archive_cases() -> Iterator[Case]:
    """Archives that `gan-nst data get` must not unpack."""
    for name, content in hostile_archives():
        file = f"archives/{name}"
        run = cli("data", "get", file, "--into", "got")
        yield Case("archive", f"archive {name}", partial(write, {file: content}), run)
