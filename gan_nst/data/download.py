"""The well-known data sets, and downloads that resume.

Sizes and hashes: tensorflow/datasets, url_checksums/cycle_gan.txt, which lacks grumpifycat. What the images are:
docs/datasets.md of junyanz/pytorch-CycleGAN-and-pix2pix. `cityscapes` must not be redistributed, and `ae_photos` has no
training images.

pooch and torchvision's downloader check hashes but do not resume, which `maps` (1.5 GB) needs.
"""

import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException, InvalidURL
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from pydantic import BaseModel

from gan_nst.core.errors import DataError, format_size, reason, writing
from gan_nst.core.terminal import progress_bar
from gan_nst.core.version import __version__

log = logging.getLogger(__name__)

_WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds before each retry
_PROGRESS = 1 << 20  # bytes received over one connection that earn all retries again
_TIMEOUT = 30.0  # seconds without an answer
_CHUNK = 1 << 18


@dataclass(frozen=True)
class KnownSet:
    """A data set that can be asked for by name.

    a, b: what the domains show. source: whose images they are. size, sha256: of the archive, in bytes.
    """

    name: str
    a: str
    b: str
    source: str
    size: int
    sha256: str | None = None

    @property
    def url(self) -> str:
        return _SERVER.format(self.name)


_SERVER = "https://efrosgans.eecs.berkeley.edu/cyclegan/datasets/{}.zip"

# fmt: off
_SETS = (
    KnownSet("apple2orange", "apples", "oranges", "ImageNet", 78456409,
             "845a191e9af8926408ea597001cd03a452e3300a1f44a79fe329b3d59f6e3eb8"),
    KnownSet("cezanne2photo", "paintings by Cézanne", "landscape photographs", "WikiArt and Flickr", 279885071,
             "3a6c10ca21f9485862f1cbd707744b9dc258954a04631271d23a3605eeb63cff"),
    KnownSet("facades", "photographs of facades", "their labels", "the CMP Facade Database", 35135868,
             "9a31ebf3a31b9b5cd195dd5bf62e9308e00cb94604d1019e3889ac84248695c0"),
    KnownSet("grumpifycat", "Russian Blue cats", "Grumpy Cat", "the authors of CUT", 19 * 2**20),  # rounded
    KnownSet("horse2zebra", "horses", "zebras", "ImageNet", 116867962,
             "a74d9d392eecca9966b51287a76ca126af473d9de4f3e8fc0e9cda08fa1730a1"),
    KnownSet("iphone2dslr_flower", "flowers by telephone", "flowers by reflex camera", "Flickr", 339964458,
             "8fcb5e374d631b107e1d961b8c4cd0a186aa2a4ff3e279923f4c426128de7113"),
    KnownSet("maps", "aerial photographs", "maps", "Google Maps", 1476754427,
             "639534f69dbf9f36bef8d6292a7698006361221f83f0285d7c9ca78afe6e8a9e"),
    KnownSet("monet2photo", "paintings by Monet", "landscape photographs", "WikiArt and Flickr", 305231073,
             "88f91b00fc228f97c9411fbf1880ec1d119c98f1722e4cfcfaa2fb35fac05b04"),
    KnownSet("summer2winter_yosemite", "Yosemite in summer", "Yosemite in winter", "Flickr", 132640856,
             "167fe1726807a9d22bd106b4a6c0bd7953b688af924ac1bf967439c4961e49f9"),
    KnownSet("ukiyoe2photo", "ukiyo-e prints", "landscape photographs", "WikiArt and Flickr", 292946532,
             "02a2a2fb5ecf425ca1bf86aca7304377da64a2a1d3b86df54eb65e4068bf3b08"),
    KnownSet("vangogh2photo", "paintings by Van Gogh", "landscape photographs", "WikiArt and Flickr", 306590349,
             "362c3473e70be0944bda08d49d660eafdc2854df55d697835b8186d1d79caaff"),
)
# fmt: on

KNOWN = {known.name: known for known in _SETS}


def describe_known() -> str:
    """A line for each known set: its name, size, domains and where its images are from."""
    lines = [
        f"{known.name:24}{format_size(known.size):>7}  {known.a} | {known.b} ({known.source})"
        for known in _SETS
    ]
    head = "Known data sets: gan-nst data get NAME (or the address or path of an archive)"
    return "\n".join([head, "", *lines, "", "The images remain under the terms of their sources."])


