"""The command line: parses, calls a command, prints, exits. Torch is imported by the commands, not here."""

import argparse
import json
import math
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from gan_nst.core import options as o
from gan_nst.core.errors import GanNstError, one_line
from gan_nst.core.terminal import configure_logging, show_progress
from gan_nst.core.version import __version__

Given = TypeVar("Given", bound=o.Options)

_SOURCE = "run, checkpoint, or .safetensors, .onnx or .pt2 file"
_OVERRIDES = "CONFIG.yaml|section.key=value"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code: 0 done, 1 done in part, 2 a mistake in what was given."""
    parser = make_parser()
    given, rest = parser.parse_known_args(arguments)
    # argparse takes a command's free arguments only in one piece; those after an option arrive here.
    if any(text.startswith("-") for text in rest) or (rest and not hasattr(given, "arguments")):
        parser.error(one_line(f"unrecognized arguments: {' '.join(rest)}"))
    if rest:
        given.arguments += rest
    configure_logging(given.quiet or _prints_json(given))
    show_progress(not given.quiet)
    try:
        return int(given.run(given) or 0)
    except GanNstError as error:
        print(f"gan-nst: {one_line(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("gan-nst: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 141


def make_parser() -> ArgumentParser:
    """The parser of the whole command line; what it returns has the command's function as `run`."""
    parser = ArgumentParser(prog="gan-nst", description="Unpaired image translation with GANs.")
    parser.add_argument("--version", action="version", version=f"gan-nst {__version__}")
    parser.add_argument("--quiet", action="store_true", help="only warnings and errors")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    train = _add(commands, "train", _train, o.TrainOptions, "train a translator, or resume training")
    train.add_argument(
        "arguments", nargs="*", metavar=_OVERRIDES, help="a settings file, then overrides of its settings"
    )

    translate = _add(
        commands,
        "translate",
        _translate,
        o.TranslateOptions,
        "translate an image, a video, or a folder of images",
    )
    translate.add_argument("source", type=Path, metavar="RUN|FILE", help=_SOURCE)
    translate.add_argument("input", type=Path, metavar="INPUT", help="image, video or folder")
    translate.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="OUT",
        help="folder, which gets the same tree; for one image or a video also a file (.mp4 .mov .mkv .webm .avi)",
    )

    evaluate = _add(
        commands,
        "evaluate",
        _evaluate,
        o.EvaluateOptions,
        "measure how good a run, generator or folder of images is",
    )
    evaluate.add_argument("source", type=Path, nargs="?", default=None, metavar="RUN|FILE.safetensors")

    import_ = _add(
        commands, "import", _import, o.ImportOptions, "convert a generator published by another project"
    )
    import_.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help="weights of a CartoonGAN generator, or of a ResNet generator of pytorch-CycleGAN-and-pix2pix "
        "(*_net_G*.pth)",
    )
    import_.add_argument("output", type=Path, metavar="OUT.safetensors")

    export = _add(
        commands,
        "export",
        _export,
        o.ExportOptions,
        "write a generator to a file that other programs run, and verify it",
        "Writes a generator to a file that other programs run, for images of any size from 1x1, runs the file, and "
        "compares it with `translate`: in float32 no value may differ by more than 1/255. Available are onnx in "
        "float32, float16 and int8, pt2 (a torch.export program) in float32 and float16, and safetensors (weights for "
        "gan-nst itself) in float32 and float16. For pt2 and safetensors, float16 only halves the file.",
    )
    export.add_argument("source", type=Path, metavar="RUN|FILE", help=_SOURCE)
    export.add_argument("--output", type=Path, required=True, metavar="FILE", help="with the format's suffix")

    curves = _add(commands, "curves", _curves, o.Options, "draw the curves of runs, and diagnose them")
    curves.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    curves.add_argument(
        "--output", type=Path, default=None, metavar="FILE.png", help="default: curves.png in the first run"
    )

    app = _add(
        commands, "app", _app, o.AppOptions, "serve a page in the browser to try translators on images"
    )
    app.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN|FILE|DIR",
        help="runs, checkpoints and generators to choose from, or folders of them, for example runs/DOMAIN",
    )

    bench = _add(
        commands,
        "bench",
        _bench,
        o.BenchOptions,
        "measure how fast this machine trains, loads and translates",
    )
    bench.add_argument(
        "arguments",
        nargs="*",
        metavar=_OVERRIDES,
        help="also measure the step of this training: a settings file, then overrides of its settings",
    )

    _add(commands, "methods", _methods, o.Options, "list the methods, their papers and all settings")

    data = commands.add_parser("data", help="make and check data sets").add_subparsers(
        title="commands", required=True, metavar="COMMAND"
    )

    check = _add(
        data,
        "check",
        _data_check,
        o.CheckOptions,
        "look at every image before training does: broken or small ones, duplicates, leaks, colours",
        "Looks at every image before training does. The exit code is 1 when something is wrong: unreadable folders, "
        "broken files, images smaller than the crop, test images that are trained on, one image in both domains.",
    )
    check.add_argument(
        "folder",
        type=Path,
        nargs="?",
        default=None,
        metavar="DIR",
        help="data set, or a plain folder of images",
    )

    demo = _add(
        data,
        "demo",
        _data_demo,
        o.DemoOptions,
        "draw the demo world: photographs and cartoons of made-up scenes",
    )
    demo.add_argument("folder", type=Path, nargs="?", default=None, metavar="DIR")

    get = _add(
        data, "get", _data_get, o.GetOptions, "fetch a data set: a well-known one by its name, or any archive"
    )
    get.add_argument(
        "source",
        nargs="?",
        default=None,
        metavar="NAME|ADDRESS|FILE",
        help="a known set, or the http(s) address or path of a zip or tar (default: list the known sets)",
    )

    frames = _add(
        data,
        "frames",
        _data_frames,
        o.FramesOptions,
        "take stills from a video, without duplicates, black and credits",
    )
    frames.add_argument("video", type=Path, metavar="VIDEO")
    frames.add_argument("folder", type=Path, metavar="DIR", help="where the stills go; it may hold others")

    smooth = _add(
        data,
        "smooth",
        _data_smooth,
        o.SmoothOptions,
        "write edge-smoothed images, CartoonGAN's negatives, for inspection",
    )
    smooth.add_argument("folder", type=Path, metavar="DIR", help="image or folder")
    smooth.add_argument("output", type=Path, metavar="OUT", help="folder; the same tree, as PNG")
    return parser


