"""`gan-nst translate` with videos: exit codes, one line for every mistake, and nothing half-written."""

import numpy as np
import pytest
import torch
from helpers_runs import one_line
from helpers_videos import clouds, read_clip, rolling, write_clip
from PIL import Image

from gan_nst.commands import translate as video_module
from gan_nst.commands.translate import wants_video
from gan_nst.images.files import read_image, write_image
from gan_nst.inference.exported import Description, TrainingScale, export
from gan_nst.networks import build

pytest.importorskip("av")


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    """A generator that returns the image."""
    torch.manual_seed(0)
    network = build({"name": "resnet", "width": 4, "blocks": 1, "start_from": "image"})
    description = Description(
        network=network.spec.model_dump(),
        translation="ab",
        training_scale=TrainingScale(load_size=48, crop_size=48),
        method="cyclegan",
    )
    path = tmp_path_factory.mktemp("generator") / "ab.safetensors"
    export(network, description, path)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", rolling())


@pytest.fixture
def translate(gan_nst, generator, tmp_path):
    def run(source, output, *options):
        return gan_nst("translate", generator, source, "--output", output, "--device", "cpu", *options)

    return run


def test_a_video_is_translated(translate, clip, tmp_path):
    code, out, err = translate(clip, tmp_path / "out.mp4", "--smooth", "--crf", "8")
    assert (code, err) == (0, "")
    assert f"12 frames translated into {tmp_path / 'out.mp4'}" in out
    before, after = read_clip(clip), read_clip(tmp_path / "out.mp4")
    assert after.times == before.times
    assert after.sound == before.sound
    for one, other in zip(before.frames, after.frames, strict=True):
        assert np.abs(one.astype(float) - other).mean() < 4


def test_the_options_reach_the_video(translate, clip, tmp_path):
    code, _, _ = translate(
        clip, tmp_path / "out.mkv", "--start", "0:00.3", "--end", "1", "--every", "2", "--window", "1"
    )
    assert code == 0
    assert read_clip(tmp_path / "out.mkv").times == pytest.approx([0, 0.2, 0.4, 0.6], abs=1e-3)
    code, out, _ = translate(clip, tmp_path / "frames", "--start", "1s")
    assert code == 0
    assert sorted(path.name for path in (tmp_path / "frames").iterdir()) == ["000001.png", "000002.png"]
    code, out, _ = translate(tmp_path / "frames", tmp_path / "video.mov", "--fps", "24000/1001")
    assert code == 0
    assert float(read_clip(tmp_path / "video.mov").rate) == pytest.approx(23.976, abs=1e-3)


def test_a_folder_of_frames_is_a_video_with_the_frames_option(translate, tmp_path, monkeypatch):
    for number in range(3):
        write_image(clouds(seed=number), tmp_path / "in" / f"{number}.png")
    seen = []
    monkeypatch.setattr(
        video_module,
        "log",
        type("Log", (), {"info": lambda self, line: seen.append("frames translated" in line)})(),
    )
    code, _, _ = translate(tmp_path / "in", tmp_path / "out", "--frames")
    assert code == 0
    assert seen == [True]
    assert read_image(tmp_path / "out" / "2.png").shape == (48, 64, 3)
    assert translate(tmp_path / "in", tmp_path / "plain")[0] == 0
    assert seen == [True, False]


def fill(folder, count=3):
    for number in range(count):
        write_image(clouds(seed=number), folder / f"{number}.png")
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_frames_are_written_as_requested(translate, clip, tmp_path):
    for quality in ("5", "95"):
        asked = (
            "--format",
            "jpeg",
            "--suffix",
            "_x",
            "--quality",
            quality,
            "--chroma",
            "4:2:0",
            "--end",
            "0.3",
        )
        assert translate(clip, tmp_path / quality, *asked)[0] == 0
        assert names(tmp_path / quality) == [f"00000{number}_x.jpg" for number in (1, 2, 3)]
        assert translate(fill(tmp_path / "in"), tmp_path / f"f{quality}", "--frames", *asked[:-2])[0] == 0
        assert names(tmp_path / f"f{quality}") == [f"{number}_x.jpg" for number in range(3)]
    for one, other in (("5/000001_x.jpg", "95/000001_x.jpg"), ("f5/0_x.jpg", "f95/0_x.jpg")):
        assert (tmp_path / one).stat().st_size < (tmp_path / other).stat().st_size
    with Image.open(tmp_path / "95" / "000001_x.jpg") as image:
        assert (image.format, image.layer[0][1:3]) == ("JPEG", (2, 2))
    code, _, err = translate(clip, tmp_path / "5", *asked)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "already has frames (000001_x.jpg)" in err


