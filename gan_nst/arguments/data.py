"""The arguments of `gan-nst data`."""

import argparse
from pathlib import Path

from gan_nst.arguments.kinds import natural, positive, seconds, size


def add_data(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    data = commands.add_parser("data", help="make data sets, and check them").add_subparsers(
        title="commands", required=True, metavar="COMMAND"
    )
    _add_check(data)
    _add_demo(data)
    _add_get(data)
    _add_frames(data)
    _add_smooth(data)


def _add_check(data: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    check = data.add_parser(
        "check",
        help="look at every image before a training does: broken and small ones, duplicates, leaks, colours",
        description="Looks at every image before a training does. The exit code is 1 when something is wrong: "
        "folders that cannot be read, broken files, images smaller than the crop, test images that are trained on, "
        "one image in both domains.",
    )
    check.add_argument(
        "folder", type=Path, nargs="?", metavar="DIR", help="data set, or a plain folder of images"
    )
    check.add_argument("--domain", help="instead of DIR: datasets/DOMAIN, as its training would read it")
    check.add_argument("--method", default="cyclegan", help="whose settings hold (default: cyclegan)")
    check.add_argument(
        "--crop-size",
        type=positive,
        metavar="PIXELS",
        help="smaller images are too small (default: as trained)",
    )
    check.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write all of it there, with every file's name (-: to standard output, alone)",
    )
    check.set_defaults(command="data check")


def _add_demo(data: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    demo = data.add_parser("demo", help="draw the demo world: photographs and cartoons of made-up scenes")
    demo.add_argument("folder", type=Path, nargs="?", metavar="DIR")
    demo.add_argument(
        "--domain", help="instead of DIR: datasets/DOMAIN, at the size its training loads, if it has none"
    )
    demo.add_argument(
        "--method", default="cyclegan", help="whose settings tell that size (default: cyclegan)"
    )
    demo.add_argument(
        "--size", type=positive, default=256, help="side of the images in pixels (default: 256)"
    )
    demo.add_argument(
        "--count", type=positive, default=400, help="training images of each domain (default: 400)"
    )
    demo.add_argument("--seed", type=natural, default=0, help="other scenes for another seed (default: 0)")
    demo.set_defaults(command="data demo")


def _add_get(data: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    get = data.add_parser("get", help="fetch a data set: a well-known one by its name, or any archive")
    get.add_argument(
        "source",
        nargs="?",
        metavar="NAME|ADDRESS|FILE",
        help="a known set, or the http(s) address or path of a zip or tar (default: list the known sets)",
    )
    get.add_argument("--into", type=Path, metavar="DIR", help="a new folder (default: datasets/NAME)")
    get.add_argument("--sha256", metavar="HEX", help="what the archive's SHA-256 must be")
    get.add_argument(
        "--max-size",
        type=size,
        default="20GiB",
        metavar="SIZE",
        help="largest archive, and most that may come out of it (default: 20GiB)",
    )
    get.set_defaults(command="data get")


def _add_frames(data: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    frames = data.add_parser("frames", help="take stills from a video, without duplicates, black and credits")
    frames.add_argument("video", type=Path, metavar="VIDEO")
    frames.add_argument("folder", type=Path, metavar="DIR", help="where the stills go; it may hold others")
    frames.add_argument(
        "--every",
        type=seconds,
        default=2.0,
        metavar="TIME",
        help="another still of a long scene (default: 2s)",
    )
    frames.add_argument(
        "--size", type=positive, default=256, metavar="PIXELS", help="shorter side, at most (default: 256)"
    )
    frames.set_defaults(command="data frames")


def _add_smooth(data: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    smooth = data.add_parser("smooth", help="write edge-smoothed images, CartoonGAN's negatives, to look at")
    smooth.add_argument("folder", type=Path, metavar="DIR", help="image or folder")
    smooth.add_argument("output", type=Path, metavar="OUT", help="folder; the same tree, as PNG")
    smooth.add_argument(
        "--size",
        type=positive,
        metavar="PIXELS",
        help="resize the shorter side first, as data.load_size does",
    )
    smooth.set_defaults(command="data smooth")
