"""What may be typed on the command line. Torch is imported by the commands, not here."""

import argparse
from pathlib import Path

from gan_nst.arguments.data import add_data
from gan_nst.arguments.generators import add_app, add_export, add_translate
from gan_nst.arguments.kinds import positive
from gan_nst.core.version import __version__


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; the namespace it makes names the `command` to run."""
    parser = argparse.ArgumentParser(prog="gan-nst", description="Unpaired image translation with GANs.")
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

    add_translate(commands)
    _add_evaluate(commands)
    _add_import(commands)
    add_export(commands)

    curves = commands.add_parser("curves", help="draw the curves of runs, and say what is wrong with them")
    curves.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    curves.add_argument("--out", type=Path, metavar="FILE.png", help="default: curves.png in the first run")
    curves.set_defaults(command="curves")

    add_app(commands)
    _add_bench(commands)

    add_data(commands)

    methods = commands.add_parser("methods", help="list the methods, their papers and all settings")
    methods.set_defaults(command="methods")
    return parser


def _add_evaluate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    evaluate = commands.add_parser(
        "evaluate", help="tell how good a run, a generator or a folder of images is"
    )
    evaluate.add_argument("source", type=Path, nargs="?", metavar="RUN|FILE.safetensors")
    evaluate.add_argument("--images", type=Path, metavar="FOLDER", help="instead of a run: images to judge")
    evaluate.add_argument("--reference", type=Path, metavar="FOLDER", help="and what they should look like")
    evaluate.add_argument(
        "--data", type=Path, metavar="DIR", help="data set with test images (default: the run's)"
    )
    evaluate.add_argument("--direction", metavar="ab|ba", help="default: all that the run or file has")
    evaluate.add_argument(
        "--protocol",
        choices=["clean", "legacy"],
        help="how images are resized: clean as clean-fid does (default, unless the run has another), legacy as "
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
        "--json",
        type=Path,
        metavar="FILE",
        help="write the scores and their protocol there (-: to standard output, alone)",
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
    bench.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="where to write all of it, to be compared (-: to standard output, alone)",
    )
    bench.add_argument(
        "--rounds",
        type=positive,
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
    adopt.add_argument("--load-size", type=positive, metavar="PIXELS", help="scale it was trained at")
    adopt.add_argument("--crop-size", type=positive, metavar="PIXELS", help="side of its training crops")
    adopt.add_argument("--resize", choices=["short_side", "squash", "none"], help="how images were resized")
    adopt.add_argument("--licence", metavar="TEXT", help="that of the weights, for the file to tell")
    adopt.set_defaults(command="import")
