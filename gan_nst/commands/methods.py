"""`gan-nst methods`: what can be trained, and with which settings."""

from collections.abc import Iterator

from gan_nst.core.settings import Section, describe, leaf_types, setting_paths, yaml_value
from gan_nst.methods import base
from gan_nst.runs.settings import RunSettings


def describe_methods() -> str:
    """Every method with its paper and its settings, then the settings that all methods share."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    for name in base.names():
        method = base.find(name)
        yield f"{name}\n  {method.paper}"
        yield from _settings(method.Settings, "method.")
        yield ""
    yield "every method"
    yield from (line for line in _settings(RunSettings, "") if not line.startswith("  method."))


def _settings(model: type[Section], prefix: str) -> Iterator[str]:
    for path, field in setting_paths(model, prefix):
        if any(isinstance(t, type) and issubclass(t, Section) for t in leaf_types(field.annotation)):
            continue
        default = "" if field.is_required() else yaml_value(field.default)
        yield f"  {path + ' = ' + default:<44} {field.description or ''} ({describe(field.annotation)})"
