"""Translated videos keep their times, sound and format; bad ones are reported."""

import logging
import math
import re
import resource
from fractions import Fraction

import numpy as np
import pytest
import torch
from helpers_inference import Shift, describe, translator
from helpers_videos import (
    RATE,
    SOUND_RATE,
    clouds,
    moving,
    read_clip,
    rolling,
    tone,
    warping_error,
    write_clip,
)
from torch import nn

from gan_nst.core.errors import DataError, SettingsError
from gan_nst.core.options import TranslateOptions
from gan_nst.images.arrays import resize_image
from gan_nst.images.files import read_image, write_image
from gan_nst.images.photo import Photo
from gan_nst.images.video import Form, FrameFolder, Shot, as_stored, upright
from gan_nst.images.video_writer import VideoWriter
from gan_nst.inference.translator import Translator
from gan_nst.inference.video import is_video, translate_shots, translate_video
from gan_nst.networks import build

av = pytest.importorskip("av")


class Same(nn.Module):
    """Returns the image, and records its inputs."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen += [((one.permute(1, 2, 0) + 1) * 127.5).round().byte().numpy() for one in x]
        return x


class Breaks(nn.Module):
    """Raises an error at its third batch."""

    def __init__(self, error):
        super().__init__()
        self.error, self.left = error, 2

    def forward(self, x):
        if not self.left:
            raise self.error
        self.left -= 1
        return x


ALONE = TranslateOptions(window=1)


def translate(source, output, network=None, **options):
    options = TranslateOptions(**{"window": 1, "crf": 4, **options})
    return translate_video(translator(network or Same()), source, output, options)


def away(one, other):
    return np.abs(one.astype(float) - other).mean()


def assert_alike(frames, expected, level=3.0):
    assert len(frames) == len(expected)
    for one, other in zip(frames, expected, strict=True):
        assert one.shape == other.shape
        assert away(one, other) < level


def refused(source, output, **options):
    before = sorted(path.name for path in output.parent.glob("*"))
    with pytest.raises(DataError) as caught:
        translate(source, output, **options)
    assert "\n" not in str(caught.value)
    after = sorted(path.name for path in output.parent.glob("*"))
    assert after == before
    return str(caught.value)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", rolling(), sounds=("aac", "aac"))


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_a_video_keeps_its_times_sounds_and_subtitles(tmp_path, clip, suffix):
    outcome = translate(clip, tmp_path / f"out{suffix}", Shift())
    assert outcome.written == [tmp_path / f"out{suffix}"]
    assert (outcome.frames, outcome.failures) == (12, [])
    before, after = read_clip(clip), read_clip(tmp_path / f"out{suffix}")
    assert_alike(after.frames, [np.clip(frame + 32.0, 0, 255) for frame in before.frames])
    assert after.times == pytest.approx(before.times, abs=5e-4)
    assert (after.rate, after.shape, after.layout) == (before.rate, before.shape, "yuv420p")
    assert after.kinds == before.kinds
    assert after.metadata["title"] == "A title"
    assert after.seconds == pytest.approx(before.seconds, abs=0.002)
    if suffix != ".mkv":  # it has its own clock
        assert after.tick == before.tick
    for one, other in zip(before.sound, after.sound, strict=True):
        wanted = one if suffix != ".mkv" else one[1:]  # would shift everything because of packets before 0
        assert [data for _, data in other] == [data for _, data in wanted]
        assert [time for time, _ in other] == pytest.approx([time for time, _ in wanted], abs=1e-3)
    assert [path.name for path in tmp_path.iterdir()] == [f"out{suffix}"]


def test_other_containers_can_hold_the_video(tmp_path, clip, caplog):
    for suffix, sound in ((".webm", "opus"), (".avi", "aac")):
        caplog.clear()
        translate(clip, tmp_path / f"out{suffix}")
        before, after = read_clip(clip), read_clip(tmp_path / f"out{suffix}")
        assert_alike(after.frames, before.frames, 5.0)
        assert after.times == pytest.approx(before.times, abs=0.002)
        assert [name for kind, name, _ in after.kinds if kind == "audio"] == [sound, sound]
        warning = "re-encoding its sound (aac) as libopus, as webm does not support it"
        assert [r.message for r in caplog.records] == [f"{clip}: {warning}"] * (2 if sound == "opus" else 0)


def test_every_frame_keeps_its_own_time(tmp_path):
    times = [0, 100, 150, 300, 310, 500, 700, 720, 900, 1000, 1100, 1150]
    source = write_clip(tmp_path / "in.mkv", rolling(), times=times)
    for name in ("out.mkv", "out.mp4"):
        translate(source, tmp_path / name)
        after = read_clip(tmp_path / name)
        assert [round(1000 * time) for time in after.times] == times
        assert after.tick == Fraction(1, 1000)
        assert_alike(after.frames, read_clip(source).frames)


def test_a_video_that_starts_late_starts_at_zero(tmp_path):
    source = write_clip(tmp_path / "in.ts", rolling(), begin=2)
    first = read_clip(source)
    assert first.times[0] > 1
    translate(source, tmp_path / "out.mp4")
    after = read_clip(tmp_path / "out.mp4")
    shift = first.times[0] - after.times[0]
    assert after.times[0] < 0.1
    assert after.times == pytest.approx([time - shift for time in first.times], abs=1e-3)
    assert [t for t, _ in after.sound[0]] == pytest.approx([t - shift for t, _ in first.sound[0]], abs=1e-3)


@pytest.mark.parametrize("turn", [90, 180, -90])
def test_a_rotated_video_is_translated_upright_and_keeps_its_rotation(tmp_path, turn):
    source = write_clip(tmp_path / "in.mp4", rolling(), turn=turn)
    network = Same()
    displayed = [np.rot90(frame, round(turn / 90)) for frame in read_clip(source).frames]
    for name in ("out.mp4", "out.mkv"):
        network.seen.clear()
        translate(source, tmp_path / name, network)
        assert_alike(
            [seen[: displayed[0].shape[0], : displayed[0].shape[1]] for seen in network.seen], displayed, 1.5
        )
        after = read_clip(tmp_path / name)
        assert abs(after.rotation - turn) % 360 == 0
        assert_alike([np.rot90(frame, round(turn / 90)) for frame in after.frames], displayed)
    translate(source, tmp_path / "out.avi")  # AVI has no rotation tag, so the images are rotated
    assert_alike(read_clip(tmp_path / "out.avi").frames, displayed, 5.0)


def test_all_eight_orientations_are_undone():
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    displayed = set()
    for a, b, c, d in ((1, 0, 0, 1), (0, 1, 1, 0)):
        for x in (1, -1):
            for y in (1, -1):
                matrix = tuple(65536 * v for v in (a * x, b * y, 0, c * x, d * y, 0, 0, 0, 16384))
                seen = upright(image, matrix)
                displayed.add(seen.tobytes() + bytes(seen.shape))
                np.testing.assert_array_equal(as_stored(seen, matrix), image)
    assert len(displayed) == 8
    np.testing.assert_array_equal(upright(image, (46341, 46341, 0, -46341, 46341, 0, 0, 0, 1)), image)


PALETTE = np.array(
    [
        [255, 0, 0],
        [0, 255, 0],
        [0, 0, 255],
        [255, 255, 255],
        [0, 0, 0],
        [128, 128, 128],
        [200, 100, 50],
        [30, 180, 220],
    ]
)


def to_yuv(rgb, matrix, full):
    """(n, 3) RGB of 0 to 255 as Y, U and V, by the formula."""
    kr, kb = {601: (0.299, 0.114), 709: (0.2126, 0.0722)}[matrix]
    r, g, b = rgb.T / 255
    y = kr * r + (1 - kr - kb) * g + kb * b
    parts = np.stack([y, (b - y) / 2 / (1 - kb), (r - y) / 2 / (1 - kr)])
    scale = np.array([255, 255, 255] if full else [219, 224, 224])[:, None]
    return parts * scale + np.array([0 if full else 16, 128, 128])[:, None]


def write_patches(path, matrix, full, tagged=True):
    planes = np.rint(to_yuv(PALETTE, matrix, full)).clip(0, 255).astype(np.uint8)
    stripes = np.repeat(np.repeat(planes[:, None], 48, 1), 16, 2)
    with av.open(str(path), "w") as video:
        stream = video.add_stream("libx264", rate=RATE, options={"crf": "0", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 128, 48, "yuv444p"
        if tagged:
            context = stream.codec_context
            context.colorspace, context.color_range = {601: 6, 709: 1}[matrix], 2 if full else 1
            context.color_primaries, context.color_trc = {601: (6, 6), 709: (1, 1)}[matrix]
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(stripes, format="yuv444p")
            frame.pts = number
            video.mux(stream.encode(frame))
        video.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", [601, 709])
def test_colour_tags_are_kept(tmp_path, matrix, full):
    network = Same()
    source = write_patches(tmp_path / "in.mp4", matrix, full)
    for name in ("out.mp4", "out.mkv", "out.webm"):
        translate(source, tmp_path / name, network)
        assert np.abs(network.seen[0][24, 8::16].astype(int) - PALETTE).max() <= 2
        assert read_clip(tmp_path / name).colours == read_clip(source).colours
        with av.open(str(tmp_path / name)) as video:
            (*_, last) = video.decode(video=0)
            written = last.to_ndarray(channel_last=True)[24, 8::16] if "444p" in last.format.name else None
        assert written is not None
        assert np.abs(written - to_yuv(PALETTE, matrix, full).T).max() <= 3


def test_unspecified_colours_are_read_and_written_consistently(tmp_path):
    network = Same()
    translate(write_patches(tmp_path / "in.mp4", 601, False, tagged=False), tmp_path / "out.mp4", network)
    assert np.abs(network.seen[0][24, 8::16].astype(int) - PALETTE).max() <= 2
    after = read_clip(tmp_path / "out.mp4")
    assert after.colours[0] == 2
    assert np.abs(after.frames[0][24, 8::16].astype(int) - PALETTE).max() <= 3


@pytest.mark.parametrize("size", [(47, 63), (47, 64), (48, 63)])
def test_odd_sizes_are_kept(tmp_path, size):
    source = write_clip(tmp_path / "in.mkv", rolling(4, *size), codec="mpeg4")
    for name in ("out.mp4", "out.webm", "out.avi"):
        translate(source, tmp_path / name)
        after = read_clip(tmp_path / name)
        assert after.shape == size
        assert after.layout == ("yuv444p" if name == "out.mp4" else "yuv420p")
        assert_alike(after.frames, read_clip(source).frames, 5.0)


@pytest.mark.parametrize("layout", ["yuv422p", "yuv444p", "yuv420p10le"])
def test_depth_and_chroma_are_kept(tmp_path, layout):
    source = write_clip(tmp_path / "in.mp4", rolling(3), layout=layout)
    translate(source, tmp_path / "out.mp4")
    assert read_clip(tmp_path / "out.mp4").layout == layout
    assert_alike(read_clip(tmp_path / "out.mp4").frames, read_clip(source).frames)


def test_the_pixel_aspect_is_kept(tmp_path):
    source = write_clip(tmp_path / "in.mp4", rolling(3), aspect=Fraction(16, 11))
    translate(source, tmp_path / "out.mp4")
    assert read_clip(tmp_path / "out.mp4").aspect == Fraction(16, 11)


def test_every_nth_frame_keeps_its_time_and_the_video_its_length(tmp_path, clip):
    outcome = translate(clip, tmp_path / "out.mp4", every=5)
    before, after = read_clip(clip), read_clip(tmp_path / "out.mp4")
    assert outcome.frames == 3
    assert after.times == pytest.approx([0, 0.5, 1.0])
    assert after.rate == 2 or abs(after.rate - Fraction(5, 2)) < 0.01
    assert after.seconds == pytest.approx(before.seconds, abs=0.07)
    assert_alike(after.frames, before.frames[::5])


def loud_from(path):
    """When the tone begins, in seconds."""
    with av.open(str(path)) as video:
        rate = video.streams.audio[0].rate
        heard = [(frame.time, frame.to_ndarray().ravel()) for frame in video.decode(audio=0)]
    for time, samples in heard:
        if len(loud := np.flatnonzero(np.abs(samples) > 0.1)):
            return time + loud[0] / rate
    return None


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_part_of_a_video_keeps_its_sound_in_time(tmp_path, suffix):
    frames = [clouds()] * 30 + [255 - clouds()] * 30
    source = write_clip(tmp_path / f"in{suffix}", frames, loud_from=3.0)
    assert loud_from(source) == pytest.approx(3.0, abs=0.03)
    outcome = translate(source, tmp_path / f"out{suffix}", start=2.45, end=4.05)
    after = read_clip(tmp_path / f"out{suffix}")
    assert outcome.frames == len(after.frames) == 16  # from 2.5 to 4.0
    assert after.times == pytest.approx([n / 10 for n in range(16)], abs=1e-3)
    turns = [number for number, frame in enumerate(after.frames) if away(frame, 255 - clouds()) < 5]
    assert after.times[turns[0]] == pytest.approx(0.5, abs=1e-3)
    assert loud_from(tmp_path / f"out{suffix}") == pytest.approx(0.5, abs=0.03)
    assert 1.5 < after.seconds < 1.75


def test_a_late_start_is_found_by_seeking(tmp_path, monkeypatch):
    frames = [np.roll(clouds(), 4 * (n % 16), 1) for n in range(120)]
    source = write_clip(tmp_path / "in.mp4", frames, gop_size=5)
    network = Same()
    monkeypatch.setattr("gan_nst.images.video._LEAD", 0.5)
    translate(source, tmp_path / "out.mp4", network, start=9.0, end=9.3)
    assert_alike(read_clip(tmp_path / "out.mp4").frames, read_clip(source).frames[90:93])
    assert len(network.seen) == 3


def write_subtitled(path):
    with av.open(str(path), "w") as video:
        stream = video.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        words = video.add_mux_stream("subrip")
        words.metadata["language"] = "eng"
        for number in range(5):
            frame = av.VideoFrame.from_ndarray(clouds(), format="rgb24")
            frame.pts = number
            video.mux(stream.encode(frame))
        video.mux(stream.encode(None))
        packet = av.Packet(b"Hello")
        packet.stream, packet.pts, packet.dts, packet.duration = words, 100, 100, 200
        packet.time_base = Fraction(1, 1000)
        video.mux(packet)
    return path


def test_subtitles_are_copied_where_supported(tmp_path, caplog):
    source = write_subtitled(tmp_path / "in.mkv")
    translate(source, tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as video:
        (words,) = [bytes(packet) for packet in video.demux(subtitles=0) if packet.size]
    assert words == b"Hello"
    assert not caplog.records
    translate(source, tmp_path / "out.mp4")
    assert len(read_clip(tmp_path / "out.mp4").frames) == 5
    assert [r.message for r in caplog.records] == [
        f"{source}: skipping its subtitle (srt), which mp4 does not support"
    ]


def test_a_video_becomes_a_folder_of_frames_and_back(tmp_path, clip):
    outcome = translate(clip, tmp_path / "frames", start=0.2)
    expected = read_clip(clip).frames[2:]
    names = [f"{number:06}.png" for number in range(1, 11)]
    assert (
        [path.name for path in outcome.written]
        == sorted(p.name for p in (tmp_path / "frames").iterdir())
        == names
    )
    assert_alike([read_image(path) for path in outcome.written], expected, 1.5)
    translate(tmp_path / "frames", tmp_path / "video.mp4", fps=Fraction(24000, 1001))
    after = read_clip(tmp_path / "video.mp4")
    assert after.rate == Fraction(24000, 1001)
    assert_alike(after.frames, expected)
    assert "already has frames (000001.png)" in refused(clip, tmp_path / "frames")


def test_frames_of_a_folder_are_ordered_by_number(tmp_path):
    frames = rolling(11)
    for number, frame in enumerate(frames):
        write_image(frame, tmp_path / "in" / f"frame{number}.png")
    translate(tmp_path / "in", tmp_path / "out.mp4")
    assert_alike(read_clip(tmp_path / "out.mp4").frames, frames)
    network = Same()
    outcome = translate(tmp_path / "in", tmp_path / "out", network, every=2, start=1 / 25)
    assert [path.name for path in outcome.written] == [f"frame{n}.png" for n in (1, 3, 5, 7, 9)]
    np.testing.assert_array_equal(network.seen[-1], frames[9])


def test_an_unreadable_frame_is_replaced_by_the_previous_one(tmp_path, caplog):
    frames = rolling(6)
    for number, frame in enumerate(frames):
        write_image(frame, tmp_path / "in" / f"{number}.png")
    (tmp_path / "in" / "2.png").write_bytes(b"")
    write_image(clouds(20, 20), tmp_path / "in" / "4.png")
    outcome = translate(tmp_path / "in", tmp_path / "out.mp4", fps=Fraction(10))
    assert read_clip(tmp_path / "out.mp4").times == pytest.approx([0, 0.1, 0.3, 0.5])
    assert len(outcome.failures) == len(caplog.records) == 2
    assert "4.png: has 20x20 pixels, but the video 64x48" in outcome.failures[1]


def test_the_finish_is_applied(tmp_path, clip):
    translate(clip, tmp_path / "out.mp4", Shift(), strength=0.0)
    assert_alike(read_clip(tmp_path / "out.mp4").frames, read_clip(clip).frames)


def shots(frames):
    form = Form(64, 48, Fraction(1, 10), Fraction(10))
    return [Shot(Photo(frame), form, number, 1, 0.0) for number, frame in enumerate(frames)]


def test_windows_and_smoothing_restart_at_cuts():
    torch.manual_seed(0)
    network = build({"name": "resnet", "width": 4, "blocks": 1})
    network.segments["tail"].convolution.weight.data *= 10  # an untrained network has little effect
    ours = Translator(network, describe(), device="cpu", precision="float32")
    noise = np.random.default_rng(0).normal(0, 4, (5, 48, 64, 3))
    scene = [np.clip(clouds() + more * (1 + n % 3), 0, 255).astype(np.uint8) for n, more in enumerate(noise)]
    scenes = [scene, [255 - frame // 2 for frame in scene]]
    options = TranslateOptions(window=4, smooth=0.5)
    together = [photo.pixels for _, photo in translate_shots(ours, shots(scenes[0] + scenes[1]), options)]
    apart = [photo.pixels for scene in scenes for _, photo in translate_shots(ours, shots(scene), options)]
    alone = [photo.pixels for _, photo in translate_shots(ours, shots(scenes[0] + scenes[1]), ALONE)]
    for one, other in zip(together, apart, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 2  # other batches round differently
    for number in range(10):
        apart = np.abs(together[number].astype(int) - alone[number]).max()
        assert (number in (0, 5)) == (apart <= 2)


def test_a_published_generator_flickers_less(tmp_path, pretrained_weights, test_data):
    """The figures behind --smooth, at a small size: the warping error falls by at least a third, without ghosts."""
    from gan_nst.commands.importing import import_generator
    from gan_nst.inference.exported import load_exported

    import_generator(pretrained_weights / "cartoongan_hayao_fp16.pth", tmp_path / "ab.safetensors")
    ours = Translator(*load_exported(tmp_path / "ab.safetensors"), device="cpu", precision="float32")
    images = [read_image(path) for path in sorted((test_data / "photo2hayao" / "testA").iterdir())[3:8:4]]
    video = moving(*(resize_image(image, 128, "short_side") for image in images), count=8, size=(96, 120))
    plain, smooth = (
        [photo.pixels for _, photo in translate_shots(ours, shots(video.frames), options)]
        for options in (ALONE, TranslateOptions(window=1, smooth=0.7))
    )
    before, after = (warping_error(one, video.flows, video.visible) for one in (plain, smooth))
    ghosts = [
        away(one[mask], other[mask])
        for one, other, mask in zip(smooth[1:], plain[1:], video.uncovered, strict=True)
    ]
    print(
        f"warping error {before:.2f}, smoothed {after:.2f}; where something is uncovered {np.mean(ghosts):.2f} apart"
    )
    assert after < 0.7 * before
    assert np.mean(ghosts) < 1.5


def test_a_generator_without_segments_ignores_the_window(tmp_path, clip, caplog):
    translate(clip, tmp_path / "out.mp4", window=8)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "--window" in record.message


def test_reading_ahead_is_bounded(tmp_path, monkeypatch):
    source = write_clip(tmp_path / "in.mp4", [clouds(160, 160)] * 400, sounds=())
    read, most = 0, 0
    decode, add = Form.decode, VideoWriter.add

    def count_read(self, frame):
        nonlocal read
        read += 1
        return decode(self, frame)

    def count_written(self, *args):
        nonlocal most, read
        read -= 1
        most = max(most, read)
        add(self, *args)

    monkeypatch.setattr(Form, "decode", count_read)
    monkeypatch.setattr(VideoWriter, "add", count_written)
    assert translate(source, tmp_path / "out.mp4").frames == 400
    assert most < 120


def write_wav(path):
    with av.open(str(path), "w") as file:
        stream = file.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        file.mux(stream.encode(frame))
    return path


def test_a_file_that_is_not_a_video_is_reported(tmp_path, clip):
    (tmp_path / "text.mp4").write_text("no video at all\n" * 50)
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[:4000])
    write_wav(tmp_path / "sound.wav").rename(tmp_path / "sound.mp4")
    (tmp_path / "folder").mkdir()
    out = tmp_path / "out.mp4"
    for name in ("text", "empty", "cut"):
        assert str(tmp_path / f"{name}.mp4") in refused(tmp_path / f"{name}.mp4", out)
    assert "has no video track" in refused(tmp_path / "sound.mp4", out)
    assert "no such video or folder" in refused(tmp_path / "none.mp4", out)
    assert "no images (looked for" in refused(tmp_path / "folder", out)
    assert "no frame after 00:00:05.000; it is 00:00:01.200 long" in refused(clip, out, start=5.0)


def test_an_unwritable_output_is_reported(tmp_path, clip):
    assert "videos are written as .mp4 .m4v .mov .mkv .webm .avi" in refused(clip, tmp_path / "out.xyz")
    (tmp_path / "file").write_text("x")
    assert "could not be written" in refused(clip, tmp_path / "file" / "out.mp4")
    assert "is a file" in refused(clip, tmp_path / "file")
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(clip.read_bytes())
    assert "would overwrite the input" in refused(copy, copy)
    assert copy.read_bytes() == clip.read_bytes()


@pytest.mark.parametrize("limit", [100, 5000])
def test_a_full_disk_leaves_nothing(tmp_path, clip, limit):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        message = refused(clip, tmp_path / "out.mp4", crf=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    remedy = "files of that size are not allowed there; raise the limit or choose another disk"
    assert message == f"{tmp_path / 'out.mp4'}: could not be written (File too large); {remedy}"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError("no room")])
def test_an_interruption_leaves_no_partial_file(tmp_path, error):
    source = write_clip(tmp_path / "in.mp4", [clouds(160, 160)] * 90)
    (tmp_path / "out.mp4").write_text("an earlier video")
    with pytest.raises(type(error)):
        translate(source, tmp_path / "out.mp4", Breaks(error))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]
    assert (tmp_path / "out.mp4").read_text() == "an earlier video"


def test_a_truncated_video_is_translated_as_far_as_possible(tmp_path):
    intact = write_clip(tmp_path / "intact.mkv", rolling(40))
    source = tmp_path / "in.mkv"
    source.write_bytes(intact.read_bytes()[: intact.stat().st_size // 2])
    outcome = translate(source, tmp_path / "out.mp4")
    assert 5 < outcome.frames < 35
    assert outcome.written == [tmp_path / "out.mp4"]
    (failure,) = outcome.failures
    assert failure.startswith(f"{source}: ends early, after 00:00:0")
    after = read_clip(tmp_path / "out.mp4")
    assert_alike(after.frames, read_clip(intact).frames[: outcome.frames])


def write_long_sound(path, seconds=8):
    """A video of 1.2 s of frames and longer sound, stored at the end of the file."""
    with av.open(str(path), "w", options={"movflags": "faststart"} if path.suffix == ".mp4" else {}) as video:
        images = video.add_stream("libx264", rate=RATE)
        images.width, images.height, images.pix_fmt = 64, 48, "yuv420p"
        heard = video.add_stream("aac", rate=SOUND_RATE, layout="mono")
        for number, image in enumerate(rolling()):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = number
            video.mux(images.encode(frame))
        sound = av.AudioFrame.from_ndarray(tone(seconds), format="s16", layout="mono")
        sound.sample_rate, sound.pts = SOUND_RATE, 0
        for stream, frame in ((heard, sound), (heard, None), (images, None)):
            video.mux(stream.encode(frame))
    return path


def test_sound_that_ends_early_is_a_fault(tmp_path, caplog):
    intact = write_long_sound(tmp_path / "intact.mp4")
    source = tmp_path / "in.mp4"
    source.write_bytes(intact.read_bytes()[: intact.stat().st_size * 7 // 10])
    assert translate(intact, tmp_path / "a.mp4").failures == []
    assert translate(source, tmp_path / "b.mp4", end=1.0).failures == []  # the omitted part may be damaged
    caplog.clear()
    outcome = translate(source, tmp_path / "out.mp4")
    assert outcome.frames == 12
    assert outcome.failures == caplog.messages
    damaged, broken = (failure.removeprefix(f"{source}: ") for failure in outcome.failures)
    assert damaged == "1 packet of its sound damaged"
    assert re.fullmatch(r"its sound ends early, after 00:00:05\.\d+ of 00:00:08\.000", broken)
    assert read_clip(tmp_path / "out.mp4").sound[0]


def test_sound_that_cannot_be_decoded_is_a_fault(tmp_path, clip):
    """When it is re-encoded; otherwise it is copied unchanged."""
    packets = [data for sound in read_clip(clip).sound for _, data in sound]
    content = clip.read_bytes()
    for packet in packets[3:6]:
        assert content.count(packet) >= 1
        content = content.replace(packet, b"\xff" * len(packet), 1)
    (tmp_path / "in.mp4").write_bytes(content)
    outcome = translate(tmp_path / "in.mp4", tmp_path / "out.webm")
    (failure,) = outcome.failures
    assert re.fullmatch(r"[1-3] packets? of its sound damaged", failure.split(": ", 1)[1])


def test_a_read_error_in_sound_is_a_fault(tmp_path, clip, monkeypatch):
    from gan_nst.images.video_writer import Sound

    class Failing:
        def __init__(self, real):
            self.real = real

        def __getattr__(self, name):
            return getattr(self.real, name)

        def demux(self, streams):
            yield next(self.real.demux(streams))
            raise av.error.InvalidDataError(1, "broken\nhere")

    begin = Sound._read

    def read(self):
        self._input = Failing(self._input)
        return begin(self)

    monkeypatch.setattr(Sound, "_read", read)
    outcome = translate(clip, tmp_path / "out.mp4")
    assert outcome.failures == [f"{clip}: its sound ends early (broken here)"]
    assert len(read_clip(tmp_path / "out.mp4").frames) == 12


@pytest.mark.parametrize(
    "options",
    [
        {"crf": 52},
        {"every": 0},
        {"window": 0},
        {"smooth": 1.0},
        {"smooth": -0.1},
        {"fps": Fraction(0)},
        {"start": 2.0, "end": 1.0},
        {"start": 2.0, "end": 2.0},
        {"start": float("nan")},
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(SettingsError):
        TranslateOptions(**options)


def test_videos_are_recognised_by_suffix(tmp_path):
    assert is_video(tmp_path / "A.MP4")
    assert is_video(tmp_path / "a.m2ts")
    assert not is_video(tmp_path / "a.png")
    (tmp_path / "folder.mp4").mkdir()
    assert not is_video(tmp_path / "folder.mp4")


def test_a_part_without_frames_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no image from 00:00:09"):
        FrameFolder(tmp_path, [tmp_path / "a.png"], Fraction(25), start=9.0, end=math.inf)
