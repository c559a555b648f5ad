"""A progress bar for long loops; nothing at all unless the command line switches it on."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from gan_nst.core.errors import one_line

T = TypeVar("T")

_shown = False
_drawn = False


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

    yield from rich_track(
        items, description=_shown_as(description), console=Console(stderr=True), transient=True
    )


@contextmanager
def bar(description: str) -> Iterator[Callable[[float], None] | None]:
    """A bar on standard error, where one is wanted: within the context, call it with the share that is done, 0 to 1.

    It says the time left. Within another one there is none.
    """
    global _drawn
    if not shown() or _drawn:
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    _drawn = True
    try:
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(_shown_as(description), total=1.0)

            def report(share: float) -> None:
                progress.update(task, completed=share)

            yield report
    finally:
        _drawn = False


def _shown_as(description: str) -> str:
    """The description without what rich, or the terminal, would take for more than text."""
    from rich.markup import escape

    return str(escape(one_line(description)))
