"""Checkpoints: complete or absent, checked when read, and never executed."""

import builtins
import errno
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from gan_nst.core.errors import CheckpointError, one_line
from gan_nst.training import checkpoint


def payload(step, size=4):
    parts = {
        "method": "toy",
        "settings": {},
        "translations": {},
        "ema": {},
        "optimizers": {},
        "random": [],
        "data": "",
    }
    return {**parts, "step": step, "state": {"w": torch.full((size,), float(step))}}


def test_checkpoints_round_trip_and_only_the_newest_are_kept(tmp_path):
    for step in (1, 2, 30):
        checkpoint.save(tmp_path, payload(step), kept=2)
    assert [p.name for p in checkpoint.newest_first(tmp_path)] == ["step-0000030.pt", "step-0000002.pt"]
    path, loaded = checkpoint.load_newest(tmp_path)
    assert path.name == "step-0000030.pt"
    assert torch.equal(loaded["state"]["w"], torch.full((4,), 30.0))
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("how", ["truncated", "flipped", "empty", "text"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_previous_one(tmp_path, caplog, how):
    checkpoint.save(tmp_path, payload(1, 5000), kept=2)
    newest = checkpoint.save(tmp_path, payload(2, 5000), kept=2)
    data = bytearray(newest.read_bytes())
    if how == "truncated":
        data = data[: len(data) // 2]
    elif how == "flipped":  # inside the tensor, where only the checksum reveals it
        at = data.index(torch.full((8,), 2.0).numpy().tobytes()) + 40
        data[at] ^= 1
    else:
        data = b"" if how == "empty" else b"not a checkpoint"
    newest.write_bytes(bytes(data))
    path, loaded = checkpoint.load_newest(tmp_path)
    assert path.name == "step-0000001.pt"
    assert loaded["step"] == 1
    assert "step-0000002.pt" in caplog.text
    assert "falling back to the previous checkpoint" in caplog.text


def test_missing_and_damaged_checkpoints_are_reported(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoints"):
        checkpoint.load_newest(tmp_path)
    (tmp_path / "step-0000001.pt").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"step-0000001\.pt: damaged"):
        checkpoint.load_newest(tmp_path)


def test_another_format_and_other_files_are_refused(tmp_path):
    path = checkpoint.save(tmp_path, payload(1), kept=2)
    torch.save({"format": 99}, path)
    with pytest.raises(CheckpointError, match="format 99"):
        checkpoint.load(path)
    torch.save({"weights": 1}, path)
    with pytest.raises(CheckpointError, match="not a gan_nst checkpoint"):
        checkpoint.load(path)
    torch.save({"format": checkpoint.FORMAT}, path)
    with pytest.raises(CheckpointError, match=r"not a gan_nst checkpoint \(method: missing\)"):
        checkpoint.load(path)


class _Bomb:
    def __reduce__(self):
        return (builtins.exec, ("import pathlib; pathlib.Path('executed').touch()",))


def test_code_in_a_checkpoint_is_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "step-0000001.pt"
    torch.save({"format": checkpoint.FORMAT, "state": _Bomb()}, path)
    with pytest.raises(CheckpointError):
        checkpoint.load(path)
    path.write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(CheckpointError):
        checkpoint.load(path)
    assert not (tmp_path / "executed").exists()


class _FullDisk:
    """A file on a disk that is full after `room` bytes."""

    def __init__(self, file, room):
        self._file, self._room = file, room

    def write(self, data):
        self._room -= len(data)
        if self._room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._file.write(data)

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *details):
        self._file.close()


@pytest.mark.parametrize("room", [0, 100, 9000])
def test_a_full_disk_keeps_the_old_checkpoint(tmp_path, monkeypatch, room):
    old = checkpoint.save(tmp_path, payload(1, 5000), kept=2)
    before = old.read_bytes()
    monkeypatch.setattr(checkpoint, "open", lambda *a: _FullDisk(builtins.open(*a), room), raising=False)  # noqa: SIM115
    with pytest.raises(
        CheckpointError, match=r"step-0000002\.pt: could not be written .*step-0000001\.pt is intact"
    ):
        checkpoint.save(tmp_path, payload(2, 5000), kept=2)
    assert [p.name for p in tmp_path.iterdir()] == [old.name]
    assert old.read_bytes() == before


def test_an_old_checkpoint_that_cannot_be_removed_is_only_a_warning(tmp_path, monkeypatch, caplog):
    """Its folder may be append-only; if the disk became read-only, the next write fails."""
    real = Path.unlink

    def unlink(path, missing_ok=False):
        if path.name == "step-0000001.pt":
            raise OSError(errno.EPERM, "Operation not permitted")
        real(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    for step in (1, 2, 3, 4):
        checkpoint.save(tmp_path, payload(step), kept=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-0000001.pt", "step-0000004.pt"]
    assert len(caplog.messages) == 3
    assert caplog.messages[0] == (
        f"{tmp_path / 'step-0000001.pt'}: could not be removed (Operation not permitted); it is no longer needed"
    )


@pytest.mark.parametrize("links", [True, False])
def test_a_checkpoint_kept_under_a_name_outlives_numbered_ones(tmp_path, monkeypatch, links):
    """As a hard link, or as a copy if the system does not support links."""
    if not links:
        monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    checkpoint.save(tmp_path, payload(1), kept=2, keep_as="best")
    for step in (2, 3):
        checkpoint.save(tmp_path, payload(step), kept=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best.pt",
        "step-0000002.pt",
        "step-0000003.pt",
    ]
    assert checkpoint.load(tmp_path / "best.pt")["step"] == 1
    assert checkpoint.load_newest(tmp_path)[1]["step"] == 3
    checkpoint.save(tmp_path, payload(4), kept=2, keep_as="best")
    assert checkpoint.load(tmp_path / "best.pt")["step"] == 4


def test_the_kept_checkpoint_gets_its_name_first(tmp_path, monkeypatch):
    """A numbered checkpoint may record that it is kept: after a kill in between, `best.pt` must already exist."""
    real, seen = os.replace, []
    monkeypatch.setattr("os.replace", lambda a, b: (seen.append(os.path.basename(b)), real(a, b)))
    checkpoint.save(tmp_path, payload(1), kept=2, keep_as="best")
    assert seen == ["best.pt", "step-0000001.pt"]


def refusal(path):
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path)
    message = str(caught.value)
    assert path.name in message
    assert message == one_line(message)
    assert len(message) < 1000
    return message


@pytest.mark.parametrize(
    "changes",
    [
        *(
            {"step": "x"},
            {"step": -1},
            {"step": True},
            {"step": 1.5},
            {"step": torch.zeros(2)},
            {"format": torch.zeros(2)},
            {"method": torch.zeros(2)},
            {"method": 3},
            {"settings": []},
            {"data": None},
        ),
        *(
            {"translations": {"ab": {}}},
            {"translations": {"ab": {"generator": 1}}},
            {"state": []},
            {"ema": {"w": 1}},
        ),
        *(
            {"ema": [1]},
            {"optimizers": {"generator": []}},
            {"random": {}},
            {"random": [{"cpu": 1}]},
            {"notes": []},
        ),
        *({"state": torch.zeros(3)}, {"ema": {"a\nb" * 1000: "c\n" * 1000}}),
    ],
)
def test_parts_of_another_type_are_refused(tmp_path, changes):
    path = checkpoint.save(tmp_path, payload(1), kept=2)
    torch.save({"format": checkpoint.FORMAT, **payload(1), **changes}, path)
    assert "not a gan_nst checkpoint" in refusal(path)


def repacked(path, change):
    """Rewrites the archive with each member changed by `change(name, content)` and with correct checksums."""
    with zipfile.ZipFile(path) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(name, change(name, content))


@pytest.mark.parametrize(
    "code", [b"\x80\x02]\x94.", b".", b"\x80\x02K\x01\x85", b"\x80\x02(K\x01u.", b"\x80\x02h\x05."]
)
def test_a_broken_pickle_is_refused(tmp_path, code):
    path = checkpoint.save(tmp_path, payload(1), kept=2)
    repacked(path, lambda name, content: code if name.endswith("data.pkl") else content)
    refusal(path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "step-0000001.pt")
    assert "not a file" in refusal(tmp_path / "step-0000001.pt")


def test_tensors_keep_their_layout(tmp_path):
    kept = {"last": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last), "none": torch.zeros(0)}
    path = checkpoint.save(
        tmp_path, {**payload(1), "state": {**kept, "part": torch.rand(4, 4)[1:, :2]}}, kept=2
    )
    loaded = checkpoint.load(path)["state"]
    assert torch.equal(loaded["last"], kept["last"])
    assert loaded["last"].stride() == kept["last"].stride()
