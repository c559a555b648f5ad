"""`gan-nst data get`: a data set from elsewhere becomes a folder that training reads."""

import logging
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
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
from gan_nst.data.download import KNOWN, KnownSet, download

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Wanted:
    """name: of the data set. addresses: of its archive, or none where that is the file `source`."""

    source: str
    name: str
    addresses: tuple[str, ...] = ()
    sha256: str | None = None
    known: KnownSet | None = None


def data_get(source: str | Path, options: GetOptions = GetOptions()) -> Path:
    """Makes a data set of an archive from elsewhere: trainA, trainB, testA ... in a new folder, which it returns.

    source: the name of a known set, the http(s) address of a zip or tar, or its path. into: the folder, which may
    exist, empty, but not be the current one (default: datasets/NAME). sha256: of the archive; default: the known one,
    if any. max_size: bytes at most, of the archive and of what comes out of it.
    Nothing but images is taken out, and the folder appears whole or not at all. A download that broke off goes on
    when it is asked for again; it waits beside the folder, in `.NAME.download`. Raises SettingsError for a source that
    is none of these, DataError, one line, for whatever goes wrong with it.
    """
    wanted = _find(str(source), options.sha256)
    folder = options.into or _default_folder(wanted)
    if folder.name == "..":  # it names no folder, and may lead over one that is not there
        folder = Path(os.path.realpath(folder))
    with _working(folder) as work:
        archive, found = _archive(wanted, work, options.max_size)
        try:
            unpacked = unpack(archive, work / "unpacked", largest=options.max_size, called=wanted.source)
        except ArchiveRefused:
            _forget_download(work)
            raise
        arranged = _arranged(wanted, work, unpacked.images, archive)
        (work / "whole").rename(os.path.realpath(folder))
        _forget_download(work)
    left_out = unpacked.left_out + arranged.left_out
    _tell(wanted, folder, arranged, left_out, found)
    return folder


def _find(source: str, sha256: str | None) -> _Wanted:
    if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", sha256 := sha256.strip().lower()):
        raise SettingsError(f"{sha256}: no SHA-256, which has 64 digits of 0 to 9 and a to f")
    if source in KNOWN:
        known = KNOWN[source]
        return _Wanted(source, source, known.addresses, sha256 or known.sha256, known)
    if re.match(r"[A-Za-z][\w+.-]*://", source):
        if not source.lower().startswith(("http://", "https://")):
            raise SettingsError(f"{source}: only http and https are downloaded; for a file give its path")
        return _Wanted(source, _name_in(_path_in(source)), (source,), sha256)
    if Path(source).is_file():
        return _Wanted(source, _name_in(Path(source).name), (), sha256)
    close = get_close_matches(source, KNOWN, 1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(KNOWN)}"
    raise SettingsError(f"{source}: neither a known data set nor an address nor a file; {hint}")


def _default_folder(wanted: _Wanted) -> Path:
    if not wanted.name:
        raise SettingsError(f"{wanted.source}: gives the data set no name; add --into datasets/NAME")
    return DataSettings().root / wanted.name


def _path_in(address: str) -> str:
    try:
        parts = urlsplit(address)
    except ValueError as error:
        raise SettingsError(f"{address}: no proper address ({reason(error)})") from None
    if not parts.hostname:
        raise SettingsError(f"{address}: no proper address (it names no machine)")
    return unquote(parts.path)


def _name_in(path: str) -> str:
    """The name that an archive's path gives its data set; nothing when it gives none."""
    name = PurePosixPath(path).name
    name = re.sub(r"(\.tar)?\.(zip|tar|gz|tgz|bz2|tbz2|xz|txz)$", "", name, flags=re.I)
    return "" if name.startswith(".") or one_line(name) != name else name


