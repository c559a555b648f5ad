"""The errors that users can cause or meet, and the formatters that messages share.

A message is one line: where, what was given, what to do.

GanNstError
 ├─ SettingsError      a setting is unknown, of the wrong type, or in conflict with others
 ├─ DataError          folders or images are missing, broken or too small
 ├─ CheckpointError    a run, checkpoint or exported generator cannot be read or written
 ├─ WeightsError       weights of another network are missing or cannot be read
 ├─ TrainingError      training cannot continue, because a loss is not finite for example
 └─ Interrupted        a signal stopped a run, which is saved
"""

import errno
import math
import re
import reprlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class GanNstError(Exception):
    """The root: the command line prints its message as one line and exits with `exit_code`."""

    exit_code = 2


class SettingsError(GanNstError):
    """A setting is unknown, of the wrong type, or in conflict with others."""


class DataError(GanNstError):
    """Folders or images are missing, broken or too small."""


class CheckpointError(GanNstError):
    """A run, checkpoint or exported generator cannot be read or written."""


class WeightsError(GanNstError):
    """Weights of another network, for a metric or a loss, are missing or cannot be read."""


class TrainingError(GanNstError):
    """Training cannot continue."""


class Interrupted(GanNstError):
    """A signal stopped a run, which is saved and can be resumed. The exit code is the shell's: 128 plus the signal."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal


# Control characters, line separators, characters that change the direction of text, undecodable bytes of file names.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def one_line(text: str) -> str:
    """Returns the text in one line that is safe to print, with escapes for what would move the cursor."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def shorten(text: str, longest: int = 300) -> str:
    """Returns a text in one line, without its middle if it is long."""
    if len(text) > longest:
        text = f"{text[: longest // 2]}...{text[-longest // 2 :]}"
    return one_line(" ".join(text.split()))


_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80


def format_value(value: object) -> str:
    """Returns a given value as messages quote it: in one line, without its middle if it is long."""
    try:
        return "null" if value is None else shorten(_short.repr(value))
    except ValueError:  # Python refuses to print integers of thousands of digits
        return "a number of too many digits"


def reason(error: BaseException) -> str:
    """Returns what another library's error says, or the system's message, in one line to put in brackets."""
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__


def counted(number: int, thing: str) -> str:
    """Returns a number of things: `1 image`, `2 images`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def listed(texts: Sequence[str], most: int, separator: str = ", ") -> str:
    """Returns the first `most` texts, and how many more there are: `a, b and 3 more`, `a; b; and 3 more`."""
    more = f"{separator.strip(', ')} and {len(texts) - most} more" if len(texts) > most else ""
    return separator.join(texts[:most]) + more


def format_size(number: float) -> str:
    """Returns a number of bytes in decimal units: `117 MB`, `1.5 GB`."""
    for unit in ("bytes", "kB", "MB"):
        if number < 999.5:
            return f"{number:.0f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"


def format_duration(seconds: float) -> str:
    """Returns a duration in its two largest units: `8.25 s`, `12 min`, `6 min 40 s`, `3 h 20 min`, `2 d 5 h`."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    total = round(seconds)
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    first = next(i for i, (_, length) in enumerate(units) if total >= length)
    (large, length), (small, part) = units[first : first + 2]
    count, rest = divmod(total, length)
    return f"{count} {large}" + (f" {rest // part} {small}" if rest // part else "")


def format_number(value: float, scale: float = 0.0) -> str:
    """Returns a number with four significant digits, three below 0.1.

    scale: a number that is read next to it; if that is larger, the decimals are those that it would have.
    """
    if not math.isfinite(value):
        return "not finite"
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(max(abs(value), abs(scale))))
    digits = 4 if exponent >= -1 else 3
    return f"{value:.{digits}g}" if exponent < -4 else f"{value:,.{max(0, digits - 1 - exponent)}f}"


def format_large(value: float) -> str:
    """Returns a large number with three digits: `67.6 million`, `56.8 billion`; below a million all of it."""
    for unit, name in ((1e9, "billion"), (1e6, "million")):
        if value >= unit:
            return f"{value / unit:.3g} {name}"
    return f"{value:,.0f}"


_OLD = "old runs or datasets/.cache, for example"
_REMEDIES = {
    errno.ENOSPC: f"free space on that disk ({_OLD})",
    errno.EDQUOT: f"the quota is used up; free space ({_OLD})",
    errno.EFBIG: "files of that size are not allowed there; raise the limit or choose another disk",
    errno.EROFS: "make it writable, or choose another place",
    errno.EACCES: "make it writable, or choose another place",
    errno.EPERM: "make it writable, or choose another place",
}


def cannot_write(path: Path | str, error: BaseException, what: str = "could not be written") -> str:
    """Returns the message for a path that could not be written: why, and what helps."""
    number = getattr(error, "errno", None)
    remedy = f"; {_REMEDIES[number]}" if number in _REMEDIES else ""
    return f"{path}: {what} ({reason(error)}){remedy}"


@contextmanager
def writing(path: Path, raised: type[GanNstError] = CheckpointError) -> Iterator[None]:
    """Turns a failing write within the context into an error that names `path`, or a rename's target."""
    try:
        yield
    except OSError as error:
        raise raised(cannot_write(Path(error.filename2 or path), error)) from None