def _add(
    commands: "argparse._SubParsersAction[ArgumentParser]",
    name: str,
    run: Callable[[Namespace], int | None],
    options: type[o.Options],
    help: str,
    about: str | None = None,
) -> ArgumentParser:
    """Adds a command with its options; what has no option is left to the caller."""
    command = commands.add_parser(name, help=help, description=about, argument_default=argparse.SUPPRESS)
    _add_options(command, options)
    command.set_defaults(run=run)
    return command


def _add_options(parser: ArgumentParser, options: type[o.Options]) -> None:
    """Adds an argument for every field. Those that were not typed are missing from what is parsed."""
    groups: dict[str | None, Any] = {None: parser}
    for one in o.declared_in(options).values():
        option = one.option
        how: dict[str, Any] = {"help": option.help + _default(one), "required": one.required}
        if option.flag is not None:
            how |= {"action": "store_const", "const": option.flag}
        elif bool in one.types:
            how["action"] = argparse.BooleanOptionalAction if type(None) in one.types else "store_true"
        else:
            how |= {"type": _reader(one), "choices": one.choices or None, "metavar": option.metavar}
        if one.group not in groups:
            groups[one.group] = parser.add_argument_group(one.group)
        groups[one.group].add_argument(o.flag(one.name), dest=one.name, **how)


