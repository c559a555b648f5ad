"""Videos for tests: small ones written with PyAV, and moving images whose motion is known exactly."""

from dataclasses import dataclass
from fractions import Fraction

import av
import cv2
import numpy as np

from gan_nst.tiling.flow import warp

RATE = 10
SOUND_RATE = 16000
FINE = 0x4 | 0x40000 | 0x2000  # bicubic, accurate rounding, full chroma


def clouds(height=48, width=64, seed=0):
    """A tileable image of soft colours, which codecs preserve."""
    few = np.random.default_rng(seed).uniform(40, 216, (max(2, height // 16), max(2, width // 16), 3))
    few = np.pad(few, ((2, 2), (2, 2), (0, 0)), mode="wrap")
    grown = cv2.resize(
        few,
        (width * few.shape[1] // (few.shape[1] - 4), height * few.shape[0] // (few.shape[0] - 4)),
        interpolation=cv2.INTER_CUBIC,
    )
    top, left = (grown.shape[0] - height) // 2, (grown.shape[1] - width) // 2
    return np.clip(grown[top : top + height, left : left + width], 0, 255).astype(np.uint8)


def rolling(count=12, height=48, width=64):
    """Frames of clouds that move to the right."""
    return [np.roll(clouds(height, width), 4 * number, 1) for number in range(count)]


def tone(seconds, loud_from=0.0):
    """A tone as int16, (1, samples), which is silent until a given time."""
    at = np.arange(round(SOUND_RATE * seconds)) / SOUND_RATE
    return (8000 * np.sin(2 * np.pi * 440 * at) * (at >= loud_from)).astype(np.int16)[None]


def write_clip(
    path,
    frames,
    *,
    rate=RATE,
    times=None,
    sounds=("aac",),
    loud_from=0.0,
    begin=0,
    turn=0,
    aspect=None,
    **stream,
):
    """Writes a video of RGB frames with a sine tone; times: of the frames, in milliseconds. stream: its settings."""
    codec, layout = stream.pop("codec", "libx264"), stream.pop("layout", "yuv420p")
    tick = Fraction(1, 1000) if times else 1 / Fraction(rate)
    quality = {"crf": "4", "preset": "ultrafast"} if codec == "libx264" else {}
    with av.open(str(path), "w") as video:
        video.metadata["title"] = "A title"
        images = video.add_stream(codec, rate=rate, options=quality, time_base=tick)
        images.height, images.width = frames[0].shape[:2]
        images.pix_fmt = layout
        for name, value in stream.items():
            setattr(images, name, value)
        if codec == "mpeg4":
            images.bit_rate = 8_000_000
        if aspect:
            images.codec_context.sample_aspect_ratio = aspect
        if turn:
            images.set_display_rotation(turn)
        heard = [video.add_stream(name, rate=SOUND_RATE, layout="mono") for name in sounds]
        for number, one in enumerate(heard):
            one.metadata["language"] = ("eng", "fra")[number]
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = round(begin / tick) + (times[number] if times else number)
            frame.time_base = tick
            video.mux(images.encode(frame))
        for one in heard:
            sound = av.AudioFrame.from_ndarray(
                tone(len(frames) / rate, loud_from), format="s16", layout="mono"
            )
            sound.sample_rate, sound.pts = SOUND_RATE, begin * SOUND_RATE
            video.mux(one.encode(sound))
            video.mux(one.encode(None))
        video.mux(images.encode(None))
    return path


@dataclass
class Read:
    """A decoded video. times: of the frames, in seconds. sound: the packets of each track. shape: of a frame."""

    frames: list
    times: list
    sound: list
    shape: tuple
    rotation: int
    rate: Fraction
    tick: Fraction
    layout: str
    aspect: Fraction
    seconds: float
    metadata: dict
    kinds: list
    colours: tuple


def read_clip(path):
    with av.open(str(path)) as video:
        stream = video.streams.video[0]
        sounds = [[] for _ in video.streams.audio]
        for packet in video.demux(*video.streams.audio) if video.streams.audio else ():
            if packet.size:
                sounds[packet.stream.index - video.streams.audio[0].index].append(packet)
        sounds = [[(float(p.pts * p.time_base), bytes(p)) for p in packets] for packets in sounds]
        metadata = dict(video.metadata)
        kinds = [(s.type, s.codec_context.name, s.metadata.get("language", "und")) for s in video.streams]
        seconds = video.duration / 1e6
    with av.open(str(path)) as video:
        stream = video.streams.video[0]
        decoded = list(video.decode(stream))
        first = decoded[0]
        return Read(
            [frame.reformat(format="rgb24", interpolation=FINE).to_ndarray() for frame in decoded],
            [frame.time for frame in decoded],
            sounds,
            (first.height, first.width),
            first.rotation,
            stream.average_rate,
            stream.time_base,
            first.format.name,
            stream.sample_aspect_ratio,
            seconds,
            metadata,
            kinds,
            (first.colorspace, first.color_range, first.color_primaries, first.color_trc),
        )


@dataclass
class Moving:
    """An image that moves and grows behind a disc that crosses it.

    frames: with noise, as a camera records them. clean: without noise. flows: exact, from each frame but the first to
    the previous one. visible: the pixels that the previous frame shows too. uncovered: those that the disc no longer
    covers. edges: a ring around the disc's outline, in each frame.
    """

    frames: list
    clean: list
    flows: list
    visible: list
    uncovered: list
    edges: list


def look_up(image, x, y):
    """The image sampled between its pixels."""
    x, y = x.astype(np.float32), y.astype(np.float32)
    return cv2.remap(image, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def moving(ground, disc, *, count=12, size=(48, 64), noise=2.0, speed=2.3, radius=0.18, seed=0):
    """Records `ground` with a camera that pans and zooms, behind a disc cut from `disc`; both are RGB uint8 images."""
    height, width = size
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(size).astype(np.float32)
    radius *= height
    moved, before = Moving([], [], [], [], [], []), None
    start = np.array([ground.shape[1] - width, ground.shape[0] - height]) / 2
    for t in range(count):
        zoom = 1 - 0.002 * t
        x = (columns - width / 2) * zoom + width / 2 + start[0] + (0.37 * t) * speed / 2.3
        y = (rows - height / 2) * zoom + height / 2 + start[1] + 0.21 * t
        at = np.array([width * 0.3 + speed * t * 0.7, height * 0.5 + 0.3 * t])
        away = np.hypot(columns - at[0], rows - at[1])
        cover = np.clip(radius - away + 0.5, 0, 1)[..., None]
        back = look_up(ground, x, y)
        front = look_up(disc, columns - at[0] + disc.shape[1] / 2, rows - at[1] + disc.shape[0] / 2)
        clean = back * (1 - cover) + front * cover
        moved.clean.append(np.rint(clean).astype(np.uint8))
        moved.frames.append(
            np.clip(np.rint(clean + rng.normal(0, noise, clean.shape)), 0, 255).astype(np.uint8)
        )
        moved.edges.append(np.abs(away - radius) < 4)
        if t:
            zoom0, x0, at0 = 1 - 0.002 * (t - 1), 0.37 * (t - 1) * speed / 2.3, before
            was_x = (x - width / 2 - start[0] - x0) / zoom0 + width / 2
            was_y = (y - height / 2 - start[1] - 0.21 * (t - 1)) / zoom0 + height / 2
            flow = np.stack([was_x - columns, was_y - rows], 2)
            on = away <= radius
            flow[on] = at0 - at
            was_x, was_y = columns + flow[..., 0], rows + flow[..., 1]
            inside = (was_x >= 0) & (was_x <= width - 1) & (was_y >= 0) & (was_y <= height - 1)
            was_on = np.hypot(was_x - at0[0], was_y - at0[1]) <= radius + 1.5
            rim = np.abs(away - radius) < 1.5
            moved.flows.append(flow.astype(np.float32))
            moved.visible.append(inside & ~rim & (on | ~was_on))
            moved.uncovered.append(inside & ~on & was_on & ~rim)
        before = at
    return moved


def warping_error(outputs, flows, visible):
    """The temporal warping error of a video, of 255: 0 if everything keeps its colours as it moves.

    The mean, over all frames but the first, of |frame - warped previous frame| over the pixels that both show
    (Lai et al. 2018, arXiv:1808.00449, section 4, which squares it). flows: from each frame but the first to the
    previous one, (h, w, 2). visible: the pixels that were visible in it, (h, w).
    """
    outputs = iter(outputs)
    before = next(outputs)
    errors = []
    for frame, flow, seen in zip(outputs, flows, visible, strict=True):
        unit = np.iinfo(frame.dtype).max / 255
        errors.append(np.abs(frame - warp(before, flow))[seen].mean() / unit)
        before = frame
    return float(np.mean(errors))
