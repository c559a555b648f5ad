"""`gan-nst data get`: turns an archive from elsewhere into a data set that training reads."""

import logging
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from filelock import FileLock, Timeout

from gan_nst.core.errors import DataError, SettingsError, cannot_write, counted, one_line, reason
from gan_nst.core.options import GetOptions
from gan_nst.core.weights import digest
from gan_nst.data.archives import ArchiveRefused, Arranged, arrange, unpack
from gan_nst.data.domains import DataSettings
from gan_nst.data.download import KNOWN, describe_known, download

log = logging.getLogger(__name__)


def get_or_list(source: str | None, options: GetOptions) -> str | None:
    """`data_get`, or without a source the list of the known sets."""
    if source is None:
        return describe_known()
    data_get(source, options)
    return None


def data_get(source: str | Path, options: GetOptions = GetOptions()) -> Path:
    """Makes a data set of an archive: trainA, trainB, testA ... in a new folder, which it returns.

    source: the name of a known set, the http(s) address of a zip or tar, or its path. The folder must not exist, or be
    empty and not the current one; it defaults to datasets/NAME, and the SHA-256 to the known one, if any.

    Only images are extracted, and the folder appears atomically. A download that broke off resumes at the next call;
    until then it is kept next to the folder, in `.NAME.download`. Raises SettingsError for an unknown source, and
    DataError if it cannot be downloaded or does not hold a data set.
    """
    wanted = _resolve(str(source), options.sha256)
    folder = Path(os.path.normpath(options.into or DataSettings().root / wanted.name))
    if options.into is None and not wanted.name:
        raise SettingsError(f"{source}: its address gives the data set no name; add --into datasets/NAME")
    with _workspace(folder) as work:
        archive = work / "archive" if wanted.url else Path(wanted.source)
        if wanted.url:
            found = download(wanted.url, archive, sha256=wanted.sha256, largest=options.max_size)
        elif wanted.sha256:
            _verify(archive, wanted.sha256)
        unpacked = unpack(archive, work / "new" / "archive", largest=options.max_size, called=wanted.source)
        try:
            arranged = arrange(work / "new" / "archive", unpacked.images, work / "new" / "set")
        except DataError as error:
            advice = f"unpack {archive} yourself and train with data.a=FOLDER data.b=FOLDER"
            raise DataError(f"{source}: {error}; {advice}") from None
        (work / "new" / "set").rename(os.path.realpath(folder))
    _report(folder, arranged, unpacked.skipped + arranged.skipped)
    if wanted.source in KNOWN:
        known = KNOWN[wanted.source]
        log.info(f"a: {known.a}; b: {known.b}; from {known.source}, whose terms apply")
    if wanted.url and not wanted.sha256:
        log.info(f"this archive was not verified; its SHA-256 is {found} (give it as --sha256 next time)")
    return folder


@dataclass(frozen=True)
class _Wanted:
    """What the user asked for. name: of the data set, perhaps empty. url: of its archive, unless that is a file."""

    source: str
    name: str
    url: str | None = None
    sha256: str | None = None


def _resolve(source: str, sha256: str | None) -> _Wanted:
    if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", sha256 := sha256.strip().lower()):
        raise SettingsError(f"{sha256}: not a SHA-256; expected 64 hexadecimal digits")
    if source in KNOWN:
        return _Wanted(source, source, KNOWN[source].url, sha256 or KNOWN[source].sha256)
    if re.match(r"https?://", source, re.I):
        try:
            parts = urlsplit(source)
            if not parts.hostname:
                raise ValueError("it names no host")
        except ValueError as error:
            raise SettingsError(f"{source}: not a valid address ({reason(error)})") from None
        return _Wanted(source, _name_in(unquote(parts.path)), source, sha256)
    if "://" in source:
        raise SettingsError(f"{source}: only http and https are supported; give a file by its path")
    if Path(source).is_file():
        return _Wanted(source, _name_in(source), None, sha256)
    close = get_close_matches(source, KNOWN, 1)
    hint = f"did you mean {close[0]}?" if close else f"known sets are {', '.join(KNOWN)}"
    raise SettingsError(f"{source}: not a known data set, an address or a file; {hint}")


def _name_in(path: str) -> str:
    """The name of the data set in an archive at this path; empty if it suggests none."""
    name = PurePosixPath(path).name
    name = re.sub(r"(\.tar)?\.(zip|tar|gz|tgz|bz2|tbz2|xz|txz)$", "", name, flags=re.I)
    return "" if name.startswith(".") or one_line(name) != name else name


@contextmanager
def _workspace(folder: Path) -> Iterator[Path]:
    """Yields a hidden folder next to the one to make, locked against other processes.

    Afterwards it is removed, unless it holds a download that the next call can use.
    """
    target = Path(os.path.realpath(folder))
    work = target.parent / f".{target.name}.download"
    try:
        work.mkdir(parents=True, exist_ok=True)
        with FileLock(work / "lock", timeout=0):
            try:
                if _is_taken(target):
                    raise DataError(
                        f"{folder}: not empty, or the current folder; give another one with --into"
                    )
                shutil.rmtree(work / "new", ignore_errors=True)  # of a process that was killed
                yield work
            except ArchiveRefused:
                for path in work.glob("archive*"):
                    path.unlink()
                raise
            finally:
                shutil.rmtree(work / "new", ignore_errors=True)
                if _is_taken(target) or not any(work.glob("archive*")):
                    shutil.rmtree(work)
    except Timeout:
        raise DataError(f"{folder}: another gan-nst data get is creating it; wait until it ends") from None
    except OSError as error:
        raise DataError(cannot_write(folder, error, "could not be created")) from None


def _is_taken(folder: Path) -> bool:
    """Whether a folder must not be replaced; the current one would leave its shell in a deleted folder."""
    if not folder.exists():
        return False
    return not folder.is_dir() or any(folder.iterdir()) or folder.samefile(".")


def _verify(archive: Path, sha256: str) -> None:
    try:
        found = digest(archive)
    except OSError as error:
        raise DataError(f"{archive}: could not be read ({reason(error)})") from None
    if found != sha256:
        raise DataError(f"{archive}: its SHA-256 is {found}, expected {sha256}; it is a different file")


def _report(folder: Path, arranged: Arranged, skipped: int) -> None:
    counts = ", ".join(f"{counted(count, 'image')} in {name}" for name, count in arranged.counts.items())
    log.info(f"{folder}: {counts}" + (f"; {counted(skipped, 'other file')} skipped" if skipped else ""))
    if arranged.guessed:
        a, b = arranged.guessed
        log.info(f"{a} became trainA and {b} became trainB, by name; swap them if you want the reverse")
    missing = [name for name in ("trainA", "trainB") if name not in arranged.counts]
    if missing:
        log.warning(f"{folder}: no {' and no '.join(missing)}: usable for evaluation, but not for training")
        return
    name = shlex.quote(folder.name)
    training = f"make train DOMAIN={name}"
    if folder.parent != DataSettings().root:
        training = (
            f"gan-nst train --domain {name} --method cyclegan data.root={shlex.quote(str(folder.parent))}"
        )
    log.info(f"next: gan-nst data check {shlex.quote(str(folder))}, then {training}")
