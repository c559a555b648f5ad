"""The well-known data sets: where they lie, and what is known of them.

Addresses: the CycleGAN authors' server, its old place after it. Sizes and hashes: tensorflow/datasets,
url_checksums/cycle_gan.txt, which has no grumpifycat. What the images are: docs/datasets.md of
junyanz/pytorch-CycleGAN-and-pix2pix. `cityscapes` may not be passed on, and `ae_photos` has no training images.
"""

import json
import logging
import os
import re
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from http.client import HTTPException, HTTPResponse, InvalidURL
from pathlib import Path
from typing import Any, cast
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from gan_nst.core.errors import DataError, cannot_write, format_size, reason
from gan_nst.core.files import atomic_write
from gan_nst.core.terminal import progress_bar
from gan_nst.core.version import __version__
from gan_nst.core.weights import digest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Origin:
    """Where a file comes from. mark: by which the server tells one version from another. size: in bytes, if told."""

    address: str = ""
    mark: str = ""
    size: int | None = None


class Partial:
    """The beginning of `target`, in `NAME.part`, with its origin in `NAME.json`; both outlive the process."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self.path = target.with_name(f"{target.name}.part")
        self._note = target.with_name(f"{target.name}.json")
        self.origin = Origin()
        self.size = self.path.stat().st_size if self.path.exists() else 0
        with suppress(OSError, ValueError, TypeError):
            self.origin = Origin(**json.loads(self._note.read_text()))

    def begin(self, origin: Origin) -> None:
        """Starts anew, with a file from there."""
        with _writing(self.path):
            self.path.write_bytes(b"")  # first: what was here must not pass for a part of the new file
            self.size, self.origin = 0, origin
            with atomic_write(self._note) as unfinished:
                unfinished.write_text(json.dumps(asdict(origin)))

    @contextmanager
    def adding(self) -> Iterator[Callable[[bytes], None]]:
        """Within the context, call it with what has arrived. Raises DataError when it cannot be written."""
        with open(self.path, "ab", buffering=0) as file:

            def add(piece: bytes) -> None:
                rest = memoryview(piece)
                with _writing(self.path):
                    while rest:
                        written = file.write(rest)
                        self.size += written
                        rest = rest[written:]

            yield add

    def finish(self) -> str:
        """Makes it the target, if that is not there yet; returns the target's SHA-256."""
        if not self._target.exists():
            with _writing(self.path):
                with open(self.path, "rb") as file:
                    os.fsync(file.fileno())
                os.replace(self.path, self._target)
        self.size = 0
        return digest(self._target)

    def discard(self) -> None:
        """Removes it, and the target."""
        for path in (self.path, self._target, self._note):
            path.unlink(missing_ok=True)
        self.size, self.origin = 0, Origin()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{cannot_write(path, error)}; then the same command goes on") from None


_WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds before another try of the same address
_TIMEOUT = 30.0  # seconds without an answer
_LEAST = 10_000  # bytes in that time below which a server is as good as silent
_WORTH = 1 << 20  # bytes that earn a connection that broke off another round of tries
_BUSY = (408, 416, 425, 429, 500, 502, 503, 504)  # answers that may be others later
_CHUNK = 1 << 18


class _Refused(Exception):
    """An address does not give the file, and will not in a moment either."""


class _BrokeOff(Exception):
    """A transfer ended too early; it may go on."""


def download(addresses: Sequence[str], target: Path, *, sha256: str | None, largest: int) -> str:
    """Fetches a file to `target`, unless it lies there, and returns its SHA-256.

    addresses: http or https, of the same file, in the order of trying. sha256: what it must be; another file is thrown
    away. largest: bytes at most. Raises DataError, one line, when no address gives it, or the disk is full; what has
    arrived stays for the next call.
    """
    partial = Partial(target)
    if partial.origin.address not in addresses:
        partial.discard()
    problems = []
    for address in sorted(addresses, key=lambda address: address != partial.origin.address):
        try:
            if not target.exists():
                _fetch(address, partial, largest)
            found = partial.finish()
            if sha256 is None or found == sha256:
                return found
            partial.discard()
            problems.append(f"{address}: its SHA-256 is {found}, expected {sha256}")
        except _Refused as error:
            problems.append(f"{address}: {error}")
    if partial.size:
        advice = f"{format_size(partial.size)} of it stay, and the same command goes on from there"
    else:
        partial.discard()
        advice = "try again later, or fetch it by other means and give its path"
    raise DataError(f"{'; '.join(problems)}; {advice}")


