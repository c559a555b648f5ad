"""Hostile logs, settings and file names, which curves and reports display."""

import json
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

from hostile_case import EVALUATE, Case, cli, write

_MARKUP = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&"


def log_cases() -> Iterator[Case]:
    good = '{"step": 1, "generator/cycle_a": 1.5}\n{"step": 2, "generator/cycle_a": 1.0}\n'
    lines = {
        "deep": "[" * 100_000,
        "a deep value": '{"step": 3, "x": ' + "[" * 5000 + "]" * 5000 + "}",
        "long": '{"step": 3, "x": "' + "y" * 5_000_000 + '"}',
        "control characters": '{"step": 3, "\\u001b[2J\\r\\n/x": 1}\n\x00\x1b[2J\x07',
        "endless digits": '{"step": ' + "9" * 10_000 + "}",
        "a step beyond floats": '{"step": 1' + "0" * 400 + ', "x": 1}',
        "a negative step": '{"step": -5, "generator/cycle_a": 1}',
        "a value beyond floats": '{"step": 3, "x": 1' + "0" * 400 + "}",
        "not numbers": '{"step": 3, "generator/cycle_a": {"a": 1}, "validation/ab/error": "x"}',
        "markup": json.dumps(
            {"step": 3, f"generator/{_MARKUP}": 1, f"validation/{_MARKUP}/error": 1, _MARKUP: 2}
        ),
        "no slashes": '{"step": 3, "": 1, "/": 2, "//": 3, "validation/": 4, "measure/a/b/c/d": 5}',
        "bytes": b"\xff\xfe\x00" * 100,
    }
    for what, line in lines.items():
        text = good.encode() + (line if isinstance(line, bytes) else line.encode()) + b"\n"
        prepare = partial(write, {"run/metrics.jsonl": text})
        yield Case(
            "log, curves", f"log {what}: curves", prepare, cli("curves", "run"), (0,), ("run/curves.png",)
        )
        report = cli("evaluate", "run", *EVALUATE)
        yield Case("log, report", f"log {what}: report", prepare, report, (0,), ("run", "data/.cache"), _page)
    texts = {
        "settings": {
            "run/settings.yaml": f"data: {{domain: {json.dumps(_MARKUP)}}}\nmethod: {{name: {json.dumps(_MARKUP)}}}\n"
        }
    }
    texts["no settings"] = {"run/settings.yaml": _MARKUP}
    for what, files in texts.items():
        report = cli("evaluate", "run", *EVALUATE)
        yield Case(
            "report", f"report {what}", partial(write, files), report, (0,), ("run", "data/.cache"), _page
        )

    def rename(work: Path) -> None:
        for name in ("testA", "testB"):
            for number, path in enumerate((work / "data" / name).iterdir()):
                path.rename(path.with_name(f"{number}<img src=x onerror=alert(1)>\"'&.png"))

    yield Case(
        "report",
        "report file names",
        rename,
        cli("evaluate", "run", *EVALUATE),
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
        values = dict(attributes)
        source = values.get("src") or "data:"
        if (
            tag in ("script", "iframe", "object")
            or not source.startswith("data:")
            or any(n.startswith("on") for n in values)
        ):
            self.problem = f"report.html has <{tag} {values}>"[:300]


def _page(work: Path) -> str | None:
    page = work / "run" / "report.html"
    return _Markup(page.read_text()).problem if page.exists() else "no report"