class _Version(BaseModel):
    """Where the bytes of an incomplete file come from. validator: the server's name for this version of the file, empty
    if it does not distinguish versions. size: of the complete file, in bytes, if known.
    """

    url: str = ""
    validator: str = ""
    size: int | None = None


def download(url: str, target: Path, *, largest: int) -> None:
    """Downloads a file to `target`, after what an earlier call left there.

    url: http or https. largest: bytes that are accepted. Raises DataError if the server does not provide the file, it
    has changed since the earlier call, or it cannot be written.
    """
    failures = 0
    while True:
        before = _size(target)
        try:
            _receive(url, target, largest)
            return
        except (OSError, HTTPException, ValueError) as error:
            if isinstance(error, HTTPError):
                error.close()
                if error.code == 416:  # the file is shorter than what is kept of it
                    target.unlink(missing_ok=True)
            cause = getattr(error, "reason", None)  # of a URLError
            problem = reason(cause if isinstance(cause, Exception) else error)
            permanent = _is_permanent(error, _size(target))
        if _size(target) - before >= _PROGRESS:
            failures = 0
        if permanent or failures == len(_WAITS):
            advice = "try again later, or download it by other means and give its path"
            if _size(target):
                advice = f"{format_size(_size(target))} are kept in {target.parent}; run the same command to resume"
            raise DataError(f"{url}: {problem}; {advice}")
        log.info(f"{url}: {problem}; retrying in {_WAITS[failures]:.0f} s")
        time.sleep(_WAITS[failures])
        failures += 1


def _is_permanent(error: Exception, received: int) -> bool:
    """Whether retrying would not help. received: bytes of the file that are there."""
    if isinstance(error, HTTPError):
        return error.code < 500 and error.code not in (408, 429)  # a timeout, too many requests
    if isinstance(error, URLError):  # no connection, which may return if there was one before
        return not received
    return isinstance(error, (ValueError, InvalidURL))


def _receive(url: str, target: Path, largest: int) -> None:
    """Receives the file, or the rest of it, over one connection."""
    note, version = target.with_name(f"{target.name}.json"), _Version()
    with suppress(OSError, ValueError):
        version = _Version.model_validate_json(note.read_bytes())
    start = _size(target) if version.url == url and version.validator else 0
    if start and start == version.size:
        return
    request = Request(url, headers={"User-Agent": f"gan_nst/{__version__}", "Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", version.validator)
    with build_opener(_Redirects).open(request, timeout=_TIMEOUT) as answer:
        names = (answer.headers["ETag"], answer.headers["Last-Modified"])
        validator = next((name for name in names if name and not name.startswith("W/")), "")
        if answer.status == 206:
            expected = f"bytes {start}-{(version.size or 0) - 1}/{version.size}"
            if answer.headers["Content-Range"] != expected or validator not in ("", version.validator):
                target.unlink(missing_ok=True)
                raise DataError(
                    f"{url}: the file has changed on the server; run the same command to start over"
                )
            log.info(f"resuming {url} after {format_size(start)} of {format_size(version.size or 0)}")
        else:
            version = _Version(url=url, validator=validator if answer.length else "", size=answer.length)
            log.info(f"downloading {url} ({format_size(version.size) if version.size else 'unknown size'})")
            with writing(note, DataError):
                target.unlink(missing_ok=True)  # first: old content must not pass for a part of the new file
                note.write_text(version.model_dump_json())
        with progress_bar(f"downloading {url}") as report:
            while piece := answer.read1(_CHUNK):
                if max(version.size or 0, _size(target) + len(piece)) > largest:
                    target.unlink(missing_ok=True)
                    raise DataError(f"{url}: more than {format_size(largest)}; allow more with --max-size")
                with writing(target, DataError), open(target, "ab") as file:
                    file.write(piece)
                if report is not None and version.size:
                    report(_size(target) / version.size)
    received = _size(target)
    if not received or (version.size is not None and received != version.size):
        raise ConnectionError(f"broke off after {format_size(received)} of {format_size(version.size or 0)}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


class _Redirects(HTTPRedirectHandler):
    """Follows redirects to http and https only, and from https to https only."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme not in ("https", urlsplit(req.full_url).scheme):
            fp.close()
            raise DataError(
                f"{req.full_url}: redirects to {newurl}, which is less secure; give that address if you trust it"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)