def _fetch(address: str, partial: Partial, largest: int) -> None:
    """Receives a file from one address, with some patience. Raises _Refused when that has come to its end."""
    failures = 0
    while True:
        before = partial.size
        try:
            return _receive(address, partial, largest)
        except HTTPError as error:
            error.close()
            if error.code not in _BUSY:
                raise _Refused(reason(error)) from None
            if error.code == 416:  # the file has become shorter
                partial.discard()
            problem: Exception = error
        except (InvalidURL, ValueError) as error:
            raise _Refused(f"no proper address ({reason(error)})") from None
        except (OSError, HTTPException, _BrokeOff) as error:
            problem = cause if isinstance(cause := getattr(error, "reason", None), Exception) else error
        if partial.size - before >= _WORTH:
            failures = 0
        hopeless = isinstance(
            problem, (socket.gaierror, ConnectionRefusedError, ssl.SSLCertVerificationError)
        )
        if failures == len(_WAITS) or (hopeless and not partial.size):
            raise _Refused(reason(problem)) from None
        log.info(f"{address}: {reason(problem)}; trying again in {_WAITS[failures]:.0f} s")
        time.sleep(_WAITS[failures])
        failures += 1


def _receive(address: str, partial: Partial, largest: int) -> None:
    """Receives a file, or the rest of it, over one connection."""
    origin = partial.origin
    start = partial.size if origin.address == address and origin.mark else 0
    if start and start == origin.size:
        return
    headers = {"User-Agent": f"gan_nst/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": origin.mark}
    opener = build_opener(_Redirects)
    with opener.open(Request(address, headers=headers), timeout=_TIMEOUT) as answer:
        total = _begin(cast(HTTPResponse, answer), address, partial, start)
        if total is not None:
            _make_sure_it_fits(total, partial, largest)
        with progress_bar(f"downloading {address}") as report:
            _copy(answer, partial, largest, report if total else None, total or 1)
    if total is not None and partial.size != total:
        raise _BrokeOff(f"breaks off after {format_size(partial.size)} of {format_size(total)}")
    if not partial.size:
        raise _Refused("an empty file")


def _begin(answer: HTTPResponse, address: str, partial: Partial, start: int) -> int | None:
    """Makes the partial file ready for what the answer holds; returns the size of the whole file where it is told."""
    mark = " ".join((answer.headers["ETag"] or "").split())
    if not mark or mark.startswith("W/"):  # a weak one may stand for two files
        mark = " ".join((answer.headers["Last-Modified"] or "").split())
    if answer.status == 206 and start:
        held = partial.origin
        told = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers["Content-Range"] or "")
        if (
            told is None
            or int(told[1]) != start
            or held.size not in (None, int(told[2]))
            or mark not in ("", held.mark)  # a 206 may leave out what was in the condition
        ):
            partial.discard()
            raise _BrokeOff("goes on with another file")
        log.info(f"going on with {address}: {format_size(start)} of {format_size(int(told[2]))} are here")
        return int(told[2])
    if answer.status != 200:
        raise _Refused(f"answers {answer.status} {answer.reason}")
    log.info(f"downloading {address}" + ("" if answer.length is None else f" ({format_size(answer.length)})"))
    partial.begin(Origin(address, mark, answer.length))
    return answer.length


def _make_sure_it_fits(total: int, partial: Partial, largest: int) -> None:
    if total > largest:
        raise _Refused(f"{format_size(total)}; allow more than {format_size(largest)} with --max-size")
    free, needed = shutil.disk_usage(partial.path.parent).free, 2 * total - partial.size
    if free < needed:
        raise DataError(
            f"{partial.path.parent}: {format_size(free)} free, the archive and its images need {format_size(needed)}; "
            "free space, or give a folder on another disk"
        )


def _copy(
    answer: HTTPResponse, partial: Partial, largest: int, report: Callable[[float], None] | None, total: int
) -> None:
    """Adds what arrives to the partial file."""
    since, size_then = time.monotonic(), partial.size
    with partial.adding() as add:
        while piece := answer.read1(_CHUNK):
            if not partial.size and piece.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
                raise _Refused("a web page, no archive; look at it in a browser")
            add(piece)
            if partial.size > largest:
                partial.discard()
                raise _Refused(f"more than {format_size(largest)} arrive; allow more with --max-size")
            if report is not None:
                report(partial.size / total)
            if time.monotonic() - since > _TIMEOUT:
                if partial.size - size_then < _LEAST:
                    raise _BrokeOff(f"hardly anything in {_TIMEOUT:.0f} seconds")
                since, size_then = time.monotonic(), partial.size


