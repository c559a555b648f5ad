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
from gan_nst.core.weights import digest

log = logging.getLogger(__name__)

_WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds before each retry
_TIMEOUT = 30.0  # seconds without an answer
_PROGRESS = 1 << 20  # bytes after which a connection that breaks off earns all retries again
_TEMPORARY = (408, 416, 425, 429, 500, 502, 503, 504)  # answers that may change
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


class _Refused(Exception):
    """The server does not provide the file; trying again does not help."""


class _BrokenOff(Exception):
    """A transfer ended early and can be resumed."""


class _Note(BaseModel):
    """Where a partial file comes from. validator: the server's name for this version of the file, empty if it does not
    distinguish versions. size: of the complete file, in bytes, if known.
    """

    url: str = ""
    validator: str = ""
    size: int | None = None


class _Partial:
    """The beginning of `target`, in NAME.part, with a note in NAME.json; both survive the process."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}.part")
        self._note_path = target.with_name(f"{target.name}.json")
        self.note = _Note()
        with suppress(OSError, ValueError):
            self.note = _Note.model_validate_json(self._note_path.read_bytes())

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def begin(self, note: _Note) -> None:
        self.path.write_bytes(b"")  # first, so that old content never passes for a part of the new file
        self._note_path.write_text(note.model_dump_json())
        self.note = note

    def append(self, piece: bytes) -> None:
        with writing(self.path, DataError), open(self.path, "ab") as file:
            file.write(piece)

    def discard(self) -> None:
        """Removes it, and the target."""
        for path in (self.path, self.target, self._note_path):
            path.unlink(missing_ok=True)
        self.note = _Note()


def download(url: str, target: Path, *, sha256: str | None, largest: int) -> str:
    """Downloads a file to `target`, unless it is there already, and returns its SHA-256.

    url: http or https. sha256: the expected one; a different file is deleted. largest: bytes that are accepted. Raises
    DataError if the server does not provide the file or it cannot be written; the next call resumes what was received.
    """
    partial = _Partial(target)
    if partial.note.url != url:
        partial.discard()
    try:
        if not target.exists():
            _receive_with_retries(url, partial, largest)
            partial.path.rename(target)
        found = digest(target)
        if sha256 not in (None, found):
            partial.discard()
            raise _Refused(f"its SHA-256 is {found}, expected {sha256}")
    except _Refused as error:
        if partial.size:
            advice = f"{format_size(partial.size)} are kept, run the same command to resume"
        else:
            partial.discard()
            advice = "try again later, or download it by other means and give its path"
        raise DataError(f"{url}: {error}; {advice}") from None
    return found


def _receive_with_retries(url: str, partial: _Partial, largest: int) -> None:
    failures = 0
    while True:
        before = partial.size
        try:
            return _receive(url, partial, largest)
        except HTTPError as error:
            error.close()
            if error.code not in _TEMPORARY:
                raise _Refused(reason(error)) from None
            if error.code == 416:  # the file has become shorter
                partial.discard()
            problem = reason(error)
        except (InvalidURL, ValueError) as error:
            raise _Refused(f"not a valid address ({reason(error)})") from None
        except (OSError, HTTPException, _BrokenOff) as error:
            cause = getattr(error, "reason", None)  # of a URLError
            problem = reason(cause if isinstance(cause, Exception) else error)
            if isinstance(error, URLError) and not partial.size:  # no connection at all
                raise _Refused(problem) from None
        failures = 0 if partial.size - before >= _PROGRESS else failures
        if failures == len(_WAITS):
            raise _Refused(problem)
        log.info(f"{url}: {problem}; retrying in {_WAITS[failures]:.0f} s")
        time.sleep(_WAITS[failures])
        failures += 1


def _receive(url: str, partial: _Partial, largest: int) -> None:
    """Receives the file, or the rest of it, over one connection."""
    note, start = partial.note, partial.size if partial.note.validator else 0
    if start and start == note.size:
        return
    headers = {"User-Agent": f"gan_nst/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": note.validator}
    with build_opener(_Redirects).open(Request(url, headers=headers), timeout=_TIMEOUT) as answer:
        validator = _validator(answer.headers)
        if answer.status == 206 and start:
            expected = f"bytes {start}-{(note.size or 0) - 1}/{note.size}"
            if answer.headers["Content-Range"] != expected or validator not in ("", note.validator):
                partial.discard()
                raise _BrokenOff("the server resumes with a different file")
            log.info(f"resuming {url} after {format_size(start)} of {format_size(note.size or 0)}")
        elif answer.status == 200:
            note = _Note(url=url, validator=validator if answer.length else "", size=answer.length)
            log.info(f"downloading {url}" + ("" if note.size is None else f" ({format_size(note.size)})"))
            if (note.size or 0) > largest:
                raise _Refused(
                    f"{format_size(note.size or 0)}; allow more than {format_size(largest)} with --max-size"
                )
            with writing(partial.path, DataError):
                partial.begin(note)
        else:
            raise _Refused(f"the server answers {answer.status} {answer.reason}")
        with progress_bar(f"downloading {url}") as report:
            while piece := answer.read1(_CHUNK):
                if not partial.size and piece.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
                    raise _Refused("a web page, not an archive; open it in a browser")
                partial.append(piece)
                if partial.size > largest:
                    partial.discard()
                    raise _Refused(f"more than {format_size(largest)}; allow more with --max-size")
                if report is not None and note.size:
                    report(partial.size / note.size)
    if note.size is not None and partial.size != note.size:
        raise _BrokenOff(f"broke off after {format_size(partial.size)} of {format_size(note.size)}")
    if not partial.size:
        raise _Refused("an empty file")


def _validator(headers: Any) -> str:
    """What identifies a version of a file: its ETag, unless that is weak and may stand for two files, or its date."""
    tag = " ".join((headers["ETag"] or "").split())
    return tag if tag and not tag.startswith("W/") else " ".join((headers["Last-Modified"] or "").split())


class _Redirects(HTTPRedirectHandler):
    """Follows redirects to http and https only, and from https to https only."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        old, new = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if new not in ("https", old):
            fp.close()
            raise _Refused(f"it redirects to {newurl}, which is less safe; give that address if you trust it")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
