"""`gan-nst data get`: turns a downloaded or local archive into a data set for training."""

import logging
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from filelock import FileLock, Timeout

from gan_nst.core.errors import DataError, SettingsError, cannot_write, counted, one_line
from gan_nst.core.options import GetOptions
from gan_nst.core.pretrained import digest
from gan_nst.data.archives import ArchiveRefused, arrange, unpack
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
    source = str(source)
    known = KNOWN.get(source)
    url, name = (known.url, known.name) if known else _resolve(source)
    sha256 = options.sha256 and options.sha256.strip().lower()
    if sha256 and not re.fullmatch("[0-9a-f]{64}", sha256):
        raise SettingsError(f"{sha256}: not a SHA-256; expected 64 hexadecimal digits")
    if known:
        sha256 = sha256 or known.sha256
    if options.into is None and not name:
        raise SettingsError(f"{source}: its address gives the data set no name; add --into datasets/NAME")
    folder = Path(os.path.normpath(options.into or DataSettings().root / name))
    with _workspace(folder) as work, tempfile.TemporaryDirectory(dir=work) as made:
        archive = work / "archive" if url else Path(source)
        images = Path(made, "images")
        if url:
            download(url, archive, largest=options.max_size)
        unpack(archive, images, largest=options.max_size, called=source, sha256=sha256)
        counts = arrange(images, Path(made, "set"), archive)
        if url and not sha256:
            log.info(
                f"{source}: not verified; its SHA-256 is {digest(archive)} (give it as --sha256 next time)"
            )
        Path(made, "set").rename(os.path.realpath(folder))
    log.info(
        f"{folder}: " + ", ".join(f"{counted(count, 'image')} in {name}" for name, count in counts.items())
    )
    if missing := [name for name in ("trainA", "trainB") if name not in counts]:
        log.warning(f"{folder}: no {' and no '.join(missing)}: usable for evaluation, but not for training")
    else:
        parent, name = shlex.quote(str(folder.parent)), shlex.quote(folder.name)
        log.info(
            f"next: gan-nst data check {shlex.quote(str(folder))}, then "
            f"gan-nst train --domain {name} --method cyclegan data.root={parent}"
        )
    if known:
        log.info(f"a: {known.a}; b: {known.b}; from {known.source}, whose terms apply")
    return folder


def _resolve(source: str) -> tuple[str | None, str]:
    """The address of an archive, None if it is a file, and the name of its data set, empty if it suggests none."""
    address = re.match(r"https?://[^/?#]*([^?#]*)", source, re.IGNORECASE)
    if address is None and not Path(source).is_file():
        names = ", ".join(KNOWN)
        raise SettingsError(
            f"{source}: not a known data set, an http(s) address or a file; known sets are {names}"
        )
    name = PurePosixPath(unquote(address[1]) if address else source).name
    name = re.sub(r"(\.tar)?\.(zip|tar|gz|tgz|bz2|tbz2|xz|txz)$", "", name, flags=re.IGNORECASE)
    return source if address else None, "" if name.startswith(".") or one_line(name) != name else name


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
                yield work
            except ArchiveRefused:
                (work / "archive").unlink(missing_ok=True)
                raise
            finally:
                if _is_taken(target) or not (work / "archive").exists():
                    shutil.rmtree(work)
    except Timeout:
        raise DataError(f"{folder}: another gan-nst data get is creating it; wait until it ends") from None
    except OSError as error:
        raise DataError(cannot_write(folder, error, "could not be created")) from None


def _is_taken(folder: Path) -> bool:
    """Whether a folder must not be replaced; the current one would leave its shell in a deleted folder."""
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()) or folder.samefile("."))