@contextmanager
def _working(folder: Path) -> Iterator[Path]:
    """A hidden folder beside the one to make, for one process at a time; a download that is not finished stays in it.

    What was left by a process that was killed is removed.
    """
    place = Path(os.path.realpath(folder))
    work = place.parent / f".{place.name}.download"
    missing: list[Path] = []
    try:
        if not work.exists():
            _refuse_taken(folder)
        missing += (above for above in work.parents if not above.exists())
        work.mkdir(parents=True, exist_ok=True)
        with FileLock(work / "lock", timeout=0):
            try:
                _clear(work)
                if _is_taken(folder):  # what a process left that was killed when its work was done
                    _forget_download(work)
                _refuse_taken(folder)
                yield work
            finally:
                _clear(work)
                if not any(work.glob("archive*")):
                    shutil.rmtree(work)
    except Timeout:
        raise DataError(f"{folder}: another gan-nst data get is making it; wait for its end") from None
    except OSError as error:
        raise DataError(cannot_write(folder, error, "could not be made")) from None
    finally:
        for above in missing:
            with suppress(OSError):  # it holds something
                above.rmdir()


def _is_taken(folder: Path) -> bool:
    return folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))


def _refuse_taken(folder: Path) -> None:
    if _is_taken(folder):
        raise DataError(
            f"{folder}: holds something already; move it away, or give another folder with --into"
        )
    if folder.exists() and folder.samefile("."):  # a shell would stay in the one that is replaced
        raise DataError(f"{folder}: is the folder you are in; give a new one with --into")


def _clear(work: Path) -> None:
    for name in ("unpacked", "whole"):
        if (work / name).exists():
            shutil.rmtree(work / name)


def _forget_download(work: Path) -> None:
    for path in work.glob("archive*"):
        path.unlink()


def _archive(wanted: _Wanted, work: Path, largest: int) -> tuple[Path, str | None]:
    """The archive's file, and its SHA-256 where it was downloaded."""
    if wanted.addresses:
        archive = work / "archive"
        return archive, download(wanted.addresses, archive, sha256=wanted.sha256, largest=largest)
    archive = Path(wanted.source)
    if wanted.sha256 is not None and (found := _digest(archive)) != wanted.sha256:
        raise DataError(f"{archive}: its SHA-256 is {found}, expected {wanted.sha256}; it is another file")
    return archive, None


def _digest(archive: Path) -> str:
    try:
        return digest(archive)
    except OSError as error:
        raise DataError(f"{archive}: could not be read ({reason(error)})") from None


def _arranged(wanted: _Wanted, work: Path, images: Sequence[PurePosixPath], archive: Path) -> Arranged:
    try:
        return arrange(work / "unpacked", images, work / "whole")
    except DataError as error:
        raise DataError(
            f"{wanted.source}: {error}; unpack {archive} yourself, and give gan-nst train data.a=FOLDER data.b=FOLDER"
        ) from None


def _tell(wanted: _Wanted, folder: Path, arranged: Arranged, left_out: int, found: str | None) -> None:
    counts = ", ".join(f"{counted(count, 'image')} in {name}" for name, count in arranged.counts.items())
    others = f"; {counted(left_out, 'other file')} left out" if left_out else ""
    log.info(f"{folder}: {counts}{others}")
    if arranged.guessed:
        a, b = arranged.guessed
        log.info(
            f"{a} became trainA and {b} became trainB, by their names; swap them if you want the reverse"
        )
    if wanted.known is not None:
        known = wanted.known
        log.info(f"a: {known.a}; b: {known.b}; from {known.source}, whose terms hold")
    if found is not None and wanted.sha256 is None:
        log.info(
            f"no SHA-256 is known to check it by; that of this archive is {found} (--sha256 tells it next time)"
        )
    missing = [name for name in ("trainA", "trainB") if name not in arranged.counts]
    if missing:
        log.warning(f"{folder}: no {' and no '.join(missing)}: it can be judged by, but not trained on")
        return
    log.info(f"next: gan-nst data check {shlex.quote(str(folder))}, then {_training(folder)}")


def _training(folder: Path) -> str:
    """What to type to train on a folder."""
    name = shlex.quote(folder.name)
    if folder.parent == DataSettings().root:
        return f"make train DOMAIN={name}"
    return f"gan-nst train --domain {name} --method cyclegan data.root={shlex.quote(str(folder.parent))}"
