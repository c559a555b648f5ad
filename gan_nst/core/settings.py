"""Settings: one YAML file plus overrides, validated, with errors a person can act on."""

import difflib
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from gan_nst.core.errors import SettingsError, format_value, one_line, reason, shorten

S = TypeVar("S", bound="Section")

_DEEPEST = 30  # sections in the path of an override


class Section(BaseModel):
    """A group of settings: frozen, without unknown keys, with finite numbers, without booleans for numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_not_booleans(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            for key, value in data.items():
                field = cls.model_fields.get(key)
                if isinstance(value, bool) and field is not None and bool not in leaf_types(field.annotation):
                    raise ValueError(
                        f"{key}: expected {describe(field.annotation)}, got {str(value).lower()}"
                    )
        return data


def validate(model: type[S], data: Any, where: str = "") -> S:
    """Returns the settings of type `model` that `data` describes.

    where: names the source in errors, a file for example. Raises SettingsError with one line about the first
    mistake: the full path of the setting, what was given, what was probably meant.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        prefix = f"{where}: " if where else ""
        raise SettingsError(one_line(prefix + _explain(model, error))) from None


def parse_yaml(text: str) -> Any:
    """Returns the plain data in a YAML text. Raises ValueError with one line."""
    try:
        return yaml.safe_load(text)
    except Exception as error:  # `!!bool x` is a KeyError, deep nesting a RecursionError
        raise ValueError(shorten(str(error))) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Returns the mapping in a YAML file. Raises SettingsError if it cannot be read or is not a mapping."""
    try:
        data = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({reason(error)})") from None
    except ValueError as error:
        raise SettingsError(f"{path}: not valid YAML: {error}") from None
    if data is None:
        return {}
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise SettingsError(f"{path}: expected settings as `name: value` lines")
    return data


def read_overrides(model: type[Section], overrides: list[str]) -> dict[str, Any]:
    """Returns `section.key=value` texts as nested settings. Values are YAML, except for text and path settings,
    which take theirs literally.
    """
    data: dict[str, Any] = {}
    for override in overrides:
        path, equals, text = override.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys) or len(keys) > _DEEPEST:
            raise SettingsError(
                f"{format_value(override)}: expected section.key=value, training.steps=1000 for example"
            )
        field_type = _field_type(model, keys)
        if field_type is not None and leaf_types(field_type) <= {str, Path, type(None)}:
            value: Any = None if text in ("", "null") and type(None) in leaf_types(field_type) else text
        else:
            try:
                value = parse_yaml(text)
            except ValueError as error:
                raise SettingsError(
                    f"{shorten(path)}: {format_value(text)} is not valid YAML: {error}"
                ) from None
        nested = data
        for key in keys[:-1]:
            nested = nested.setdefault(key, {})
            if not isinstance(nested, dict):
                raise SettingsError(f"{shorten(path)}: {shorten(key)} was already given a value")
        nested[keys[-1]] = value
    return data


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `base` updated with the values of `over`, mapping by mapping; lists are replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def dump_yaml(data: Mapping[str, Any]) -> str:
    """Returns plain settings as YAML text, in their own order."""
    return yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True)


def yaml_value(value: Any) -> str:
    """Returns a plain value as typed after `section.key=`."""
    plain = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
    return yaml.safe_dump(plain, default_flow_style=True).removesuffix("...\n").strip()


def setting_paths(model: type[Section], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the full path and pydantic field of every setting of a model, depth first."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        sections = [t for t in leaf_types(field.annotation) if isinstance(t, type) and issubclass(t, Section)]
        yield path, field
        for section in sections:
            yield from setting_paths(section, path + ".")


def describe(annotation: Any) -> str:
    """Returns a type in a user's words: "a whole number", "one of resize, transposed"."""
    if typing.get_origin(annotation) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(annotation)))
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
    names[type(None)] = "null"
    if annotation in names:
        return names[annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return " or ".join(describe(part) for part in typing.get_args(annotation))
    if typing.get_origin(annotation) is typing.Annotated:
        return describe(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (list, tuple):
        return "a list"
    return "a group of settings"


def leaf_types(annotation: Any) -> set[Any]:
    """Returns the types that a setting may have, with unions and annotations taken apart; `Literal` for literals."""
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return {typing.Literal}
    if origin is typing.Annotated:
        return leaf_types(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return set().union(*(leaf_types(part) for part in typing.get_args(annotation)))
    return {origin or annotation}


def _field_type(model: type[Section], keys: list[str]) -> Any:
    """Returns the annotation of a nested setting or of a list's element, or None if there is no such setting."""
    found: Any = None
    candidates: list[type[Section]] = [model]
    for key in keys:
        if key.isdigit() and typing.get_origin(found) in (list, tuple):
            found = typing.get_args(found)[0]
            continue
        fields = [candidate.model_fields[key] for candidate in candidates if key in candidate.model_fields]
        if not fields:
            return None
        found = fields[0].annotation
        candidates = [t for t in leaf_types(found) if isinstance(t, type) and issubclass(t, Section)]
    return found


def _explain(model: type[Section], error: ValidationError) -> str:
    """Returns one line about the first mistake. Unknown keys come first, as they often cause the others."""
    mistake = min(error.errors(), key=lambda mistake: mistake["type"] != "extra_forbidden")
    keys = [
        shorten(str(key), 100)
        for key in mistake["loc"]
        if not (isinstance(key, str) and key.startswith("function-"))
    ]
    path = ".".join(keys)
    if mistake["type"] == "extra_forbidden":
        return f"{path}: unknown setting{_did_you_mean(model, path)}"
    if mistake["type"] == "missing":
        return f"{path}: missing"
    while keys and not keys[-1].isdigit() and _field_type(model, keys) is None:
        keys.pop()  # pydantic adds which type of a union it tried
    path = ".".join(keys)
    message = mistake["msg"].removeprefix("Value error, ")
    if mistake["type"] == "value_error":
        names_its_field = ": " in message and " " not in message.split(":")[0]
        return f"{path}{'.' if names_its_field else ': '}{message}" if path else message
    given = format_value(mistake["input"])
    annotation = _field_type(model, keys) or _field_type(model, keys[:-1])
    if mistake["type"].endswith(("literal_error", "_type", "_parsing", "_from_float")) and annotation:
        close = difflib.get_close_matches(given.strip("'"), map(str, typing.get_args(annotation)), 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        return f"{path}: expected {describe(annotation)}, got {given}{hint}"
    return f"{path + ': ' if path else ''}{message[0].lower()}{message[1:]}, got {given}"


def _did_you_mean(model: type[Section], path: str) -> str:
    known = [name for name, _ in setting_paths(model)]
    last = path.rpartition(".")[2]
    namesakes = [name for name in known if name.rpartition(".")[2] == last]
    close = difflib.get_close_matches(path, namesakes, 1, 0) or difflib.get_close_matches(path, known, 1, 0.6)
    return f"; did you mean {close[0]}?" if close else ""