def _reader(one: o.Declared) -> Callable[[str], Any]:
    """What makes an option's value of a text, for argparse."""
    kind = one.option.kind
    if kind is None:
        return Path if Path in one.types else str

    def read(text: str) -> Any:
        try:
            return kind.read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def _default(one: o.Declared) -> str:
    """What a help text ends with, where the default is not described in it."""
    if one.required or not one.default or one.default == math.inf:
        return ""
    kind = one.option.kind
    return f" (default: {kind.show(one.default) if kind else one.default})"


def _options(kind: type[Given], given: Namespace) -> Given:
    """A command's options, of those that were typed."""
    return kind(**{name: value for name, value in vars(given).items() if name in o.declared_in(kind)})


def _split(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The settings file, if the first argument is not `key=value`, and the overrides."""
    if arguments and "=" not in arguments[0]:
        return arguments[0], list(arguments[1:])
    return None, list(arguments)


def _prints_json(given: Namespace) -> bool:
    """Whether standard output is for a command's results as JSON, and for nothing else."""
    return str(getattr(given, "json", None)) == "-"


def _with_json(
    kind: type[Given], given: Namespace, command: Callable[[Given], dict[str, Any]]
) -> dict[str, Any]:
    """Runs a command that writes its results to a JSON file, or prints them instead."""
    printed = _prints_json(given)
    if printed:
        del given.json
    result = command(_options(kind, given))
    if printed:
        print(json.dumps(result, indent=2, default=str), flush=True)
    return result


def _train(given: Namespace) -> None:
    from gan_nst.commands.train import train

    train(*_split(given.arguments), _options(o.TrainOptions, given))


def _translate(given: Namespace) -> int:
    from gan_nst.commands.translate import check_options, translate

    options = _options(o.TranslateOptions, given)
    check_options(given.input, given.output, options, vars(given))
    outcome = translate(given.source, given.input, given.output, options)
    if outcome.failures:
        print(f"gan-nst: {outcome.trouble}", file=sys.stderr)
    return 1 if outcome.failures else 0


def _evaluate(given: Namespace) -> None:
    from gan_nst.commands.evaluate import evaluate

    _with_json(o.EvaluateOptions, given, lambda options: evaluate(given.source, options))


def _import(given: Namespace) -> None:
    from gan_nst.commands.importing import import_generator

    import_generator(given.source, given.output, _options(o.ImportOptions, given))


def _export(given: Namespace) -> None:
    from gan_nst.commands.export import export

    export(given.source, given.output, _options(o.ExportOptions, given))


def _curves(given: Namespace) -> None:
    from gan_nst.commands.curves import curves

    curves(given.runs, given.output)


def _app(given: Namespace) -> None:
    from gan_nst.web.server import app

    app(given.runs, _options(o.AppOptions, given))


def _bench(given: Namespace) -> None:
    from gan_nst.commands.bench import benchmark

    _with_json(o.BenchOptions, given, lambda options: benchmark(*_split(given.arguments), options))


def _methods(given: Namespace) -> None:
    from gan_nst.commands.methods import describe_methods

    print(describe_methods())


def _data_check(given: Namespace) -> int:
    from gan_nst.commands.data_check import data_check

    result = _with_json(o.CheckOptions, given, lambda options: data_check(given.folder, options))
    return 0 if result["ok"] else 1


def _data_demo(given: Namespace) -> None:
    from gan_nst.commands.data import data_demo

    data_demo(given.folder, _options(o.DemoOptions, given))


def _data_get(given: Namespace) -> None:
    if given.source is None:
        from gan_nst.data.download import describe_known

        print(describe_known())
        return
    from gan_nst.commands.data_get import data_get

    data_get(given.source, _options(o.GetOptions, given))


def _data_frames(given: Namespace) -> None:
    from gan_nst.commands.data import data_frames

    data_frames(given.video, given.folder, _options(o.FramesOptions, given))


def _data_smooth(given: Namespace) -> None:
    from gan_nst.commands.data import data_smooth

    data_smooth(given.folder, given.output, _options(o.SmoothOptions, given))
