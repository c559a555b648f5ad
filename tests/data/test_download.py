"""Downloads over connections that break, from servers that fail or misreport."""

import resource
from types import SimpleNamespace
from urllib.error import URLError

import pytest
from helpers_server import Fault, serving
from rich.progress import Progress

from gan_nst.core import terminal as progress
from gan_nst.core.errors import DataError
from gan_nst.data import download as module
from gan_nst.data.download import download

DATA = b"PK\3\4" + bytes(range(256)) * 400
OTHER = bytes(reversed(DATA))
LARGEST = 1 << 20


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(module, "_WAITS", (0.0,) * 4)


@pytest.fixture
def site():
    with serving(files={"/x.zip": DATA}) as site:
        yield site


@pytest.fixture
def target(tmp_path):
    return tmp_path / "archive"


def get(site, target, *, largest=LARGEST, path="/x.zip"):
    """Downloads: the file's content."""
    download(site.address + path, target, largest=largest)
    return target.read_bytes()


def refused(site, target, *parts, path="/x.zip", **options):
    """The message of a refusal, which names the address."""
    with pytest.raises(DataError) as raised:
        get(site, target, path=path, **options)
    for part in (*parts, site.address + path):
        assert part in str(raised.value)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_file_is_downloaded_once(site, target):
    assert get(site, target) == get(site, target) == DATA
    assert site.requests == [("/x.zip", None)]


@pytest.mark.parametrize("mark", ["etag", "date"])
@pytest.mark.parametrize("tenth", range(11))
def test_a_connection_that_breaks_anywhere_is_resumed(site, target, mark, tenth):
    site.mark = mark
    after = len(DATA) * tenth // 10 - (tenth == 10)
    site.faults = [Fault(after=after)]
    assert get(site, target) == DATA
    assert site.requests == [("/x.zip", None), ("/x.zip", f"bytes={after}-" if after else None)]


def test_the_bar_follows_what_has_arrived(site, target, monkeypatch):
    """Each connection has one, which starts at what was received before."""
    shares, real = [], Progress.update

    def update(self, task, *, completed):
        shares.append(completed * len(DATA))
        real(self, task, completed=completed)

    monkeypatch.setattr(progress, "progress_shown", lambda: True)
    monkeypatch.setattr(Progress, "update", update)
    monkeypatch.setattr(module, "_CHUNK", 10_000)
    site.faults = [Fault(after=30_000)]
    assert get(site, target) == DATA
    assert len(shares) > len(DATA) / 10_000
    assert shares == sorted(shares)
    assert any(share == pytest.approx(30_000) for share in shares)
    assert shares[-1] == pytest.approx(len(DATA))


def test_many_breaks_in_one_download(site, target):
    site.faults = [Fault(after=10000)] * 4
    assert get(site, target) == DATA
    assert [wanted for _, wanted in site.requests[1:]] == [f"bytes={10000 * n}-" for n in (1, 2, 3, 4)]


def test_the_next_call_resumes(site, target):
    site.faults = [Fault(after=1000)] * 5
    message = refused(site, target, "broke off after 5 kB of 102 kB")
    assert f"5 kB are kept in {target.parent}; run the same command to resume" in message
    assert get(site, target) == DATA
    assert site.requests[-1] == ("/x.zip", "bytes=5000-")


def test_progress_earns_further_retries(site, target, monkeypatch):
    monkeypatch.setattr(module, "_PROGRESS", 5000)
    site.faults = [Fault(after=5000)] * 15
    assert get(site, target) == DATA


@pytest.mark.parametrize("mark", [None, "weak"])
def test_without_a_version_it_starts_again(site, target, mark):
    site.mark = mark
    site.faults = [Fault(after=5000)]
    assert get(site, target) == DATA
    assert site.requests == [("/x.zip", None)] * 2


@pytest.mark.parametrize("mark", ["etag", "date", "weak", None])
@pytest.mark.parametrize("honors", [True, False])
@pytest.mark.parametrize("length", [0, 700, -700])
def test_two_versions_are_never_joined(site, target, mark, honors, length):
    """A server that ignores If-Range and sends the rest of the new one is noticed."""
    new = OTHER[:length] if length < 0 else OTHER + bytes(length)
    site.mark, site.honors_if_range = mark, honors
    site.faults = [Fault(after=5000), Fault(replace=new)]
    if not honors and mark in ("etag", "date"):
        refused(site, target, "the file has changed on the server; run the same command to start over")
    assert get(site, target) == new


def test_a_server_that_ignores_ranges(site, target):
    site.faults = [Fault(after=5000), Fault(no_range=True)]
    assert get(site, target) == DATA


@pytest.mark.parametrize(
    "claimed", ["bytes 4000-102403/102404", "bytes 5000-102403/9", "bytes 5000-", "", "x" * 500]
)
def test_a_range_that_was_not_requested_is_rejected(site, target, claimed):
    site.faults = [Fault(after=5000), Fault(content_range=claimed or "-")]
    refused(site, target, "the file has changed")
    assert get(site, target) == DATA
    assert site.requests[-1] == ("/x.zip", None)


def test_a_file_that_became_shorter_than_the_partial_one(site, target):
    site.faults = [Fault(after=90000), Fault(replace=DATA[:50])]
    site.honors_if_range = False
    refused(site, target, "HTTP Error 416", "try again later")
    assert get(site, target) == DATA[:50]


def test_without_a_length(site, target):
    site.chunked = True
    site.faults = [Fault(after=30000)]
    assert get(site, target) == DATA


