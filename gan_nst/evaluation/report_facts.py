"""What a report says beside the scores: protocol, generator, timing, environment, each a list of facts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gan_nst.evaluation.numbers import duration, large, mapping, number, text
from gan_nst.evaluation.report_scores import counts

_NAMES = {
    "dimension": "feature dimension",
    "features": "feature network",
    "file": "weights",
    "gan_nst": "gan_nst",
    "kid_subsets": "KID subsets",
    "libraries": "",
    "lpips": "LPIPS",
    "name": "protocol",
}


@dataclass(frozen=True)
class Fact:
    """full: the whole of a text that is shown shortened, or "" where all of it is shown."""

    label: str
    text: str
    full: str = ""


def facts(values: Mapping[str, Any], prefix: str = "") -> Iterator[Fact]:
    """A fact for every entry that has a value; those of a mapping inside carry its name."""
    for key, value in values.items():
        name = f"{prefix} {_NAMES.get(key, key.replace('_', ' '))}".strip()
        if isinstance(value, Mapping):
            yield from facts(value, name)
        elif key == "sha256" and isinstance(value, str) and len(value) > 16:
            yield Fact(name, f"{value[:12]}…", value)
        elif isinstance(value, bool):
            yield Fact(name, "yes" if value else "no")
        elif isinstance(value, float):
            yield Fact(name, text(value))
        elif value is not None and value != "":
            yield Fact(name, str(value))


def protocol(evaluation: Mapping[str, Any], translations: Mapping[str, Mapping[str, Any]]) -> Iterator[Fact]:
    yield from facts(mapping(evaluation, "protocol"))
    if evaluation.get("split"):
        yield Fact("split", str(evaluation["split"]))
    for name, translation in translations.items():
        if counted := counts(translation):
            yield Fact(f"judged of {name}", counted)


def generator(values: Mapping[str, Any]) -> Iterator[Fact]:
    """Size and speed, as measured by `cost.generator_cost`."""
    size = values.get("size")
    a_picture = f"a picture of {size} by {size} pixels" if size else "a picture"
    for key, value in values.items():
        found = number(value)
        if found is None or key == "size":
            continue
        if key == "parameters":
            yield Fact("parameters", f"{found:,.0f}")
        elif key == "multiply_adds":
            yield Fact("multiply-adds", f"{large(found)} {a_picture}")
        elif key == "milliseconds":
            yield Fact("time", f"{text(found)} ms {a_picture}")
        else:
            yield Fact(key.replace("_", " "), text(found))


def timing(values: Mapping[str, Any]) -> Iterator[Fact]:
    seconds, steps = number(values.get("seconds")), number(values.get("steps"))
    share = number(values.get("validation_share"))
    if steps is not None:
        yield Fact("steps", f"{steps:,.0f}")
    if seconds is not None:
        yield Fact("training", duration(seconds))
    if seconds and steps:
        yield Fact("speed", f"{text(steps / seconds)} steps a second")
    if share is not None:
        yield Fact("spent on validation", f"{100 * share:.3g} %")
