"""The command line: parses, calls a command, prints, exits. Torch is imported by the commands, not here."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from gan_nst import __version__, progress
from gan_nst.errors import GanNstError, SettingsError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code: 0 done, 1 done in part, 2 a mistake in what was given."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    # argparse takes a command's free arguments only in one piece; those after an option arrive here.
    if any(text.startswith("-") for text in rest) or (rest and not hasattr(options, "arguments")):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.arguments += rest
    _print_logs(options.quiet)
    progress.show(not options.quiet)
    try:
        return int(options.run(options))
    except GanNstError as error:
        print(f"gan-nst: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("gan-nst: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 141


def _train(options: argparse.Namespace) -> int:
    from gan_nst.commands.train import train

    config, overrides = _split(options.arguments)
    train(
        config,
        overrides,
        domain=options.domain,
        method=options.method,
        out=options.out,
        resume=options.resume,
        dry_run=options.dry_run,
    )
    return 0


def _translate(options: argparse.Namespace) -> int:
    from gan_nst.commands.translate import translate

    outcome = translate(
        options.source,
        options.input,
        options.output,
        direction=options.direction,
        device=options.device,
        precision=options.precision,
    )
    if outcome.failures:
        print(f"gan-nst: {len(outcome.failures)} pictures could not be translated", file=sys.stderr)
    return 1 if outcome.failures else 0


def _import(options: argparse.Namespace) -> int:
    from gan_nst.commands.adopt import import_generator

    import_generator(
        options.source,
        options.output,
        direction=options.direction,
        load_size=options.load_size,
        crop_size=options.crop_size,
        resize=options.resize,
        licence=options.licence,
    )
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from gan_nst.commands.evaluate import evaluate

    evaluate(
        options.source,
        pictures=options.pictures,
        reference=options.reference,
        data=options.data,
        direction=options.direction,
        protocol=options.protocol,
        features=options.features,
        weights=options.weights,
        download=options.download,
        json=options.json,
        device=options.device,
        precision=options.precision,
    )
    return 0


def _curves(options: argparse.Namespace) -> int:
    from gan_nst.commands.curves import curves

    curves(options.runs, out=options.out)
    return 0


def _data_demo(options: argparse.Namespace) -> int:
    from gan_nst.commands.data import data_demo, demo_for_training

    if options.domain is not None:
        demo_for_training(options.domain, options.method)
    elif options.folder is not None:
        data_demo(options.folder, size=options.size, count=options.count, seed=options.seed)
    else:
        raise SettingsError("nowhere to draw: give a folder, or --domain NAME")
    return 0


def _data_frames(options: argparse.Namespace) -> int:
    from gan_nst.commands.data import data_frames

    data_frames(options.film, options.folder, every=options.every, size=options.size)
    return 0


def _data_smooth(options: argparse.Namespace) -> int:
    from gan_nst.commands.data import data_smooth

    data_smooth(options.folder, options.output, size=options.size)
    return 0


def _methods(options: argparse.Namespace) -> int:
    from gan_nst.commands.methods import describe_methods

    print(describe_methods())
    return 0


def _parser() -> argparse.ArgumentParser:
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
    train.set_defaults(run=_train)

    translate = commands.add_parser("translate", help="translate a picture or a folder of pictures")
    translate.add_argument("source", type=Path, metavar="RUN|FILE.safetensors")
    translate.add_argument("input", type=Path, metavar="INPUT", help="picture or folder")
    translate.add_argument(
        "--output", type=Path, required=True, metavar="OUT", help="folder; the same tree, as PNG"
    )
    translate.add_argument("--direction", metavar="ab|ba", help="default: ab, or the only one the file has")
    translate.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")
    translate.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"])
    translate.set_defaults(run=_translate)

    _add_evaluate(commands)
    _add_import(commands)

    curves = commands.add_parser("curves", help="draw the curves of runs, and say what is wrong with them")
    curves.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    curves.add_argument("--out", type=Path, metavar="FILE.png", help="default: curves.png in the first run")
    curves.set_defaults(run=_curves)

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
    demo.set_defaults(run=_data_demo)

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
    frames.set_defaults(run=_data_frames)
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
    smooth.set_defaults(run=_data_smooth)

    methods = commands.add_parser("methods", help="list the methods, their papers and all settings")
    methods.set_defaults(run=_methods)
    return parser


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
    evaluate.set_defaults(run=_evaluate)


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
    adopt.set_defaults(run=_import)


def _split(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The settings file, if the first argument is none of `key=value`, and the overrides."""
    if arguments and "=" not in arguments[0]:
        return arguments[0], list(arguments[1:])
    return None, list(arguments)


def _positive(text: str) -> int:
    return _whole(text, 1)


def _natural(text: str) -> int:
    return _whole(text, 0)


def _seconds(text: str) -> float:
    from gan_nst.data.frames import seconds

    try:
        return seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _whole(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text!r}")
    return int(text)


class _Output(logging.StreamHandler[TextIO]):
    """Standard output, until its reader has gone (`| head`); the work goes on."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            logging.getLogger("gan_nst").removeHandler(self)
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (Python flushes it when it exits)
        else:
            super().handleError(record)


def _print_logs(quiet: bool) -> None:
    """Progress goes to standard output as it is; warnings and errors to standard error, named."""
    out, err = _Output(sys.stdout), logging.StreamHandler(sys.stderr)
    out.addFilter(lambda record: record.levelno < logging.WARNING)
    err.setLevel(logging.WARNING)
    err.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logging.addLevelName(logging.WARNING, "warning")
    logging.addLevelName(logging.ERROR, "error")
    root = logging.getLogger("gan_nst")
    root.handlers = [out, err]
    root.setLevel(logging.WARNING if quiet else logging.INFO)
