"""What files from elsewhere say, within bounds: YAML without objects or bombs, and values short enough to be told."""

import reprlib
from typing import Any

import yaml

from gan_nst.core.errors import one_line

LONGEST = 100_000  # characters of a YAML text
_DEEPEST = 30
_MOST = 20_000  # values, an alias counted as all that it stands for
_LONGEST_NUMBER = 1024  # bits

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80


class _Bounded(yaml.SafeLoader):
    """Refuses what is nested too deep, holds itself, or grows by aliases; and tells what is no value of its type."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._count = 0
        self._counts: dict[yaml.Node, int] = {}  # of the values in a node that an alias may stand for

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self._depth == _DEEPEST:
            raise yaml.YAMLError(f"is nested more than {_DEEPEST} deep")
        event, before = self.peek_event(), self._count  # type: ignore[no-untyped-call]
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        assert node is not None
        if not isinstance(event, yaml.AliasEvent):
            self._count += 1
            self._counts[node] = self._count - before
        elif node not in self._counts:
            raise yaml.YAMLError(f"*{event.anchor} holds itself")
        else:
            self._count += self._counts[node]
        if self._count > _MOST:
            raise yaml.YAMLError(f"has more than {_MOST} values")
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
            raise yaml.YAMLError(f"{shown(node.value)} is no {node.tag.rpartition(':')[2]}") from None
        if isinstance(value, int) and value.bit_length() > _LONGEST_NUMBER:
            raise yaml.YAMLError("a number of too many digits")
        return value


def parse_yaml(text: str) -> Any:
    """The plain data in a YAML text. Raises ValueError, in one line, when there is none, or more than settings have."""
    try:
        if len(text) > LONGEST:
            raise yaml.YAMLError(f"is longer than {LONGEST} characters")
        return yaml.load(text, _Bounded)
    except yaml.YAMLError as error:
        raise ValueError(shortened(str(error))) from None


def shown(value: object) -> str:
    """A value that was given, as it is told in a message: on one line, the middle left out where it is long."""
    return "null" if value is None else shortened(_short.repr(value))


def shortened(text: str, longest: int = 300) -> str:
    """A text in one line, with the middle left out where it is long."""
    if len(text) > longest:
        text = f"{text[: longest // 2]}...{text[-longest // 2 :]}"
    return one_line(" ".join(text.split()))
