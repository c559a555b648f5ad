"""What a user can set besides a run's settings: every option once, with its type, default and help.

The command line is built from these classes (gan_nst.cli), the public functions take them, and inner layers take the
groups they need: `TranslateOptions` is a `Finish`, an `Encoding`, a `Naming`, a `TranslatorOptions` and a
`VideoOptions`. Torch is not imported here, so that help is quick.
"""

import inspect
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from gan_nst.core.errors import SettingsError


@dataclass(frozen=True)
class Kind:
    """A kind of value. parse: from text; raises ValueError or ZeroDivisionError. show: as people write it."""

    expected: str
    parse: Callable[[str], Any]
    allows: Callable[[Any], bool] = lambda _: True
    show: Callable[[Any], str] = "{}".format

    def read(self, text: str) -> Any:
        """The value of a text. Raises ValueError, whose message says what was expected."""
        try:
            if self.allows(value := self.parse(text)):
                return value
        except (ValueError, ZeroDivisionError):
            pass
        raise ValueError(f"expected {self.expected}, got {text!r}")


def _digits(text: str) -> int:
    if not text.isdecimal():  # int also takes signs, spaces and underscores
        raise ValueError
    return int(text)


def _scaled(text: str, pattern: str, factor: Callable[[re.Match[str]], int]) -> int:
    """The number at the beginning of a text times the factor that the rest stands for."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d+)?)\s*" + pattern, text, re.IGNORECASE)
    if match is None:
        raise ValueError
    return int(float(match[1]) * factor(match))


def _bytes(text: str) -> int:
    """1.5GiB, 800M and 2g are binary, 1500MB is decimal."""

    def factor(match: re.Match[str]) -> int:
        return int((1000 if (match[3] or "").lower() == "b" else 1024) ** " KMGT".index(match[2].upper()))

    return _scaled(text, r"([kmgt])(i?b)?", factor)


def _duration(text: str) -> float:
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+) *(ms|s|m|)", text.strip(), re.ASCII)
    if match is None:
        raise ValueError
    return float(match[1]) * {"ms": 0.001, "m": 60.0}.get(match[2], 1.0)


def _moment(text: str) -> float:
    match = re.fullmatch(r"(?:(\d+):)?(\d+):(\d+\.?\d*)", text.strip(), re.ASCII)
    if match is None:
        return _duration(text)
    return 3600 * int(match[1] or 0) + 60 * int(match[2]) + float(match[3])


NATURAL = Kind("a whole number of at least 0", _digits, lambda n: n >= 0)
POSITIVE = Kind("a whole number of at least 1", _digits, lambda n: n >= 1)
PERCENT = Kind("a whole number from 1 to 100", _digits, lambda n: 1 <= n <= 100)
CRF = Kind("a whole number from 0 to 51", _digits, lambda n: 0 <= n <= 51)
STRENGTH = Kind("a number from 0 to 1", float, lambda x: 0 <= x <= 1, "{:g}".format)
SCALE = Kind("a number above 0 and up to 1", float, lambda x: 0 < x <= 1, "{:g}".format)
SMOOTHING = Kind("a number from 0 to below 1", float, lambda x: 0 <= x < 1)
PIXELS = Kind(
    "a number such as 600M",
    lambda text: _scaled(text, "([kmg]?)", lambda m: 1000 ** " KMG".index(m[2].upper() or " ")),
    lambda n: n >= 1,
    lambda n: f"{n / 10**6:g}M",
)
BYTES = Kind("a size such as 1.5GiB or 800M", _bytes, lambda n: n >= 0, lambda n: f"{n / 2**30:g}GiB")
FRAME_RATE = Kind("frames a second, for example 25 or 24000/1001", Fraction, lambda rate: 0 < rate <= 1000)
DURATION = Kind(
    "a time above 0, for example 2s, 0.5 or 1m", _duration, lambda s: 0 < s < math.inf, "{:g}s".format
)
MOMENT = Kind("a time, for example 1:30, 90 or 2s", _moment, lambda s: 0 <= s < math.inf)
NAME_PART = Kind("a part of a file's name", str, lambda text: not set(text) & {"/", "\\", "\0"})


@dataclass(frozen=True)
class Option:
    """What the command line says about a field. flag: the value that the bare option stands for."""

    help: str
    kind: Kind | None = None
    metavar: str | None = None
    flag: Any = None


@dataclass(frozen=True)
class Declared:
    """An option as it was declared. types: the members of its union. group: the heading it is listed under."""

    name: str
    option: Option
    types: tuple[Any, ...]
    default: Any
    required: bool
    is_list: bool
    group: str | None

    @property
    def choices(self) -> tuple[str, ...]:
        """The only values, if there are only some."""
        return next((get_args(one) for one in self.types if get_origin(one) is Literal), ())

    def check(self, value: Any) -> None:
        """Raises SettingsError for a value that may not be given."""
        kind, choices = self.option.kind, self.choices
        if value == self.default:
            return
        if (choices and value not in choices) or (kind is not None and not kind.allows(value)):
            expected = f"one of {', '.join(choices)}" if kind is None else kind.expected
            raise SettingsError(f"{flag(self.name)}: expected {expected}, got {value!r}")


def declare(name: str, hint: Any, default: Any, *, required: bool, group: str | None = None) -> Declared:
    """An option by its annotation, Annotated[type, Option(...)]."""
    kind, option = get_args(hint)
    is_list = get_origin(kind) is Sequence
    types = (kind,) if get_origin(kind) is Literal else get_args(kind) or (kind,)
    return Declared(name, option, types, default, required, is_list, group)


def flag(name: str) -> str:
    """An option as it is typed: --preserve-color of preserve_color."""
    return f"--{name.replace('_', '-')}"


@dataclass(frozen=True)
class Options:
    """Base of all groups of options; raises SettingsError, one line, for a value out of range. Text becomes a path
    where a path is wanted.

    group: the heading that a group's options are listed under, and what is said below it.
    """

    group: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        for declared in declared_in(type(self)).values():
            value = getattr(self, declared.name)
            declared.check(value)
            if Path in declared.types and isinstance(value, str):
                object.__setattr__(self, declared.name, Path(value))


def declared_in(options: type[Options]) -> dict[str, Declared]:
    """The options of a class by name, those of its bases first."""
    hints, found = get_type_hints(options, include_extras=True), {}
    for one in fields(options):
        owner = next(base for base in options.__mro__ if one.name in inspect.get_annotations(base))
        group, required = owner.__dict__.get("group"), one.default is MISSING
        found[one.name] = declare(one.name, hints[one.name], one.default, required=required, group=group)
    return found


ImageFormat = Literal["png", "jpeg", "webp", "tiff", "avif", "same"]
Chroma = Literal["4:4:4", "4:2:2", "4:2:0"]
PreserveColor = Literal["none", "luma", "statistics"]
Precision = Literal["auto", "float32", "bfloat16"]
Resize = Literal["short_side", "squash", "none"]
ExportFormat = Literal["onnx", "pt2", "safetensors"]
ExportPrecision = Literal["float32", "float16", "int8"]


@dataclass(frozen=True)
class Naming(Options):
    """What outputs are called. format "same": the input's, or png where that is not written; None: the format that the
    output's name says, or png.
    """

    group = "files"
    format: Annotated[
        ImageFormat | None, Option("same: the input's, where it is one of these (default: png)")
    ] = None
    suffix: Annotated[str, Option("added to file names, for example _cartoon", NAME_PART, "TEXT")] = ""


@dataclass(frozen=True)
class Encoding(Options):
    """How images are compressed."""

    group = "files"
    quality: Annotated[int, Option("of JPEG, WebP and AVIF, 1 to 100", PERCENT)] = 92
    chroma: Annotated[Chroma, Option("colour resolution of JPEG and AVIF; 4:4:4 is full")] = "4:4:4"


@dataclass(frozen=True)
class Finish(Options):
    """How an image and its translation become the output."""

    group = "look"
    preserve_color: Annotated[
        PreserveColor,
        Option("keep the input's colours: luma changes only brightness, statistics keeps means and spreads"),
    ] = "none"
    strength: Annotated[float, Option("0 is the input, 1 the translation", STRENGTH)] = 1.0
    scale: Annotated[
        float, Option("translate at this fraction of the size, then restore the detail", SCALE)
    ] = 1.0

    @property
    def is_plain(self) -> bool:
        """Whether the translation is the output as it is."""
        return self.preserve_color == "none" and self.strength == 1 and self.scale == 1


@dataclass(frozen=True)
class Device(Options):
    """Where a network runs."""

    device: Annotated[str, Option("auto, cpu, cuda, cuda:1 or mps")] = "auto"


@dataclass(frozen=True)
class Computing(Device):
    """Where and how precisely a network runs."""

    precision: Annotated[Precision, Option("auto: bfloat16 where the device computes it natively")] = "auto"


@dataclass(frozen=True)
class Direction(Options):
    """Which of a run's translations is used."""

    direction: Annotated[str | None, Option("default: ab, or the only one in the file", metavar="ab|ba")] = (
        None
    )


