"""A video becomes a domain: one frame per scene, no duplicates, black frames, blends, titles or bars."""

import re
import sys
from fractions import Fraction
from functools import cache

import cv2
import numpy as np
import pytest

from gan_nst.core.errors import DataError
from gan_nst.data import frames
from gan_nst.data.demo import draw_cartoon, make_scene
from gan_nst.data.frames import shows_text, take_frames
from gan_nst.images import video as video_module
from gan_nst.images.files import find_images, read_image, write_image
from gan_nst.images.video import stamp

pytest.importorskip("av", reason="PyAV is not installed")

import av
from helpers_videos import write_clip

WIDTH, HEIGHT, RATE = 128, 96, 24


@cache
def world(index):
    """A drawn image larger than the video, so that a camera can move over it."""
    return draw_cartoon(make_scene(0, "film", index), 224)  # a seed


def shot(index, x=40, y=60):
    return world(index)[y : y + HEIGHT, x : x + WIDTH]


def static(index, length=RATE):
    return [shot(index)] * length


def dissolve(one, other, length):
    steps = [(n + 1) / (length + 1) for n in range(length)]
    return [np.round(one + (other.astype(float) - one) * step).astype(np.uint8) for step in steps]


def statics(*scenes, length=RATE):
    return [image for index in scenes for image in static(index, length)]


def flat(colour, length=RATE):
    return [np.full((HEIGHT, WIDTH, 3), colour, np.uint8)] * length


def card(*lines, ink=255, ground=0, size=(WIDTH, HEIGHT), scale=0.45):
    image = np.full((size[1], size[0], 3), ground, np.uint8)
    for number, line in enumerate(lines):
        width = cv2.getTextSize(line, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0]
        place = (size[0] - width) // 2, round((number + 1) * size[1] / (len(lines) + 1) + 10 * scale)
        cv2.putText(image, line, place, cv2.FONT_HERSHEY_SIMPLEX, scale, [ink] * 3, 1, cv2.LINE_AA)
    return image


def write_video(path, images, *, rate=RATE, **stream):
    return write_clip(path, images, rate=rate, sounds=(), gop_size=RATE, **stream)


def away(image, other):
    """The root mean square difference of two images, of 255."""
    return np.sqrt(np.square(image.astype(float) - other).mean())


def scene_of(path, count=12):
    """The number of the scene that a frame shows; None if it is none of them unblended."""
    image = cv2.blur(read_image(path), (5, 5))  # codecs halve the resolution of colour
    distances = [away(image, cv2.blur(shot(index), (5, 5))) for index in range(count)]
    return int(np.argmin(distances)) if min(distances) < 5 else None


def time_of(path):
    hours, minutes, rest = path.stem.split("-")[-3:]
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


def test_every_scene_gives_one_frame_named_by_its_time(tmp_path):
    video = write_video(tmp_path / "video.mp4", statics(*range(6)))
    found = take_frames(video, tmp_path / "new" / "domain")
    assert found.scenes == len(found.kept) == 6
    assert found.seconds == pytest.approx(6, abs=0.05)
    assert list(found.kept) == sorted(found.kept) == find_images(tmp_path / "new" / "domain")
    for index, path in enumerate(found.kept):
        assert scene_of(path) == index
        assert index <= time_of(path) < index + 1
        assert path.name.startswith("video-00-00-0")
        assert path.suffix == ".png"
    assert found.report().startswith(
        f"{video}: kept 6 frames of 128 x 96 pixels, from 6 scenes in 00:00:06\n"
    )
    assert "dropped 0 near-duplicates, 0 black or blank, 0 credits, 0 half-blended" in found.report()


