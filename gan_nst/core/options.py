"""The command line's options, each declared once with its type, default and help.

The command line is built from these classes (gan_nst.cli), the public functions take them, and inner layers take the
groups they need: `TranslateOptions` is a `Finish`, an `Encoding`, a `Naming`, a `TranslatorOptions` and a
`VideoOptions`. Torch is not imported here, so that help is quick.
"""

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args, get_origin

from gan_nst.core.errors import SettingsError


@dataclass(frozen=True)
class Kind:
    """A kind of value. parse: from text; raises ValueError or ZeroDivisionError. show: as people write it."""

    expected: str
    parse: Callable[[str], Any]
    allows: Callable[[Any], bool]
    show: Callable[[Any], str] = "{}".format


def _match(pattern: str, text: str) -> re.Match[str]:
    match = re.fullmatch(pattern, text.strip(), re.ASCII | re.IGNORECASE)
    if match is None:
        raise ValueError
    return match


def _digits(text: str) -> int:
    return int(_match(r"\d+", text)[0])  # int also takes signs and underscores


def _pixels(text: str) -> int:
    match = _match(r"(\d{1,15}(?:\.\d+)?)\s*([kmg]?)", text)
    return int(float(match[1]) * 1000 ** " KMG".index(match[2].upper() or " "))


def _bytes(text: str) -> int:
    """1.5GiB, 800M and 2g are binary, 1500MB is decimal."""
    match = _match(r"(\d{1,15}(?:\.\d+)?)\s*([kmgt])(i?b)?", text)
    base = 1000 if (match[3] or "").lower() == "b" else 1024
    return int(float(match[1]) * base ** " KMGT".index(match[2].upper()))


def _seconds(text: str) -> float:
    match = _match(r"(?:(?:(\d+):)?(\d+):)?(\d+\.?\d*|\.\d+) *(ms|s|m|)", text)
    seconds = float(match[3]) * {"ms": 0.001, "m": 60.0}.get(match[4].lower(), 1.0)
    return 3600 * float(match[1] or 0) + 60 * float(match[2] or 0) + seconds


NATURAL = Kind("a whole number of at least 0", _digits, lambda n: n >= 0)
POSITIVE = Kind("a whole number of at least 1", _digits, lambda n: n >= 1)
PERCENT = Kind("a whole number from 1 to 100", _digits, lambda n: 1 <= n <= 100)
PORT = Kind("a whole number from 0 to 65535", _digits, lambda n: 0 <= n <= 65535)
CRF = Kind("a whole number from 0 to 51", _digits, lambda n: 0 <= n <= 51)
STRENGTH = Kind("a number from 0 to 1", float, lambda x: 0 <= x <= 1, "{:g}".format)
SCALE = Kind("a number above 0 and up to 1", float, lambda x: 0 < x <= 1, "{:g}".format)
SMOOTHING = Kind("a number from 0 to below 1", float, lambda x: 0 <= x < 1)
PIXELS = Kind("a number such as 600M", _pixels, lambda n: n >= 1, lambda n: f"{n / 10**6:g}M")
BYTES = Kind("a size such as 1.5GiB or 800M", _bytes, lambda n: n >= 0, lambda n: f"{n / 2**30:g}GiB")
FRAME_RATE = Kind("frames a second, for example 25 or 24000/1001", Fraction, lambda rate: 0 < rate <= 1000)
DURATION = Kind(
    "a time above 0, for example 2s, 0.5 or 1m", _seconds, lambda s: 0 < s < math.inf, "{:g}s".format
)
MOMENT = Kind("a time, for example 1:30, 90 or 2s", _seconds, lambda s: 0 <= s < math.inf)
NAME_PART = Kind("a part of a file's name", str, lambda text: not set(text) & {"/", "\\", "\0"})