def test_frames_with_too_many_pixels_are_refused(translate, clip, tmp_path):
    source = fill(tmp_path / "in")
    write_image(clouds(8, 8), source / "9.png")
    code, _, err = translate(source, tmp_path / "out", "--frames", "--max-pixels", "100")
    assert code == 1
    assert names(tmp_path / "out") == ["9.png"]
    assert err.count("raise --max-pixels") == 3
    code, _, err = translate(clip, tmp_path / "out.mp4", "--max-pixels", "3071")
    assert code == 2
    assert "frames have 64x48 pixels, more than the 3071 allowed" in err
    assert not (tmp_path / "out.mp4").exists()
    assert translate(clip, tmp_path / "out.mp4", "--max-pixels", "3072", "--end", "0.2")[0] == 0


@pytest.mark.parametrize(
    ("source", "output", "options", "message"),
    [
        *(
            ("clip", "out.mp4", option, "a video")
            for option in ("--format png", "--suffix x", "--quality 92")
        ),
        ("clip", "out.mp4", "--chroma 4:4:4", "whose quality is --crf"),
        ("in", "out.mp4", "--format png", "whose quality is --crf"),
        *(("in", "out", f"{option} 1", "--frames") for option in ("--every", "--start", "--end", "--window")),
        (
            "in",
            "out",
            "--smooth --every 2",
            "--every, --smooth: only for videos; add --frames if",
        ),
        ("in/0.png", "out", "--smooth", "omit it"),
        ("in", "out", "--crf 18", "such as out.mp4"),
        ("in", "out", "--fps 25", "such as out.mp4"),
        ("in", "out", "--frames --crf 18", "such as out.mp4"),
        ("in", "out", "--frames --fps 25", "such as out.mp4"),
        ("clip", "out", "--crf 18", "such as out.mp4"),
        ("clip", "out", "--fps 25", "keeps its own times"),
        ("clip", "out.mp4", "--fps 25", "keeps its own times"),
        ("clip", "out.mp4", "--frames", "for a folder of images"),
        ("clip", "out", "--resume", "frames of a video cannot be resumed"),
        ("in", "out", "--frames --resume", "frames of a video cannot be resumed"),
    ],
)
def test_options_without_effect_are_refused(translate, clip, tmp_path, source, output, options, message):
    fill(tmp_path / "in")
    source = clip if source == "clip" else tmp_path / source
    code, _, err = translate(source, tmp_path / output, *options.split())
    assert code == 2
    assert len(err.splitlines()) == 1
    assert message in err
    assert any(f"{option}: " in err for option in options.split())
    assert not (tmp_path / output).exists()


def test_options_with_effect_are_accepted(translate, tmp_path):
    source = fill(tmp_path / "in", 4)
    assert translate(source, tmp_path / "a", "--frames", "--fps", "2", "--start", "1s", "--smooth")[0] == 0
    assert names(tmp_path / "a") == ["2.png", "3.png"]
    assert translate(source, tmp_path / "b", "--suffix", "_x", "--quality", "3", "--resume")[0] == 0
    assert names(tmp_path / "b") == [f"{number}_x.png" for number in range(4)]


def test_resume_skips_a_finished_video(translate, clip, tmp_path):
    target = tmp_path / "out.mp4"
    assert translate(clip, target)[0] == 0
    before = target.stat().st_mtime_ns
    code, out, _ = translate(clip, target, "--resume")
    assert (code, target.stat().st_mtime_ns) == (0, before)
    assert "already finished" in out


def test_a_truncated_video_exits_with_1_and_a_mistake_with_2(translate, clip, tmp_path):
    intact = write_clip(tmp_path / "intact.mkv", rolling(40))
    broken = tmp_path / "broken.mkv"
    broken.write_bytes(intact.read_bytes()[: intact.stat().st_size // 2])
    code, _, err = translate(broken, tmp_path / "out.mp4")
    assert code == 1
    assert "ends early, after" in err
    assert err.splitlines()[-1] == "gan-nst: the video could only be read in part (1 fault)"
    assert read_clip(tmp_path / "out.mp4").frames
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
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
        ("--crf", "60"),
    ],
)
def test_invalid_options_are_refused(translate, clip, tmp_path, option):
    one_line(translate(clip, tmp_path / "out.mp4", *option), option[0], repr(option[1]))


def test_several_processes_do_not_share_a_video(translate, clip, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr("gan_nst.commands.translate.rank_and_count", lambda: (0, 2))
    code, _, err = translate(clip, tmp_path / "out.mp4")
    assert code == 2
    assert "a video is translated by one process, not by 2" in err


def test_videos_are_distinguished_from_images(tmp_path):
    (tmp_path / "a.mp4").mkdir()
    for source, output, frames, wanted in (
        ("a.png", "out", False, False),
        ("in", "out", False, False),
        ("in", "out", True, True),
        ("in", "out.webm", False, True),
        ("b.TS", "out", False, True),
        ("in", "a.mp4", False, False),
    ):
        assert wants_video(tmp_path / source, tmp_path / output, frames) is wanted