class _Redirects(HTTPRedirectHandler):
    """Follows to http and https alone, and from https to https alone."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        old, new = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if new not in ("http", "https") or (old == "https" and new == "http"):
            fp.close()
            raise _Refused(f"leads on to {newurl}, which is less safe; give that address if you trust it")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_MIRRORS = (
    "https://efrosgans.eecs.berkeley.edu/cyclegan/datasets/{}.zip",
    "https://people.eecs.berkeley.edu/~taesung_park/CycleGAN/datasets/{}.zip",
    "http://efrosgans.eecs.berkeley.edu/cyclegan/datasets/{}.zip",
)


@dataclass(frozen=True)
class KnownSet:
    """A data set that can be asked for by its name.

    a, b: what the domains show. source: whose images they are. size: of the archive in bytes. sha256: of the archive.
    """

    name: str
    a: str
    b: str
    source: str
    size: int
    sha256: str | None = None

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where the archive lies, in the order of trying; without a SHA-256 only where nobody can put in another."""
        proven = [mirror for mirror in _MIRRORS if self.sha256 or mirror.startswith("https:")]
        return tuple(mirror.format(self.name) for mirror in proven)


_SETS = (
    KnownSet(
        "apple2orange",
        "apples",
        "oranges",
        "ImageNet",
        78456409,
        "845a191e9af8926408ea597001cd03a452e3300a1f44a79fe329b3d59f6e3eb8",
    ),
    KnownSet(
        "cezanne2photo",
        "paintings by Cézanne",
        "landscape photographs",
        "WikiArt and Flickr",
        279885071,
        "3a6c10ca21f9485862f1cbd707744b9dc258954a04631271d23a3605eeb63cff",
    ),
    KnownSet(
        "facades",
        "photographs of facades",
        "their labels",
        "the CMP Facade Database",
        35135868,
        "9a31ebf3a31b9b5cd195dd5bf62e9308e00cb94604d1019e3889ac84248695c0",
    ),
    KnownSet(
        "grumpifycat",
        "Russian Blue cats",
        "Grumpy Cat",
        "the authors of CUT",
        19 * 2**20,  # as the server's list rounds it
    ),
    KnownSet(
        "horse2zebra",
        "horses",
        "zebras",
        "ImageNet",
        116867962,
        "a74d9d392eecca9966b51287a76ca126af473d9de4f3e8fc0e9cda08fa1730a1",
    ),
    KnownSet(
        "iphone2dslr_flower",
        "flowers by telephone",
        "flowers by reflex camera",
        "Flickr",
        339964458,
        "8fcb5e374d631b107e1d961b8c4cd0a186aa2a4ff3e279923f4c426128de7113",
    ),
    KnownSet(
        "maps",
        "aerial photographs",
        "maps",
        "Google Maps",
        1476754427,
        "639534f69dbf9f36bef8d6292a7698006361221f83f0285d7c9ca78afe6e8a9e",
    ),
    KnownSet(
        "monet2photo",
        "paintings by Monet",
        "landscape photographs",
        "WikiArt and Flickr",
        305231073,
        "88f91b00fc228f97c9411fbf1880ec1d119c98f1722e4cfcfaa2fb35fac05b04",
    ),
    KnownSet(
        "summer2winter_yosemite",
        "Yosemite in summer",
        "Yosemite in winter",
        "Flickr",
        132640856,
        "167fe1726807a9d22bd106b4a6c0bd7953b688af924ac1bf967439c4961e49f9",
    ),
    KnownSet(
        "ukiyoe2photo",
        "ukiyo-e prints",
        "landscape photographs",
        "WikiArt and Flickr",
        292946532,
        "02a2a2fb5ecf425ca1bf86aca7304377da64a2a1d3b86df54eb65e4068bf3b08",
    ),
    KnownSet(
        "vangogh2photo",
        "paintings by Van Gogh",
        "landscape photographs",
        "WikiArt and Flickr",
        306590349,
        "362c3473e70be0944bda08d49d660eafdc2854df55d697835b8186d1d79caaff",
    ),
)

KNOWN = {known.name: known for known in _SETS}


def describe_known() -> str:
    """A line for each known set: its name, size, domains and where its images are from."""
    lines = [
        f"{known.name:24}{format_size(known.size):>7}  {known.a} | {known.b} ({known.source})"
        for known in _SETS
    ]
    return "\n".join(
        [
            "Known data sets: gan-nst data get NAME (or the address or path of an archive)",
            "",
            *lines,
            "",
            "The terms of those whose images they are hold.",
        ]
    )