def option(
    default: Any,
    help: str,
    kind: Kind | None = None,
    metavar: str | None = None,
    flag: Any = None,
    kw_only: bool = False,
) -> Any:
    """A field that the command line offers as an option. flag: the value that the bare option stands for."""
    about = {"help": help, "kind": kind, "metavar": metavar, "flag": flag}
    return field(default=default, kw_only=kw_only, metadata=about)


def choices(one: Field[Any]) -> tuple[str, ...]:
    """An option's only values, if there are only some."""
    literals = (kind for kind in (one.type, *get_args(one.type)) if get_origin(kind) is Literal)
    return next(map(get_args, literals), ())


def flag(name: str) -> str:
    """An option as it is typed: --preserve-color of preserve_color."""
    return f"--{name.replace('_', '-')}"


@dataclass(frozen=True)
class Options:
    """Base of all groups of options. Text is read as on the command line; raises SettingsError, one line, for a value
    out of range.

    group: the heading that the options of a class are listed under.
    """

    group: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if value != one.default:
                object.__setattr__(self, one.name, _checked(one, value))


def _checked(one: Field[Any], value: Any) -> Any:
    """The value of an option, read if it is text."""
    kind, known = one.metadata["kind"], choices(one)
    if known and value not in known:
        raise SettingsError(f"{flag(one.name)}: expected one of {', '.join(known)}, got {value!r}")
    if isinstance(value, str) and (one.type is Path or Path in get_args(one.type)):
        return Path(value)
    if kind is None:
        return value
    try:
        found = kind.parse(value) if isinstance(value, str) else value
        if kind.allows(found):
            return found
    except (ValueError, ZeroDivisionError):
        pass
    raise SettingsError(f"{flag(one.name)}: expected {kind.expected}, got {value!r}")


def heading(options: type[Options], one: Field[Any]) -> str | None:
    """The heading that an option is listed under: that of the class which declares it."""
    owner = next(base for base in options.__mro__ if one.name in inspect.get_annotations(base))
    title: str | None = vars(owner).get("group")
    return title


ImageFormat = Literal["png", "jpeg", "webp", "tiff", "avif", "same"]
Chroma = Literal["4:4:4", "4:2:2", "4:2:0"]
PreserveColor = Literal["none", "luma", "statistics"]
Precision = Literal["auto", "float32", "bfloat16"]
Resize = Literal["short_side", "squash", "none"]
ExportFormat = Literal["onnx", "pt2", "safetensors"]
FeatureName = Literal["inception", "inception-768", "inception-192", "inception-64", "random"]
ExportPrecision = Literal["float32", "float16", "int8"]


@dataclass(frozen=True)
class Naming(Options):
    """The names of outputs. format "same": the input's, or png where that is not written; None: the format that the
    output's name says, or png.
    """

    group = "files"
    format: ImageFormat | None = option(None, "same: the input's, where it is one of these (default: png)")
    suffix: str = option("", "added to file names, for example _cartoon", NAME_PART, "TEXT")


@dataclass(frozen=True)
class Encoding(Options):
    """How images are compressed."""

    group = "files"
    quality: int = option(92, "of JPEG, WebP and AVIF, 1 to 100", PERCENT)
    chroma: Chroma = option("4:4:4", "colour resolution of JPEG and AVIF; 4:4:4 is full")


@dataclass(frozen=True)
class Finish(Options):
    """How an image and its translation become the output."""

    group = "look"
    preserve_color: PreserveColor = option(
        "none", "keep the input's colours: luma changes only brightness, statistics keeps means and spreads"
    )
    strength: float = option(1.0, "0 is the input, 1 the translation", STRENGTH)
    scale: float = option(1.0, "translate at this fraction of the size, then restore the detail", SCALE)

    @property
    def is_plain(self) -> bool:
        """Whether the output is the unchanged translation."""
        return self.preserve_color == "none" and self.strength == 1 and self.scale == 1


@dataclass(frozen=True)
class Device(Options):
    """Where a network runs."""

    device: str = option("auto", "auto, cpu, cuda, cuda:1 or mps")


