"""What may be typed on the command line. Torch is imported by the commands, not here."""

import argparse
import re
from fractions import Fraction
from pathlib import Path

from gan_nst import __version__


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; the namespace it makes names the `command` to run."""
    parser = argparse.ArgumentParser(prog="gan-nst", description="Unpaired picture translation with GANs.")
    parser.add_argument("--version", action="version", version=f"gan-nst {__version__}")
    parser.add_argument("--quiet", action="store_true", help="only warnings and errors")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a translator, or go on training one")
    train.add_argument(
        "arguments",
        nargs="*",
        metavar="CONFIG.yaml|section.key=value",
        help="a settings file, then overrides of its settings",
    )
    train.add_argument(
        "--domain", help="data set datasets/DOMAIN with experiments/DOMAIN/METHOD.yaml, or the default one"
    )
    train.add_argument("--method", help="method, with --domain (default: cyclegan)")
    train.add_argument("--out", type=Path, help="run folder (default: runs/DOMAIN/METHOD/TIME)")
    train.add_argument("--resume", type=Path, metavar="RUN", help="run to go on with; its settings hold")
    train.add_argument(
        "--dry-run", action="store_true", help="check everything, print the settings, train nothing"
    )
    train.set_defaults(command="train")

    _add_translate(commands)
    _add_evaluate(commands)
    _add_import(commands)
    _add_export(commands)

    curves = commands.add_parser("curves", help="draw the curves of runs, and say what is wrong with them")
    curves.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    curves.add_argument("--out", type=Path, metavar="FILE.png", help="default: curves.png in the first run")
    curves.set_defaults(command="curves")

    _add_app(commands)
    _add_bench(commands)

    data = commands.add_parser("data", help="make data sets").add_subparsers(
        title="commands", required=True, metavar="COMMAND"
    )
    demo = data.add_parser("demo", help="draw the demo world: photographs and cartoons of made-up scenes")
    demo.add_argument("folder", type=Path, nargs="?", metavar="DIR")
    demo.add_argument(
        "--domain", help="instead of DIR: datasets/DOMAIN, at the size its training loads, if it has none"
    )
    demo.add_argument(
        "--method", default="cyclegan", help="whose settings tell that size (default: cyclegan)"
    )
    demo.add_argument(
        "--size", type=_positive, default=256, help="side of the pictures in pixels (default: 256)"
    )
    demo.add_argument(
        "--count", type=_positive, default=400, help="training pictures of each domain (default: 400)"
    )
    demo.add_argument("--seed", type=_natural, default=0, help="other scenes for another seed (default: 0)")
    demo.set_defaults(command="data demo")

    frames = data.add_parser("frames", help="take stills from a film, without duplicates, black and credits")
    frames.add_argument("film", type=Path, metavar="FILM")
    frames.add_argument("folder", type=Path, metavar="DIR", help="where the stills go; it may hold others")
    frames.add_argument(
        "--every",
        type=_seconds,
        default=2.0,
        metavar="TIME",
        help="another still of a long scene (default: 2s)",
    )
    frames.add_argument(
        "--size", type=_positive, default=256, metavar="PIXELS", help="shorter side, at most (default: 256)"
    )
    frames.set_defaults(command="data frames")
    smooth = data.add_parser(
        "smooth", help="write edge-smoothed pictures, CartoonGAN's negatives, to look at"
    )
    smooth.add_argument("folder", type=Path, metavar="DIR", help="picture or folder")
    smooth.add_argument("output", type=Path, metavar="OUT", help="folder; the same tree, as PNG")
    smooth.add_argument(
        "--size",
        type=_positive,
        metavar="PIXELS",
        help="resize the shorter side first, as data.load_size does",
    )
    smooth.set_defaults(command="data smooth")

    methods = commands.add_parser("methods", help="list the methods, their papers and all settings")
    methods.set_defaults(command="methods")
    return parser


def _add_translate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    translate = commands.add_parser("translate", help="translate a picture or a folder of pictures")
    translate.add_argument(
        "source", type=Path, metavar="RUN|FILE", help="run, or .safetensors, .onnx or .pt2"
    )
    translate.add_argument("input", type=Path, metavar="INPUT", help="picture, film or folder")
    translate.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="OUT",
        help="folder, which gets the same tree; for one picture a file's name will do",
    )
    translate.add_argument("--direction", metavar="ab|ba", help="default: ab, or the only one the file has")
    translate.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")
    translate.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"])

    files = translate.add_argument_group("files")
    files.add_argument(
        "--format",
        choices=["png", "jpeg", "webp", "tiff", "avif", "same"],
        help="same: the input's, where it is one of these (default: png)",
    )
    files.add_argument("--suffix", default="", metavar="TEXT", help="added to names: _cartoon, for example")
    files.add_argument(
        "--quality", type=_percent, default=92, help="of JPEG, WebP and AVIF, 1 to 100 (default: 92)"
    )
    files.add_argument(
        "--chroma",
        choices=["4:4:4", "4:2:2", "4:2:0"],
        default="4:4:4",
        help="colour resolution of JPEG and AVIF (default: 4:4:4, the full one)",
    )
    files.add_argument(
        "--resume", action="store_true", help="skip pictures whose output is there and no older"
    )
    files.add_argument(
        "--max-pixels",
        type=_count,
        default="512M",
        metavar="N",
        help="refuse larger pictures; 600M is 600 million (default: 512M)",
    )

    look = translate.add_argument_group("look")
    look.add_argument(
        "--preserve-color",
        choices=["none", "luma", "statistics"],
        default="none",
        help="keep the input's colours: luma changes brightness alone, statistics keeps means and spreads",
    )
    look.add_argument(
        "--strength", type=_share, default=1.0, help="0 is the input, 1 the translation (default: 1)"
    )
    look.add_argument(
        "--scale",
        type=_part,
        default=1.0,
        help="work at this part of the size, and carry the detail back (default: 1)",
    )

    large = translate.add_argument_group("large pictures")
    large.add_argument(
        "--memory",
        type=_bytes,
        default="1.5GiB",
        metavar="SIZE",
        help="what the network may use; larger pictures are translated in parts, with the same result (default: "
        "1.5GiB)",
    )
    large.add_argument("--fast", action="store_true", help="those parts approximately, in less time")
    large.add_argument(
        "--scratch", type=Path, metavar="DIR", help="for their scratch file (default: the system's)"
    )
    _add_film_options(translate)
    translate.set_defaults(command="translate")


def _add_film_options(translate: argparse.ArgumentParser) -> None:
    films = translate.add_argument_group(
        "films", "INPUT or OUT may be a film (.mp4 .mov .mkv .webm .avi); else OUT is a folder for its frames"
    )
    films.add_argument(
        "--crf", type=_natural, default=18, help="quality, 0 (best) to 51 (default: 18, near the original)"
    )
    films.add_argument("--every", type=_positive, default=1, metavar="N", help="keep each N-th frame alone")
    films.add_argument(
        "--start", type=_moment, default=0.0, metavar="TIME", help="1:30, 90 or 2s, for example"
    )
    films.add_argument("--end", type=_moment, metavar="TIME", help="by the same clock")
    films.add_argument("--frames", action="store_true", help="a folder's pictures are a film's frames")
    films.add_argument("--fps", type=_rate, default="25", help="of a film made from a folder (default: 25)")
    films.add_argument(
        "--window",
        type=_positive,
        default=8,
        metavar="N",
        help="frames that share statistics, against flicker; 1: none do (default: 8)",
    )
    films.add_argument(
        "--smooth", action="store_true", help="follow what moves from frame to frame, against flicker"
    )


def _add_evaluate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    evaluate = commands.add_parser(
        "evaluate", help="tell how good a run, a generator or a folder of pictures is"
    )
    evaluate.add_argument("source", type=Path, nargs="?", metavar="RUN|FILE.safetensors")
    evaluate.add_argument(
        "--pictures", type=Path, metavar="FOLDER", help="instead of a run: pictures to judge"
    )
    evaluate.add_argument("--reference", type=Path, metavar="FOLDER", help="and what they should look like")
    evaluate.add_argument(
        "--data", type=Path, metavar="DIR", help="data set with test pictures (default: the run's)"
    )
    evaluate.add_argument("--direction", metavar="ab|ba", help="default: all that the run or file has")
    evaluate.add_argument(
        "--protocol",
        choices=["clean", "legacy"],
        help="how pictures are resized: clean as clean-fid does (default, unless the run has another), legacy as "
        "pytorch-fid does",
    )
    evaluate.add_argument(
        "--features",
        default="auto",
        metavar="NAME",
        help="auto (the best that lies here), inception, inception-768, inception-192, inception-64 or random",
    )
    evaluate.add_argument(
        "--weights", type=Path, metavar="FILE", help="Inception weights, instead of looking for them"
    )
    evaluate.add_argument("--download", action="store_true", help="fetch weights that lie nowhere")
    evaluate.add_argument(
        "--json", type=Path, metavar="FILE", help="write the scores and their protocol there"
    )
    evaluate.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")
    evaluate.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"])
    evaluate.set_defaults(command="evaluate")


def _add_bench(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    bench = commands.add_parser("bench", help="measure how fast this machine trains, loads and translates")
    bench.add_argument(
        "arguments",
        nargs="*",
        metavar="CONFIG.yaml|section.key=value",
        help="a training whose step is measured too: a settings file, then overrides of its settings",
    )
    bench.add_argument("--json", type=Path, metavar="FILE", help="where to write all of it, to be compared")
    bench.add_argument(
        "--rounds",
        type=_positive,
        default=5,
        help="timed steps of each kind (default: 5; slow ones take 3)",
    )
    bench.add_argument(
        "--compiled",
        action=argparse.BooleanOptionalAction,
        help="measure compiled networks too, which takes minutes more (default: on CUDA)",
    )
    bench.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")
    bench.set_defaults(command="bench")


def _add_import(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    adopt = commands.add_parser(
        "import", help="turn a generator that another project published into one to translate with"
    )
    adopt.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help="weights of a CartoonGAN generator, or of a ResNet one of pytorch-CycleGAN-and-pix2pix (*_net_G*.pth)",
    )
    adopt.add_argument("output", type=Path, metavar="OUT.safetensors")
    adopt.add_argument("--direction", metavar="ab|ba", help="default: ba for *_net_G_B, else ab")
    adopt.add_argument("--load-size", type=_positive, metavar="PIXELS", help="scale it was trained at")
    adopt.add_argument("--crop-size", type=_positive, metavar="PIXELS", help="side of its training crops")
    adopt.add_argument("--resize", choices=["short_side", "squash", "none"], help="how pictures were resized")
    adopt.add_argument("--licence", metavar="TEXT", help="that of the weights, for the file to tell")
    adopt.set_defaults(command="import")


def _add_app(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    app = commands.add_parser("app", help="show a page in the browser to try translators on pictures")
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
    app.add_argument("--port", type=_natural, default=7860, help="0 for any free one (default: 7860)")
    app.add_argument(
        "--max-upload", type=_positive, default=50, metavar="MB", help="of one picture's file (default: 50)"
    )
    app.add_argument(
        "--max-pixels",
        type=_positive,
        default=64,
        metavar="MEGAPIXELS",
        help="of one picture (default: 64)",
    )
    app.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")
    app.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"])
    app.set_defaults(command="app")


def _add_export(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    export = commands.add_parser(
        "export",
        help="write a generator into a file that other programs run, and check that it does the same",
        description="Writes a generator into a file that other programs run, for pictures of any size from 1x1, runs the "
        "file, and compares it with `translate`: in float32 no value may differ by more than 1/255. There are onnx in "
        "float32, float16 and int8, pt2 (a program of torch.export) in float32 and float16, and safetensors (weights for "
        "gan-nst itself) in float32 and float16. For pt2 and safetensors, float16 halves the file alone.",
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
        help="RGB pictures in and out, (n, 3, h, w): 0 to 255 (default), or float32 of 0 to 1",
    )
    export.add_argument(
        "--calibrate",
        type=Path,
        metavar="FOLDER",
        help="pictures that set int8's scales (default: the run's training pictures, else the demo world's)",
    )
    export.set_defaults(command="export")


def _positive(text: str) -> int:
    return _whole(text, 1)


def _natural(text: str) -> int:
    return _whole(text, 0)


def _percent(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to 100, got {text!r}")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return value


def _part(text: str) -> float:
    if (value := _share(text)) == 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0 and up to 1, got {text!r}")
    return value


def _count(text: str) -> int:
    """12000, 600M: pixels, decimal."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]?)", text, re.I)
    if found is None or (count := int(float(found[1]) * 1000 ** " KMG".index(found[2].upper() or " "))) < 1:
        raise argparse.ArgumentTypeError(f"expected a number such as 600M, got {text!r}")
    return count


def _bytes(text: str) -> int:
    """1.5GiB, 800M and 2g are binary, 1500MB is decimal."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt])(i?b)?", text, re.I)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected a size such as 1.5GiB or 800M, got {text!r}")
    unit = 1000 if (found[3] or "").lower() == "b" else 1024
    return int(float(found[1]) * unit ** " KMGT".index(found[2].upper()))


def _moment(text: str) -> float:
    from gan_nst.data.film import moment

    try:
        return moment(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _rate(text: str) -> Fraction:
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= 1000:
        raise argparse.ArgumentTypeError(
            f"expected frames a second, 25 or 24000/1001, for example, got {text!r}"
        )
    return rate


def _seconds(text: str) -> float:
    from gan_nst.data.film import seconds

    try:
        return seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _whole(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text!r}")
    return int(text)
