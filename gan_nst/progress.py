"""A progress bar for long loops; nothing at all unless the command line switches it on."""

import sys
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

_shown = False


def show(shown: bool = True) -> None:
    """Switches progress bars on or off for this process; the command line switches them on."""
    global _shown
    _shown = shown


def shown() -> bool:
    """Whether bars are wanted and there is a terminal to draw them on."""
    return _shown and sys.stderr.isatty()


def track(items: Sequence[T], description: str) -> Iterator[T]:
    """Yields the items, drawing a bar on standard error where one is wanted."""
    if not shown():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track as rich_track

    yield from rich_track(items, description=description, console=Console(stderr=True), transient=True)