@dataclass(frozen=True)
class Computing(Device):
    """Where and how precisely a network runs."""

    precision: Precision = option("auto", "auto: bfloat16 where the device computes it natively")


@dataclass(frozen=True)
class Direction(Options):
    """Which of a run's translations is used."""

    direction: str | None = option(None, "default: ab, or the only one in the file", metavar="ab|ba")


@dataclass(frozen=True)
class TranslatorOptions(Computing, Direction):
    """How a translator is loaded. memory: bytes that the network may use at once."""

    group = "large images"
    memory: int = option(
        3 * 2**29,
        "memory for the network; larger images are translated in parts, with the same result",
        BYTES,
        "SIZE",
    )
    scratch: Path | None = option(
        None, "folder for their scratch file (default: the system's)", metavar="DIR"
    )


@dataclass(frozen=True)
class VideoOptions(Options):
    """How a video is translated and written.

    start, end: the part to translate, in seconds. fps: frames per second of a video made from a folder. smooth: how
    much of a frame comes from the previous ones, moved along.
    """

    group = "videos"
    crf: int = option(18, "quality, 0 (best) to 51; 18 is near the original", CRF)
    every: int = option(1, "keep only every N-th frame", POSITIVE, "N")
    start: float = option(0.0, "begin at this time, for example 1:30, 90 or 2s", MOMENT, "TIME")
    end: float = option(math.inf, "stop at this time", MOMENT, "TIME")
    frames: bool = option(False, "a folder's images are the frames of a video")
    fps: Fraction = option(Fraction(25), "frame rate of a video made from a folder", FRAME_RATE)
    window: int = option(
        8, "frames that share statistics, to reduce flicker; 1 turns this off", POSITIVE, "N"
    )
    # 0.7 takes about half of the flicker.
    smooth: float = option(0.0, "blend frames along the motion, to reduce flicker", SMOOTHING, flag=0.7)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.start < self.end:
            raise SettingsError(
                f"--start {self.start:g}, --end {self.end:g}: the end must come after the start"
            )


@dataclass(frozen=True)
class TranslateOptions(VideoOptions, TranslatorOptions, Finish, Encoding, Naming):
    """How images, folders and videos are translated."""

    group = "files"
    resume: bool = option(False, "skip images whose output exists and is not older")
    max_pixels: int = option(512_000_000, "refuse larger images; 600M is 600 million", PIXELS, "N")


@dataclass(frozen=True)
class TrainOptions(Options):
    """Which run is trained."""

    domain: str | None = option(
        None, "use experiments/DOMAIN/METHOD.yaml, or the method's default recipe, on datasets/DOMAIN"
    )
    method: str | None = option(None, "method, with --domain (default: cyclegan)")
    output: Path | None = option(None, "run folder (default: runs/DOMAIN/METHOD/TIME)", metavar="DIR")
    resume: Path | None = option(None, "run to continue, with its own settings", metavar="RUN")
    dry_run: bool = option(False, "check everything, print the settings, train nothing")


@dataclass(frozen=True)
class ExportOptions(Direction):
    """The file that a generator is exported to."""

    format: ExportFormat = option(MISSING, "file format", kw_only=True)
    precision: ExportPrecision = option("float32", "precision of the weights")
    pixels: Literal["uint8", "float"] = option(
        "uint8", "RGB images in and out, (n, 3, h, w): 0 to 255, or float32 of 0 to 1"
    )
    calibrate: Path | None = option(
        None,
        "images that set int8's scales (default: the run's training images, or the demo world's)",
        metavar="FOLDER",
    )


@dataclass(frozen=True)
class ImportOptions(Options):
    """The description of an imported generator."""

    direction: str | None = option(None, "default: ba for *_net_G_B, otherwise ab", metavar="ab|ba")
    load_size: int | None = option(None, "scale it was trained at", POSITIVE, "PIXELS")
    crop_size: int | None = option(None, "side of its training crops", POSITIVE, "PIXELS")
    resize: Resize | None = option(None, "how its training images were resized")
    licence: str | None = option(None, "licence of the weights, recorded in the file", metavar="TEXT")