@dataclass(frozen=True)
class TranslatorOptions(Computing, Direction):
    """How a translator is loaded. memory: bytes that the network may use at once."""

    group = "large images"
    memory: Annotated[
        int,
        Option(
            "what the network may use; larger images are translated in parts, with the same result",
            BYTES,
            "SIZE",
        ),
    ] = 3 * 2**29
    scratch: Annotated[
        Path | None, Option("folder for their scratch file (default: the system's)", metavar="DIR")
    ] = None


@dataclass(frozen=True)
class VideoOptions(Options):
    """How a video is translated and written.

    start, end: the part to translate, in seconds. fps: frames a second of a video made from a folder. smooth: how much
    of a frame comes from those before, moved along.
    """

    group = "videos"
    crf: Annotated[int, Option("quality, 0 (best) to 51; 18 is near the original", CRF)] = 18
    every: Annotated[int, Option("keep only every N-th frame", POSITIVE, "N")] = 1
    start: Annotated[float, Option("begin at this time, for example 1:30, 90 or 2s", MOMENT, "TIME")] = 0.0
    end: Annotated[float, Option("stop at this time", MOMENT, "TIME")] = math.inf
    frames: Annotated[bool, Option("a folder's images are the frames of a video")] = False
    fps: Annotated[Fraction, Option("of a video made from a folder", FRAME_RATE)] = Fraction(25)
    window: Annotated[
        int, Option("frames that share statistics, against flicker; 1: none do", POSITIVE, "N")
    ] = 8
    # 0.7 takes about half of the flicker.
    smooth: Annotated[
        float, Option("follow motion from frame to frame, against flicker", SMOOTHING, flag=0.7)
    ] = 0.0

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
    resume: Annotated[bool, Option("skip images whose output exists and is no older")] = False
    max_pixels: Annotated[int, Option("refuse larger images; 600M is 600 million", PIXELS, "N")] = 512_000_000


