"""Where weights are found, how they are fetched from a local server, and what is never loaded."""

import hashlib
import pickle
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.error import HTTPError

import pytest
import torch
from helpers_data import Bomb

from gan_nst.core import pretrained
from gan_nst.core.errors import WeightsError
from gan_nst.core.pretrained import Pretrained

CONTENT = b"weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def named(monkeypatch, tmp_path):
    """The folder that GAN_NST_WEIGHTS names."""
    folder = tmp_path / "named"
    folder.mkdir()
    monkeypatch.setenv("GAN_NST_WEIGHTS", str(folder))
    return folder


@pytest.fixture(autouse=True)
def hub(monkeypatch, tmp_path):
    """Torch's hub cache, which does not exist yet."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


def put(folder, name, content=b"x"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


THING = Pretrained("the thing", ("thing.pth", "other.pth"))


def test_a_given_path_precedes_the_named_folder_which_precedes_the_hub(named, hub, tmp_path):
    assert pretrained.find(THING) is None
    last = put(hub, "thing.pth")
    assert pretrained.find(THING) == last
    second = put(named, "other.pth")
    assert pretrained.find(THING) == second, "the folder takes precedence over the order of the names"
    first = put(named, "thing.pth")
    assert pretrained.find(THING) == pretrained.require(THING) == first
    given = put(tmp_path, "any.bin")
    assert pretrained.find(THING, given) == pretrained.require(THING, given) == given


def test_without_a_named_folder_the_hub_is_searched(monkeypatch, hub):
    monkeypatch.setenv("GAN_NST_WEIGHTS", "")
    assert pretrained.find(THING) is None
    assert pretrained.find(Pretrained("here", ("setup.cfg",))) is None, (
        "an empty name does not mean the working folder"
    )
    found = put(hub, "other.pth")
    assert pretrained.find(THING) == found


def test_a_given_path_that_is_not_a_file_is_an_error(named, tmp_path):
    put(named, "thing.pth")
    for wrong in (tmp_path / "missing.pth", tmp_path):
        with pytest.raises(WeightsError, match="no such file") as raised:
            pretrained.find(THING, wrong)
        assert str(raised.value) == f"{wrong}: no such file (the thing)"


def test_the_error_says_which_file_where_and_how(named, hub):
    with pytest.raises(WeightsError) as raised:
        pretrained.require(THING, otherwise="give its path")
    message = str(raised.value)
    assert message == (
        f"the thing: no thing.pth or other.pth in {named}, {hub}; put it there, or give its path"
    )


def test_the_error_says_when_no_folder_was_named(hub):
    with pytest.raises(WeightsError) as raised:
        pretrained.require(THING)
    message = str(raised.value)
    assert (
        message == f"the thing: no thing.pth or other.pth in {hub} (GAN_NST_WEIGHTS is not set); put it there"
    )


@contextmanager
def serving(answer, monkeypatch):
    """A server on this machine; `answer(handler)` writes the complete response. Yields its address and its log."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            answer(self)
            self.close_connection = True

        def log_message(self, *_):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/file.pth", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def respond(handler, content=CONTENT, status=200, **headers):
    handler.send_response(status)
    for name, value in ({"Content_Length": str(len(content))} | headers).items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(content)


def wanted(url, beginning=DIGEST[:8]):
    return Pretrained("the thing", (f"thing-2015-{beginning}.pth", "thing.pth"), url)


def test_a_download_lands_in_the_hub_and_happens_once(monkeypatch, hub):
    with serving(respond, monkeypatch) as (url, asked):
        path = pretrained.fetch(wanted(url))
        assert path == hub / f"thing-2015-{DIGEST[:8]}.pth"
        assert path.read_bytes() == CONTENT
        assert pretrained.fetch(wanted(url)) == pretrained.find(wanted(url)) == path
        assert asked == ["/file.pth"]
    assert pretrained.digest(path) == DIGEST


def test_a_file_that_is_found_is_not_downloaded(monkeypatch, named):
    there = put(named, "thing.pth")
    with serving(respond, monkeypatch) as (url, asked):
        assert pretrained.fetch(wanted(url)) == there
        assert not asked


def too_short(handler):
    respond(handler, CONTENT[:3000], Content_Length=str(len(CONTENT)))


def broken_chunk(handler):
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"%x\r\n" % len(CONTENT) + CONTENT[:3000])


def not_http(handler):
    handler.wfile.write(b"what?\r\n\r\n")


