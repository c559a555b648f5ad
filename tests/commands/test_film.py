"""`gan-nst translate` with films: exit codes, one line for every mistake, and nothing half-written."""

import numpy as np
import pytest
import torch
from helpers_films import clouds, read_clip, rolling, write_clip

from gan_nst.commands import film as film_module
from gan_nst.commands.film import wants_film
from gan_nst.images import read_picture, write_picture
from gan_nst.inference.exported import Description, TrainingScale, export
from gan_nst.networks import build

pytest.importorskip("av")


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    """A generator that returns the picture."""
    torch.manual_seed(0)
    network = build({"name": "resnet", "width": 4, "blocks": 1, "start_from": "picture"})
    told = Description(
        network=network.spec.model_dump(),
        translation="ab",
        training_scale=TrainingScale(load_size=48, crop_size=48),
        method="cyclegan",
    )
    path = tmp_path_factory.mktemp("generator") / "ab.safetensors"
    export(network, told, path)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", rolling())


@pytest.fixture
def translate(gan_nst, generator, tmp_path):
    def run(source, output, *options):
        return gan_nst("translate", generator, source, "--output", output, "--device", "cpu", *options)

    return run


def test_a_film_is_translated(translate, clip, tmp_path):
    code, out, err = translate(clip, tmp_path / "out.mp4", "--smooth", "--crf", "8")
    assert (code, err) == (0, "")
    assert f"12 frames translated into {tmp_path / 'out.mp4'}" in out
    before, after = read_clip(clip), read_clip(tmp_path / "out.mp4")
    assert after.times == before.times
    assert after.sound == before.sound
    for one, other in zip(before.frames, after.frames, strict=True):
        assert np.abs(one.astype(float) - other).mean() < 4


def test_the_options_reach_the_film(translate, clip, tmp_path):
    code, _, _ = translate(
        clip, tmp_path / "out.mkv", "--start", "0:00.3", "--end", "1", "--every", "2", "--window", "1"
    )
    assert code == 0
    assert read_clip(tmp_path / "out.mkv").times == pytest.approx([0, 0.2, 0.4, 0.6], abs=1e-3)
    code, out, _ = translate(clip, tmp_path / "frames", "--start", "1s")
    assert code == 0
    assert sorted(path.name for path in (tmp_path / "frames").iterdir()) == ["000001.png", "000002.png"]
    code, out, _ = translate(tmp_path / "frames", tmp_path / "film.mov", "--fps", "24000/1001")
    assert code == 0
    assert float(read_clip(tmp_path / "film.mov").rate) == pytest.approx(23.976, abs=1e-3)


def test_a_folder_of_frames_is_one_film_when_said(translate, tmp_path, monkeypatch):
    for number in range(3):
        write_picture(clouds(seed=number), tmp_path / "in" / f"{number}.png")
    seen = []
    monkeypatch.setattr(film_module, "log", type("Log", (), {"info": lambda self, line: seen.append(line)})())
    code, _, _ = translate(tmp_path / "in", tmp_path / "out", "--frames")
    assert code == 0
    assert len(seen) == 1
    assert read_picture(tmp_path / "out" / "2.png").shape == (48, 64, 3)
    assert translate(tmp_path / "in", tmp_path / "plain")[0] == 0
    assert len(seen) == 1


def test_resume_leaves_a_finished_film(translate, clip, tmp_path):
    target = tmp_path / "out.mp4"
    assert translate(clip, target)[0] == 0
    before = target.stat().st_mtime_ns
    code, out, _ = translate(clip, target, "--resume")
    assert (code, target.stat().st_mtime_ns) == (0, before)
    assert "was finished already" in out


def test_what_breaks_off_ends_with_1_and_what_is_wrong_with_2(translate, clip, tmp_path):
    whole = write_clip(tmp_path / "whole.mkv", rolling(40))
    broken = tmp_path / "broken.mkv"
    broken.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    code, _, err = translate(broken, tmp_path / "out.mp4")
    assert code == 1
    assert "breaks off after" in err
    assert err.splitlines()[-1] == "gan-nst: not everything could be read, 1 faults"
    assert read_clip(tmp_path / "out.mp4").frames
    (tmp_path / "text.mp4").write_text("no film\n" * 100)
    for source, target in (
        (tmp_path / "text.mp4", tmp_path / "no.mp4"),
        (tmp_path / "none.mp4", tmp_path / "no.mp4"),
        (clip, tmp_path / "no.xyz"),
    ):
        code, _, err = translate(source, target)
        assert code == 2
        assert err.startswith("gan-nst: ")
        assert len(err.splitlines()) == 1
        assert not list(tmp_path.glob("*no.*"))


@pytest.mark.parametrize(
    "option",
    [
        ("--start", "soon"),
        ("--every", "0"),
        ("--fps", "0"),
        ("--fps", "1/0"),
        ("--window", "0"),
        ("--crf", "x"),
    ],
)
def test_options_that_are_none_are_refused(translate, clip, tmp_path, option, capfd):
    with pytest.raises(SystemExit) as exit:
        translate(clip, tmp_path / "out.mp4", *option)
    assert exit.value.code == 2
    assert option[0] in capfd.readouterr().err
    assert translate(clip, tmp_path / "out.mp4", "--crf", "60")[0] == 2


def test_several_processes_do_not_share_a_film(translate, clip, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr("gan_nst.commands.processes.share", lambda: (0, 2))
    code, _, err = translate(clip, tmp_path / "out.mp4")
    assert code == 2
    assert "a film is translated by one process, not by 2" in err


def test_films_are_told_from_pictures(tmp_path):
    (tmp_path / "a.mp4").mkdir()
    for source, output, frames, wanted in (
        ("a.png", "out", False, False),
        ("in", "out", False, False),
        ("in", "out", True, True),
        ("in", "out.webm", False, True),
        ("b.TS", "out", False, True),
        ("in", "a.mp4", False, False),
    ):
        assert wants_film(tmp_path / source, tmp_path / output, frames) is wanted