@pytest.mark.parametrize(("every", "count"), [(1.0, 4), (2.0, 2), (4.0, 1)])
def test_a_long_scene_gives_another_frame_every_so_often(tmp_path, every, count):
    pan = [shot(0, x=n * 96 // 107) for n in range(107)]  # nearly 4.5 seconds
    found = take_frames(write_video(tmp_path / "pan.mp4", pan + static(1, 11)), tmp_path / "out", every=every)
    assert found.scenes == 2
    assert len(found.kept) + found.near_duplicates == count + 1
    assert found.near_duplicates <= 1


def test_the_frame_is_taken_where_the_camera_rests(tmp_path):
    move = [shot(0, x=4 * n) for n in range(12)]
    video = write_video(
        tmp_path / "video.mp4", move + [move[-1]] * 10 + [shot(0, x=44 + 4 * n) for n in range(12)]
    )
    (kept,) = take_frames(video, tmp_path / "out", every=9).kept
    assert 11 <= time_of(kept) * RATE <= 22


def test_a_shot_that_returns_or_does_not_move_is_kept_once(tmp_path):
    video = static(0) + static(1) + static(0) + static(2, 5 * RATE) + static(1)
    found = take_frames(write_video(tmp_path / "video.mp4", video), tmp_path / "out")
    assert [scene_of(path) for path in found.kept] == [0, 1, 2]
    assert found.scenes == 5
    assert found.near_duplicates == 4  # 0 and 1 again, and the second and third of the static shot


@pytest.mark.parametrize("level", [255, 0])
def test_a_flash_is_not_a_cut(tmp_path, level):
    video = static(0) + flat(level, 2) + static(0)
    found = take_frames(write_video(tmp_path / "video.mp4", video), tmp_path / "out", every=9)
    assert (found.scenes, len(found.kept), found.near_duplicates) == (1, 1, 0)


@pytest.mark.parametrize("length", [8, 24, 48])
@pytest.mark.parametrize("way", ["dissolve", "through black"])
def test_no_frame_is_half_blended(tmp_path, length, way):
    video = static(0)
    for index in (1, 2, 3):
        if way == "through black":
            video += dissolve(video[-1], flat(0)[0], length) + flat(0, 6)
        video += dissolve(video[-1], shot(index), length) + static(index)
    found = take_frames(write_video(tmp_path / "video.mp4", video), tmp_path / "out", every=0.5)
    assert [scene_of(path) for path in found.kept] == [0, 1, 2, 3]
    assert found.scenes == 4
    assert found.blended > 0 or length < 48


def test_black_and_blank_are_dropped_and_are_no_scenes(tmp_path):
    video = flat(0, 30) + static(0) + flat((30, 90, 200), 30) + static(1) + flat(255, 30)
    found = take_frames(write_video(tmp_path / "video.mp4", video), tmp_path / "out")
    assert [scene_of(path) for path in found.kept] == [0, 1]
    assert (found.scenes, found.blank) == (2, 3)


def test_titles_and_rolling_credits_are_dropped(tmp_path):
    size = 320, 240
    roll = card(*(f"Name Number {n}" for n in range(14)), size=(320, 600), scale=0.5)
    video = [card("A VIDEO", "by nobody", size=size, scale=1)] * 30
    video += [cv2.resize(shot(0), size)] * 30
    video += [card("Once upon", "a time", size=size, ink=0, ground=250, scale=0.8)] * 30
    video += [cv2.resize(shot(1), size)] * 30
    video += [roll[60 + y : 300 + y] for y in range(0, 240, 2)]
    found = take_frames(write_video(tmp_path / "video.mp4", video), tmp_path / "out", size=96)
    assert [scene_of(path) for path in found.kept] == [0, 1]
    assert found.credits >= 4  # the two cards, and the roll's five seconds
    assert found.near_duplicates == found.blank == 0


def test_a_black_scene_does_not_displace_others(tmp_path):
    video = [shot(0, x=3 * n) for n in range(24)]
    video += dissolve(video[-1], flat(0)[0], 8) + flat(0)
    found = take_frames(write_video(tmp_path / "video.mp4", video), tmp_path / "out", every=9)
    assert len(found.kept) == found.scenes == 1
    assert time_of(found.kept[0]) < 1


def test_letters_are_looked_for_before_they_are_too_small(tmp_path):
    video = [card("Directed by", "Jane Doe", size=(320, 240), scale=0.6)] * 12 + [
        cv2.resize(shot(0), (320, 240))
    ] * 12
    found = take_frames(write_video(tmp_path / "video.mp4", video), tmp_path / "out", size=24)
    assert (len(found.kept), found.credits) == (1, 1)


@pytest.mark.parametrize("size", [96, 256])
def test_no_cartoon_is_taken_for_credits(size):
    taken = [n for n in range(100) if shows_text(draw_cartoon(make_scene(2, "text", n), size))]
    assert not taken


@pytest.mark.parametrize("size", [(320, 180), (640, 480), (1280, 720)])
@pytest.mark.parametrize(("ink", "ground"), [(255, 0), (0, 255), (200, 60)])
@pytest.mark.parametrize(
    "lines", [["THE END"], ["Directed by", "Jane Doe"], [f"Somebody {n} as Someone" for n in range(7)]]
)
def test_letters_on_a_flat_ground_are_seen(size, ink, ground, lines):
    noise = np.random.default_rng(0).normal(0, 2, (size[1], size[0], 3))
    image = card(*lines, size=size, ink=ink, ground=ground, scale=size[1] / 360) + noise
    assert shows_text(np.clip(image, 0, 255).astype(np.uint8))


def test_stars_a_face_and_birds_are_no_letters():
    rng = np.random.default_rng(0)
    sky, face, birds = (np.full((180, 320, 3), ground, np.uint8) for ground in (10, 200, 220))
    for x, y in rng.integers((320, 180), size=(90, 2)).tolist():
        cv2.circle(sky, (x, y), 1, (255, 255, 255), -1)
    for x, y in rng.integers((300, 160), size=(12, 2)).tolist():
        cv2.polylines(birds, [np.array([[x, y], [x + 8, y + 5], [x + 16, y]])], False, (10, 10, 10), 2)
    cv2.circle(face, (160, 90), 50, (240, 180, 140), -1)
    for x in (140, 180):
        cv2.circle(face, (x, 80), 6, (0, 0, 0), -1)
    assert not any(map(shows_text, (sky, face, birds, np.zeros((90, 160, 3), np.uint8))))


def test_an_image_with_letters_in_it_is_not_credits():
    texture = cv2.resize(
        np.random.default_rng(0).uniform(0, 60, (45, 80)), (320, 180), interpolation=cv2.INTER_CUBIC
    )
    letters = card("Directed by", "Jane Doe", size=(320, 180), scale=0.8)
    assert shows_text(letters)
    assert not shows_text(np.clip(letters + texture[..., None], 0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("left", "top", "right", "bottom"), [(0, 24, 0, 24), (32, 0, 32, 0), (0, 20, 0, 26), (4, 0, 0, 0)]
)
def test_dark_bars_are_cropped(tmp_path, left, top, right, bottom):
    images = statics(*range(4), length=12)
    framed = [cv2.copyMakeBorder(p, top, bottom, left, right, cv2.BORDER_CONSTANT) for p in images]
    found = take_frames(write_video(tmp_path / "video.mp4", framed), tmp_path / "out", size=None)
    for cropped, bar in zip(found.bars, (left, top, right, bottom), strict=True):
        assert bar <= cropped <= bar + 2 if bar else cropped == 0
    height, width = HEIGHT + top + bottom, WIDTH + left + right
    assert found.shape == (height - found.bars[1] - found.bars[3], width - found.bars[0] - found.bars[2])
    assert {read_image(path).shape[:2] for path in found.kept} == {found.shape}
    assert len(found.kept) == 4
    assert "bars of {} {} {} {} pixels".format(*found.bars) in found.report()


def test_a_night_is_not_a_bar(tmp_path):
    night = [cv2.rectangle(shot(n).copy(), (0, 0), (WIDTH, 40), (4, 4, 8), -1) for n in range(3)]
    spot = [cv2.circle(np.zeros_like(night[0]), (64, 48), 20 + 8 * n, (200, 180, 90), -1) for n in range(4)]
    video = [image for image in night + spot for _ in range(12)]
    assert take_frames(write_video(tmp_path / "video.mp4", video), tmp_path / "out").bars == (0, 0, 0, 0)


@pytest.mark.parametrize("aspect", [Fraction(4, 3), Fraction(3, 4)])
def test_pixels_become_square(tmp_path, aspect):
    wide, high = (round(WIDTH / aspect), HEIGHT) if aspect > 1 else (WIDTH, round(HEIGHT * aspect))
    squeezed = [cv2.resize(p, (wide, high), interpolation=cv2.INTER_AREA) for p in static(0)]
    found = take_frames(
        write_video(tmp_path / "video.mp4", squeezed, aspect=aspect), tmp_path / "out", size=None
    )
    assert found.shape == (HEIGHT, WIDTH)
    assert away(read_image(found.kept[0]), shot(0)) < 20


@pytest.mark.parametrize("turned", [90, -90, 180])
def test_a_video_is_rotated_by_its_tag(tmp_path, turned):
    video = write_video(
        tmp_path / "video.mp4", [np.rot90(p, -turned // 90).copy() for p in static(0)], turn=turned
    )
    assert scene_of(take_frames(video, tmp_path / "out").kept[0]) == 0


@pytest.mark.parametrize(
    ("size", "shape"), [(48, (48, 64)), (96, (96, 128)), (500, (96, 128)), (None, (96, 128))]
)
def test_the_shorter_side_has_the_size_and_nothing_is_enlarged(tmp_path, size, shape):
    found = take_frames(write_video(tmp_path / "video.mp4", static(0)), tmp_path / "out", size=size)
    assert read_image(found.kept[0]).shape[:2] == found.shape == shape


def test_colours_do_not_change(tmp_path):
    found = take_frames(write_video(tmp_path / "video.mp4", static(3)), tmp_path / "out")
    assert np.abs(read_image(found.kept[0]).astype(float).mean((0, 1)) - shot(3).mean((0, 1))).max() < 2


def test_high_definition_has_its_own_colours_where_the_video_does_not_say(tmp_path):
    with av.open(str(tmp_path / "video.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "5", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        image = cv2.resize(shot(3), (1280, 720))
        for _ in range(8):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
            frame.colorspace = 2  # as unspecified
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    found = take_frames(tmp_path / "video.mkv", tmp_path / "out", size=None)
    assert np.abs(read_image(found.kept[0]).astype(float) - image).mean() < 4


def test_several_videos_make_one_domain_without_what_it_has(tmp_path):
    first = write_video(tmp_path / "one.mp4", static(0) + static(1))
    second = write_video(tmp_path / "two.mp4", static(1) + static(2))
    take_frames(first, tmp_path / "out")
    before = {path: path.read_bytes() for path in find_images(tmp_path / "out")}
    found = take_frames(second, tmp_path / "out")
    assert [scene_of(path) for path in found.kept] == [2]
    assert found.near_duplicates == 1
    assert {path: path.read_bytes() for path in before} == before
    with pytest.raises(DataError, match=r"no frame is worth keeping; dropped 2 near-duplicates, 0 black"):
        take_frames(first.rename(tmp_path / "three.mp4"), tmp_path / "out")


def test_frames_of_two_videos_of_one_name_are_not_mixed(tmp_path):
    video = write_video(tmp_path / "video.mp4", static(0) + static(1))
    take_frames(video, tmp_path / "out")
    before = {path: path.read_bytes() for path in find_images(tmp_path / "out")}
    with pytest.raises(DataError, match=r"already has frames of video \(video-00-00-00\.\d+\.png\)"):
        take_frames(video, tmp_path / "out", size=32)
    assert {path: path.read_bytes() for path in find_images(tmp_path / "out")} == before
    longer = write_video(tmp_path / "video-2.mp4", static(2))  # begins like the other
    assert len(take_frames(longer, tmp_path / "out").kept) == 1


def test_a_video_that_breaks_off_gives_what_it_has(tmp_path, caplog):
    intact = write_video(tmp_path / "intact.mkv", statics(*range(8)))
    data = intact.read_bytes()
    (tmp_path / "part.mkv").write_bytes(data[: len(data) // 2])
    found = take_frames(tmp_path / "part.mkv", tmp_path / "out")
    assert 2 <= len(found.kept) < 8
    assert None not in [scene_of(path) for path in found.kept]
    assert found.seconds == pytest.approx(4, abs=1)
    assert "part.mkv: ends early, after 00:00:0" in caplog.text
    caplog.clear()
    take_frames(intact, tmp_path / "complete")
    assert not caplog.text


@pytest.mark.parametrize(("name", "codec"), [("video.mp4", "libx264"), ("video.avi", "mpeg4")])
def test_damage_inside_a_video_is_skipped(tmp_path, caplog, name, codec):
    video = write_video(tmp_path / name, statics(*range(8)), codec=codec)
    data = bytearray(video.read_bytes())
    middle, length = len(data) // 2, len(data) // 12
    data[middle : middle + length] = bytes(length)
    video.write_bytes(data)
    kept = [scene_of(path) for path in take_frames(video, tmp_path / "out").kept]
    assert None not in kept  # no smeared frames
    assert {0, 1, 7} <= set(kept)
    assert re.search(rf"{name}: \d+ damaged frames were skipped", caplog.text)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("none.mp4", None, "no such video"),
        ("noise.mp4", b"\x00\x01video" * 500, r"not a readable video \(.+\)"),
        ("empty.mp4", b"", r"not a readable video \(.+\)"),
        ("words.txt", b"words " * 500, "has no video track"),
    ],
)
def test_a_file_that_is_not_a_video_is_reported_in_one_line(tmp_path, name, data, message):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=rf"{name}: {message}$"):
        take_frames(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_sound_alone_is_not_a_video(tmp_path):
    with av.open(str(tmp_path / "song.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    with pytest.raises(DataError, match=r"song\.wav: has no video track"):
        take_frames(tmp_path / "song.wav", tmp_path / "out")


def test_the_error_for_a_black_video_says_what_was_dropped(tmp_path):
    with pytest.raises(
        DataError, match="no frame is worth keeping; dropped 0 near-duplicates, 2 black or blank"
    ):
        take_frames(write_video(tmp_path / "video.mp4", flat(0, 96)), tmp_path / "out")


def test_without_pyav_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DataError, match=r"^reading videos needs PyAV: pip install 'gan_nst\[video\]'$"):
        take_frames(tmp_path / "video.mp4", tmp_path / "out")


@pytest.mark.parametrize("wrong", [{"every": 0.0}, {"every": float("nan")}, {"size": 0}])
def test_invalid_numbers_are_refused(tmp_path, wrong):
    with pytest.raises(DataError, match="both must be above 0"):
        take_frames(tmp_path / "video.mp4", tmp_path / "out", **wrong)


def test_a_file_is_not_a_folder(tmp_path):
    video = write_video(tmp_path / "video.mp4", static(0))
    with pytest.raises(DataError, match="not a folder"):
        take_frames(video, video)


def test_an_interrupt_leaves_complete_files(tmp_path, monkeypatch):
    video = write_video(tmp_path / "video.mp4", statics(*range(4)))

    def interrupted(image, path):
        if find_images(tmp_path / "out"):
            raise KeyboardInterrupt
        write_image(image, path)

    monkeypatch.setattr(frames, "write_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        take_frames(video, tmp_path / "out")
    assert [scene_of(path) for path in find_images(tmp_path / "out")] == [0]


def test_progress_goes_by_the_seconds_of_the_video_and_ends_before_warnings(tmp_path, monkeypatch):
    events = []

    def track(items, description):
        for second in items:
            events.append(second)
            yield second
        events.append(f"end of {description}")

    monkeypatch.setattr(video_module, "track", track)
    monkeypatch.setattr(frames, "write_image", lambda *_: events.append("written"))
    monkeypatch.setattr(video_module.log, "warning", lambda _: events.append("warned"))
    video = write_video(tmp_path / "video.mkv", statics(*range(8)))
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    take_frames(video, tmp_path / "out")
    assert [event for event in events if isinstance(event, int)] == list(range(8))
    assert events.index(0) < events.index("written") < events.index(3)
    assert events.index("end of reading video.mkv") < events.index("warned")


def test_names_sort_by_time():
    times = [0, 0.0414, 59.9996, 83.48, 3599, 3723.48, 40_000]
    stamps = [stamp(time) for time in times]
    assert stamps == sorted(stamps)
    assert stamps[2:6] == ["00:01:00.000", "00:01:23.480", "00:59:59.000", "01:02:03.480"]