@dataclass(frozen=True)
class TrainOptions(Options):
    """Which run is trained."""

    domain: Annotated[
        str | None,
        Option("use experiments/DOMAIN/METHOD.yaml, or the method's default recipe, on datasets/DOMAIN"),
    ] = None
    method: Annotated[str | None, Option("method, with --domain (default: cyclegan)")] = None
    output: Annotated[Path | None, Option("run folder (default: runs/DOMAIN/METHOD/TIME)", metavar="DIR")] = (
        None
    )
    resume: Annotated[Path | None, Option("run to continue, with its own settings", metavar="RUN")] = None
    dry_run: Annotated[bool, Option("check everything, print the settings, train nothing")] = False


@dataclass(frozen=True)
class ExportOptions(Direction):
    """What file a generator is exported to."""

    format: Annotated[ExportFormat, Option("of the file")] = field(kw_only=True)
    precision: Annotated[ExportPrecision, Option("of the weights")] = "float32"
    pixels: Annotated[
        Literal["uint8", "float"],
        Option("RGB images in and out, (n, 3, h, w): 0 to 255, or float32 of 0 to 1"),
    ] = "uint8"
    calibrate: Annotated[
        Path | None,
        Option(
            "images that set int8's scales (default: the run's training images, or the demo world's)",
            metavar="FOLDER",
        ),
    ] = None


@dataclass(frozen=True)
class ImportOptions(Options):
    """What the imported file says about its generator."""

    direction: Annotated[str | None, Option("default: ba for *_net_G_B, otherwise ab", metavar="ab|ba")] = (
        None
    )
    load_size: Annotated[int | None, Option("scale it was trained at", POSITIVE, "PIXELS")] = None
    crop_size: Annotated[int | None, Option("side of its training crops", POSITIVE, "PIXELS")] = None
    resize: Annotated[Resize | None, Option("how its training images were resized")] = None
    licence: Annotated[str | None, Option("of the weights, recorded in the file", metavar="TEXT")] = None


