"""The arguments of the commands that use a generator: translate, export, app."""

import argparse
from pathlib import Path

from gan_nst.arguments.kinds import count, moment, natural, part, percent, positive, rate, share, size

# What is not given is no attribute: translate has its own default, and refuses what is given but would do nothing.
_UNSAID = argparse.SUPPRESS


def add_translate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    translate = commands.add_parser("translate", help="translate an image, a video, or a folder of images")
    translate.add_argument(
        "source", type=Path, metavar="RUN|FILE", help="run, checkpoint, or .safetensors, .onnx or .pt2"
    )
    translate.add_argument("input", type=Path, metavar="INPUT", help="image, video or folder")
    translate.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="OUT",
        help="folder, which gets the same tree; for one image a file's name will do",
    )
    translate.add_argument("--direction", metavar="ab|ba", help="default: ab, or the only one the file has")
    translate.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")
    translate.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"])

    files = translate.add_argument_group("files")
    files.add_argument(
        "--format",
        choices=["png", "jpeg", "webp", "tiff", "avif", "same"],
        default=_UNSAID,
        help="same: the input's, where it is one of these (default: png)",
    )
    files.add_argument(
        "--suffix", default=_UNSAID, metavar="TEXT", help="added to names: _cartoon, for example"
    )
    files.add_argument(
        "--quality", type=percent, default=_UNSAID, help="of JPEG, WebP and AVIF, 1 to 100 (default: 92)"
    )
    files.add_argument(
        "--chroma",
        choices=["4:4:4", "4:2:2", "4:2:0"],
        default=_UNSAID,
        help="colour resolution of JPEG and AVIF (default: 4:4:4, the full one)",
    )
    files.add_argument("--resume", action="store_true", help="skip images whose output is there and no older")
    files.add_argument(
        "--max-pixels",
        type=count,
        default="512M",
        metavar="N",
        help="refuse larger images; 600M is 600 million (default: 512M)",
    )

    look = translate.add_argument_group("look")
    look.add_argument(
        "--preserve-color",
        choices=["none", "luma", "statistics"],
        default="none",
        help="keep the input's colours: luma changes brightness alone, statistics keeps means and spreads",
    )
    look.add_argument(
        "--strength", type=share, default=1.0, help="0 is the input, 1 the translation (default: 1)"
    )
    look.add_argument(
        "--scale",
        type=part,
        default=1.0,
        help="work at this part of the size, and carry the detail back (default: 1)",
    )

    large = translate.add_argument_group("large images")
    large.add_argument(
        "--memory",
        type=size,
        default="1.5GiB",
        metavar="SIZE",
        help="what the network may use; larger images are translated in parts, with the same result (default: "
        "1.5GiB)",
    )
    large.add_argument(
        "--scratch", type=Path, metavar="DIR", help="for their scratch file (default: the system's)"
    )
    _add_video_options(translate)
    translate.set_defaults(command="translate")


def _add_video_options(translate: argparse.ArgumentParser) -> None:
    videos = translate.add_argument_group(
        "videos",
        "INPUT or OUT may be a video (.mp4 .mov .mkv .webm .avi); else OUT is a folder for its frames",
    )
    videos.add_argument(
        "--crf",
        type=natural,
        default=_UNSAID,
        help="quality, 0 (best) to 51 (default: 18, near the original)",
    )
    videos.add_argument(
        "--every", type=positive, default=_UNSAID, metavar="N", help="keep each N-th frame alone"
    )
    videos.add_argument(
        "--start", type=moment, default=_UNSAID, metavar="TIME", help="1:30, 90 or 2s, for example"
    )
    videos.add_argument("--end", type=moment, default=_UNSAID, metavar="TIME", help="by the same clock")
    videos.add_argument("--frames", action="store_true", help="a folder's images are a video's frames")
    videos.add_argument(
        "--fps", type=rate, default=_UNSAID, help="of a video made from a folder (default: 25)"
    )
    videos.add_argument(
        "--window",
        type=positive,
        default=_UNSAID,
        metavar="N",
        help="frames that share statistics, against flicker; 1: none do (default: 8)",
    )
    videos.add_argument(
        "--smooth",
        action="store_true",
        default=_UNSAID,
        help="follow what moves from frame to frame, against flicker",
    )


def add_export(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    export = commands.add_parser(
        "export",
        help="write a generator into a file that other programs run, and check that it does the same",
        description="Writes a generator into a file that other programs run, for images of any size from 1x1, runs "
        "the file, and compares it with `translate`: in float32 no value may differ by more than 1/255. There are onnx "
        "in float32, float16 and int8, pt2 (a program of torch.export) in float32 and float16, and safetensors "
        "(weights for gan-nst itself) in float32 and float16. For pt2 and safetensors, float16 halves the file alone.",
    )
    export.add_argument("source", type=Path, metavar="RUN|FILE", help="run, checkpoint or generator's file")
    export.add_argument("--to", required=True, choices=["onnx", "pt2", "safetensors"])
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="its suffix says the same")
    export.add_argument("--precision", default="float32", choices=["float32", "float16", "int8"])
    export.add_argument("--direction", metavar="ab|ba", help="default: ab, or the only one the file has")
    export.add_argument(
        "--pixels",
        default="uint8",
        choices=["uint8", "float"],
        help="RGB images in and out, (n, 3, h, w): 0 to 255 (default), or float32 of 0 to 1",
    )
    export.add_argument(
        "--calibrate",
        type=Path,
        metavar="FOLDER",
        help="images that set int8's scales (default: the run's training images, else the demo world's)",
    )
    export.set_defaults(command="export")


def add_app(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    app = commands.add_parser("app", help="show a page in the browser to try translators on images")
    app.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN|FILE|DIR",
        help="runs, checkpoints and generators to choose from, or folders with such, runs/DOMAIN for example",
    )
    app.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to serve at; 0.0.0.0 is for everybody who reaches this machine (default: 127.0.0.1)",
    )
    app.add_argument("--port", type=natural, default=7860, help="0 for any free one (default: 7860)")
    app.add_argument(
        "--max-upload", type=positive, default=50, metavar="MB", help="of one image's file (default: 50)"
    )
    app.add_argument(
        "--max-pixels",
        type=count,
        default="64M",
        metavar="N",
        help="of one image; 100M is 100 million (default: 64M)",
    )
    app.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")
    app.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"])
    app.set_defaults(command="app")