def missing(handler):
    respond(handler, b"not here", 404)


def another_file(handler):
    respond(handler, CONTENT + b"!")


@pytest.mark.parametrize("answer", [too_short, broken_chunk, not_http, missing, another_file])
def test_a_failed_download_is_one_line_and_leaves_nothing(monkeypatch, hub, answer):
    with serving(answer, monkeypatch) as (url, asked):
        with pytest.raises(WeightsError) as raised:
            pretrained.fetch(wanted(url))
        assert asked
    if isinstance(raised.value.__context__, HTTPError):
        raised.value.__context__.close()  # otherwise pytest keeps the connection and warns about it
    message = str(raised.value)
    assert message.startswith(f"{url}: could not be downloaded (")
    assert "\n" not in message
    assert list(hub.iterdir()) == []
    assert pretrained.find(wanted(url)) is None


def test_a_wrong_hash_is_named(monkeypatch):
    with (
        serving(respond, monkeypatch) as (url, _),
        pytest.raises(WeightsError, match="hash.*00000000.*" + DIGEST),
    ):
        pretrained.fetch(wanted(url, "00000000"))


def test_no_server_is_an_error(monkeypatch, hub):
    with serving(respond, monkeypatch) as (url, _):
        pass
    with pytest.raises(WeightsError, match="could not be downloaded"):
        pretrained.fetch(wanted(url))
    assert list(hub.iterdir()) == []


def test_a_hub_that_cannot_be_written_is_an_error(monkeypatch, tmp_path):
    put(tmp_path, "file")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file"))
    with serving(respond, monkeypatch) as (url, asked):
        with pytest.raises(WeightsError, match="could not be downloaded"):
            pretrained.fetch(wanted(url))
        assert not asked


def test_tensors_of_every_type_are_loaded(tmp_path):
    weights = {"a": torch.randn(3, 4), "b": torch.arange(3), "c": torch.ones(2).half()}
    for legacy in (False, True):
        path = tmp_path / "weights.pth"
        torch.save(weights, path, _use_new_zipfile_serialization=not legacy)
        loaded = pretrained.load(path)
        assert list(loaded) == list(weights)
        assert all(torch.equal(loaded[name], weight) for name, weight in weights.items())


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_file_is_never_executed(tmp_path, legacy):
    path, trace = tmp_path / "evil.pth", tmp_path / "trace"
    torch.save({"a": torch.zeros(3), "b": Bomb(trace)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError) as raised:
        pretrained.load(path)
    assert str(raised.value) == f"{path}: contains more than plain tensors and was not loaded"
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists(), "the bomb does not work, so this test would prove nothing"


def plain_pickle(path):
    path.write_bytes(pickle.dumps({"a": [1, 2]}, protocol=2))


def half(path):
    torch.save({"a": torch.randn(100)}, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def half_legacy(path):
    torch.save({"a": torch.randn(100)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped_legacy(path):
    """Changes the key of a storage, so that it differs from the list at the end."""
    tensor = torch.randn(4)
    torch.save({"a": tensor}, path, _use_new_zipfile_serialization=False)
    key = str(tensor.untyped_storage()._cdata).encode()
    content = path.read_bytes()
    assert content.count(key) == 2
    path.write_bytes(content.replace(key, key[:-1] + b"x", 1))


REFUSED = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("hello\n"),
    "zeros": lambda path: path.write_bytes(bytes(1000)),
    "half": half,
    "half, legacy": half_legacy,
    "flipped, legacy": flipped_legacy,
    "a list": lambda path: torch.save([torch.zeros(2)], path),
    "a pickle": plain_pickle,
    "nested": lambda path: torch.save({"state_dict": {"a": torch.zeros(2)}}, path),
    "numbered": lambda path: torch.save({0: torch.zeros(2)}, path),
    "a folder": lambda path: path.mkdir(),
    "missing": lambda path: None,
}


@pytest.mark.parametrize("what", REFUSED)
def test_anything_but_weights_is_refused_in_one_line(tmp_path, what):
    path = tmp_path / "file.pth"
    REFUSED[what](path)
    with pytest.raises(WeightsError) as raised:
        pretrained.load(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    path = tmp_path / "file.pth"
    torch.save({"a": torch.ones(2), "layer.b": torch.tensor([1, value])}, path)
    with pytest.raises(WeightsError) as raised:
        pretrained.load(path)
    assert str(raised.value) == f"{path}: layer.b is not finite"