@dataclass(frozen=True)
class Results(Options):
    """Where a command's results are written."""

    json: Annotated[
        Path | None,
        Option("also write the results there (-: to standard output, and nothing else)", metavar="FILE"),
    ] = None


@dataclass(frozen=True)
class EvaluateOptions(Results, Computing):
    """What is compared with what, and by which protocol."""

    images: Annotated[Path | None, Option("instead of a run: images to judge", metavar="FOLDER")] = None
    reference: Annotated[Path | None, Option("and images they should look like", metavar="FOLDER")] = None
    data: Annotated[Path | None, Option("data set with test images (default: the run's)", metavar="DIR")] = (
        None
    )
    direction: Annotated[
        str | None, Option("default: every direction of the run or file", metavar="ab|ba")
    ] = None
    protocol: Annotated[
        Literal["clean", "legacy"] | None,
        Option("how images are resized: like clean-fid, or like pytorch-fid (default: the run's, or clean)"),
    ] = None
    features: Annotated[
        str,
        Option(
            "auto (the best available here), inception, inception-768, inception-192, inception-64 or random",
            metavar="NAME",
        ),
    ] = "auto"
    weights: Annotated[
        Path | None, Option("Inception weights, instead of searching for them", metavar="FILE")
    ] = None
    download: Annotated[bool, Option("download weights that are not found locally")] = False


@dataclass(frozen=True)
class BenchOptions(Results, Device):
    """What is measured."""

    rounds: Annotated[int, Option("timed steps of each kind; slow ones take 3", POSITIVE)] = 5
    compiled: Annotated[
        bool | None, Option("also measure compiled networks, which takes minutes (default: on CUDA)")
    ] = None


@dataclass(frozen=True)
class AppOptions(Computing):
    """Where the page is served, and what visitors may upload."""

    host: Annotated[
        str, Option("address to serve at; 0.0.0.0 admits everybody who can reach this machine")
    ] = "127.0.0.1"
    port: Annotated[int, Option("0: any free one", NATURAL)] = 7860
    max_upload: Annotated[int, Option("of one image's file", POSITIVE, "MB")] = 50
    max_pixels: Annotated[int, Option("of one image; 100M is 100 million", PIXELS, "N")] = 64_000_000


@dataclass(frozen=True)
class CheckOptions(Results):
    """What a data set is checked for."""

    domain: Annotated[
        str | None, Option("instead of DIR: datasets/DOMAIN, as its training would read it")
    ] = None
    method: Annotated[str, Option("whose settings apply")] = "cyclegan"
    crop_size: Annotated[
        int | None, Option("report images smaller than this (default: as trained)", POSITIVE, "PIXELS")
    ] = None


@dataclass(frozen=True)
class DemoOptions(Options):
    """What demo data set is drawn."""

    domain: Annotated[
        str | None,
        Option("instead of DIR: datasets/DOMAIN, at the size its training loads, unless it has images"),
    ] = None
    method: Annotated[str, Option("whose settings determine that size")] = "cyclegan"
    size: Annotated[int, Option("side of the images in pixels", POSITIVE)] = 256
    count: Annotated[int, Option("training images in each domain", POSITIVE)] = 400
    seed: Annotated[int, Option("another seed draws other scenes", NATURAL)] = 0


@dataclass(frozen=True)
class GetOptions(Options):
    """Where a data set goes, and what its archive may be."""

    into: Annotated[Path | None, Option("a new folder (default: datasets/NAME)", metavar="DIR")] = None
    sha256: Annotated[str | None, Option("the archive's SHA-256", metavar="HEX")] = None
    max_size: Annotated[
        int, Option("limit for the archive, and for what is extracted from it", BYTES, "SIZE")
    ] = 20 * 2**30


@dataclass(frozen=True)
class FramesOptions(Options):
    """Which frames are taken from a video."""

    every: Annotated[
        float, Option("take another frame of a long scene after this time", DURATION, "TIME")
    ] = 2.0
    size: Annotated[int | None, Option("maximum length of the shorter side", POSITIVE, "PIXELS")] = 256


@dataclass(frozen=True)
class SmoothOptions(Options):
    """How images are resized before their edges are smoothed."""

    size: Annotated[
        int | None, Option("resize the shorter side first, as data.load_size does", POSITIVE, "PIXELS")
    ] = None