@dataclass(frozen=True)
class Results(Options):
    """Where a command's results are written."""

    json: Path | None = option(
        None, "also write the results there (-: to standard output, and nothing else)", metavar="FILE"
    )


@dataclass(frozen=True)
class EvaluateOptions(Results, Computing):
    """The images to compare, and the protocol."""

    images: Path | None = option(None, "images to evaluate, instead of a run", metavar="FOLDER")
    reference: Path | None = option(None, "images that they should look like", metavar="FOLDER")
    data: Path | None = option(None, "data set with test images (default: the run's)", metavar="DIR")
    direction: str | None = option(None, "default: every direction of the run or file", metavar="ab|ba")
    protocol: Literal["clean", "legacy"] | None = option(
        None, "how images are resized: like clean-fid, or like pytorch-fid (default: the run's, or clean)"
    )
    features: Literal["auto", FeatureName] = option(
        "auto", "network that images are compared by; auto: the best available here"
    )
    weights: Path | None = option(None, "Inception weights, instead of searching for them", metavar="FILE")
    download: bool = option(False, "download weights that are not found locally")


@dataclass(frozen=True)
class BenchOptions(Results, Device):
    """The measurements to make."""

    rounds: int = option(5, "timed steps of each kind; slow ones take 3", POSITIVE)
    compiled: bool | None = option(
        None, "also measure compiled networks, which takes minutes (default: on CUDA)"
    )


@dataclass(frozen=True)
class AppOptions(Computing):
    """Where the page is served, and what visitors may upload."""

    host: str = option(
        "127.0.0.1", "address to serve at; 0.0.0.0 admits everybody who can reach this machine"
    )
    port: int = option(7860, "port to serve at; 0: any free one", PORT)
    max_upload: int = option(50, "limit for an image file", POSITIVE, "MB")
    max_pixels: int = option(64_000_000, "limit for an image; 100M is 100 million", PIXELS, "N")


@dataclass(frozen=True)
class CheckOptions(Results):
    """The settings that a data set is checked against."""

    domain: str | None = option(None, "instead of DIR: datasets/DOMAIN, as its training would read it")
    method: str = option("cyclegan", "method whose settings apply")
    crop_size: int | None = option(
        None, "report images smaller than this (default: as trained)", POSITIVE, "PIXELS"
    )


@dataclass(frozen=True)
class DemoOptions(Options):
    """The demo data set to draw."""

    domain: str | None = option(
        None, "instead of DIR: datasets/DOMAIN, at the size its training loads, unless it has images"
    )
    method: str = option("cyclegan", "method whose settings determine that size")
    size: int = option(256, "side of the images in pixels", POSITIVE)
    count: int = option(400, "training images in each domain", POSITIVE)
    seed: int = option(0, "another seed draws other scenes", NATURAL)


@dataclass(frozen=True)
class GetOptions(Options):
    """Where a data set goes, and what its archive may be."""

    into: Path | None = option(None, "a new folder (default: datasets/NAME)", metavar="DIR")
    sha256: str | None = option(None, "the archive's SHA-256", metavar="HEX")
    max_size: int = option(
        20 * 2**30, "limit for the archive, and for what is extracted from it", BYTES, "SIZE"
    )


@dataclass(frozen=True)
class FramesOptions(Options):
    """Which frames are taken from a video."""

    every: float = option(2.0, "take another frame of a long scene after this time", DURATION, "TIME")
    size: int | None = option(256, "maximum length of the shorter side", POSITIVE, "PIXELS")


@dataclass(frozen=True)
class SmoothOptions(Options):
    """How images are resized before their edges are smoothed."""

    size: int | None = option(
        None, "resize the shorter side first, as data.load_size does", POSITIVE, "PIXELS"
    )