def test_a_wrong_length(site, target):
    site.faults = [Fault(length=len(DATA) + 50)] * 9
    refused(site, target, "HTTP Error 416", "try again later")
    assert not target.exists()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 416, 451])
def test_a_server_that_refuses_is_not_asked_again(site, target, status):
    site.faults = [Fault(status=status)]
    assert "or download it by other means and give its path" in refused(site, target, f"HTTP Error {status}")
    assert len(site.requests) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(site, target, status):
    site.faults = [Fault(status=status)] * 4
    assert get(site, target) == DATA
    target.unlink()
    site.faults = [Fault(status=status)] * 5
    refused(site, target, f"HTTP Error {status}")


def test_a_lost_connection_is_tried_again_only_after_the_first_bytes(site, target, monkeypatch):
    real, opened = module.build_opener, []

    def unreachable(*handlers):
        opened.append(1)
        if len(opened) in (2, 3):
            raise URLError(OSError("Network is unreachable"))
        return real(*handlers)

    monkeypatch.setattr(module, "build_opener", unreachable)
    site.faults = [Fault(after=5000)]
    assert get(site, target) == DATA
    assert len(opened) == 4
    target.unlink()
    opened[:] = [1]
    refused(site, target, "Network is unreachable", "by other means")
    assert len(opened) == 2


def test_a_server_that_refuses_to_resume_costs_nothing(site, target):
    site.faults = [Fault(after=5000), *[Fault(status=503)] * 4]
    refused(site, target, "HTTP Error 503", "5 kB are kept")
    assert get(site, target) == DATA
    assert site.requests[-1] == ("/x.zip", "bytes=5000-")


def test_a_range_that_nobody_requested(site, target):
    site.faults = [Fault(status=206)]
    refused(site, target, "the file has changed on the server")
    assert not target.exists()


def test_an_empty_file(site, target):
    site.files["/x.zip"] = b""
    refused(site, target, "broke off after 0 bytes")
    assert not target.exists()


@pytest.mark.parametrize("chunked", [False, True])
def test_more_than_is_allowed(site, target, chunked):
    """Announced beforehand, or counted if the server does not announce it."""
    site.chunked = chunked
    refused(site, target, "100 kB", "--max-size", largest=100_000)
    assert not target.exists()


def test_redirects(site, target):
    site.faults = [Fault(redirect="/y.zip"), Fault(redirect="/x.zip")]
    assert get(site, target) == DATA
    assert [path for path, _ in site.requests] == ["/x.zip", "/y.zip", "/x.zip"]


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/x.zip", "data:,x", "gopher://x/"])
def test_redirects_to_other_protocols_are_refused(site, target, to):
    site.faults = [Fault(redirect=to)]
    refused(site, target, to.split(":")[0])


def test_redirects_in_circles(site, target):
    site.faults = [Fault(redirect="/x.zip")] * 50
    refused(site, target, "infinite loop")
    assert len(site.requests) < 20


def test_no_redirect_from_https_to_http():
    request = SimpleNamespace(full_url="https://example.org/x.zip")
    closed = []
    with pytest.raises(DataError, match=r"redirects to http://example\.org/x\.zip, which is less"):
        module._Redirects().redirect_request(
            request, SimpleNamespace(close=lambda: closed.append(1)), 302, "", {}, "http://example.org/x.zip"
        )
    assert closed


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:1/x.zip",
        "http://no-such-machine.invalid/x.zip",
        "http://127.0.0.1:port/x.zip",
        "http://a..b/x.zip",
        "http://127.0.0.1/x y.zip",
        "http://127.0.0.1/\u6f22.zip",
        "http://[::1/x.zip",
    ],
)
def test_unreachable_addresses(target, address):
    with pytest.raises(DataError, match="download it by other means") as raised:
        download(address, target, largest=LARGEST)
    assert address in str(raised.value)


def test_a_server_that_falls_silent(site, target, monkeypatch):
    monkeypatch.setattr(module, "_TIMEOUT", 0.2)
    site.faults = [Fault(after=5000, pause=1)]
    assert get(site, target) == DATA
    assert site.requests[-1] == ("/x.zip", "bytes=5000-")
    target.unlink()
    site.faults = [Fault(after=0, pause=1)] * 5
    refused(site, target, "timed out")


def test_another_file_is_not_resumed(site, target):
    site.files["/y.zip"] = OTHER
    site.faults = [Fault(after=5000)] * 5
    refused(site, target)
    assert get(site, target, path="/y.zip") == OTHER
    assert site.requests[-1] == ("/y.zip", None)
    assert get(site, target) == DATA  # nor does the complete other file pass for it


@pytest.mark.parametrize("note", ["", "{", "[]", '{"url": 5}', '{"sise": 1}', "null", '{"url": "x"}', "\xff"])
def test_a_damaged_note_starts_again(site, target, note):
    target.with_name("archive").write_bytes(OTHER[:5000])
    target.with_name("archive.json").write_bytes(note.encode("latin-1"))
    assert get(site, target) == DATA


def test_a_disk_that_fills_up(site, target):
    """The bytes that were written before the disk was full are kept."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    try:
        with pytest.raises(
            DataError, match=r"archive: could not be written \(File too large\); files of that size"
        ):
            get(site, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert target.with_name("archive").read_bytes() == DATA[:30_000]
    assert get(site, target) == DATA
    assert site.requests[-1] == ("/x.zip", "bytes=30000-")
