"""Downloads a file whole, from the first of its addresses that gives it, and goes on where it broke off.

What has arrived waits in `NAME.part`, and `NAME.json` says from where: it is continued only where the server's own
mark of the file, its ETag or its date, is still the same, so that two files are never glued together.
"""

import logging
import re
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from http.client import HTTPException, HTTPResponse, InvalidURL
from pathlib import Path
from typing import Any, cast
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from gan_nst import __version__
from gan_nst.core.errors import DataError, reason, sized
from gan_nst.core.progress import bar
from gan_nst.data.partial import Origin, Partial

log = logging.getLogger(__name__)

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
        advice = f"{sized(partial.size)} of it stay, and the same command goes on from there"
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
        with bar(f"downloading {address}") as report:
            _copy(answer, partial, largest, report if total else None, total or 1)
    if total is not None and partial.size != total:
        raise _BrokeOff(f"breaks off after {sized(partial.size)} of {sized(total)}")
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
        log.info(f"going on with {address}: {sized(start)} of {sized(int(told[2]))} are here")
        return int(told[2])
    if answer.status != 200:
        raise _Refused(f"answers {answer.status} {answer.reason}")
    log.info(f"downloading {address}" + ("" if answer.length is None else f" ({sized(answer.length)})"))
    partial.begin(Origin(address, mark, answer.length))
    return answer.length


def _make_sure_it_fits(total: int, partial: Partial, largest: int) -> None:
    if total > largest:
        raise _Refused(f"{sized(total)}; allow more than {sized(largest)} with --max-size")
    free, needed = shutil.disk_usage(partial.path.parent).free, 2 * total - partial.size
    if free < needed:
        raise DataError(
            f"{partial.path.parent}: {sized(free)} free, the archive and its pictures need {sized(needed)}; "
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
                raise _Refused(f"more than {sized(largest)} arrive; allow more with --max-size")
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
