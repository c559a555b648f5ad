"""The command line: parses, calls a command, prints, exits.

Each function below is a command, and its signature the command's arguments: `Annotated` parameters are typed as they
are (keyword-only ones as --flags), and those of a class in gan_nst.core.options bring all of its fields. Its docstring
is the help. Torch is imported by the commands, not here, so that help is quick.
"""

import argparse
import inspect
import json
import math
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

from gan_nst.core import options as o
from gan_nst.core.errors import GanNstError, one_line
from gan_nst.core.options import Declared, Option
from gan_nst.core.terminal import configure_logging, show_progress
from gan_nst.core.threads import configure_threads
from gan_nst.core.version import __version__

Generator = Annotated[
    Path, Option("run, checkpoint, or .safetensors, .onnx or .pt2 file", metavar="RUN|FILE")
]
Overrides = Annotated[
    Sequence[str],
    Option("a settings file, then overrides of its settings", metavar="CONFIG.yaml|section.key=value"),
]
Folder = Annotated[Path | None, Option("data set, or a plain folder of images", metavar="DIR")]


def _train(options: o.TrainOptions, arguments: Overrides = ()) -> None:
    """train a translator, or resume training"""
    from gan_nst.commands.train import train

    train(*_split(arguments), options)


def _translate(
    given: Namespace,
    options: o.TranslateOptions,
    source: Generator,
    input: Annotated[Path, Option("image, video or folder", metavar="INPUT")],
    *,
    output: Annotated[
        Path,
        Option(
            "folder, which gets the same tree; for an image or a video also a file (.mp4 .mov .mkv .webm .avi)",
            metavar="OUT",
        ),
    ],
) -> int:
    """translate an image, a video, or a folder of images"""
    from gan_nst.commands.translate import check_options, translate

    check_options(input, output, options, vars(given))
    outcome = translate(source, input, output, options)
    if outcome.failures:
        print(f"gan-nst: {outcome.trouble}", file=sys.stderr)
    return 1 if outcome.failures else 0


def _evaluate(
    options: o.EvaluateOptions,
    source: Annotated[Path | None, Option("what to judge", metavar="RUN|FILE.safetensors")] = None,
) -> None:
    """measure how good a run, a generator or a folder of images is"""
    from gan_nst.commands.evaluate import evaluate

    _results(options, lambda options: evaluate(source, options))


def _import(
    options: o.ImportOptions,
    source: Annotated[
        Path,
        Option(
            "weights of a CartoonGAN generator, or of a ResNet generator of pytorch-CycleGAN-and-pix2pix "
            "(*_net_G*.pth)",
            metavar="SOURCE",
        ),
    ],
    output: Annotated[Path, Option("a new file", metavar="OUT.safetensors")],
) -> None:
    """convert a generator that another project published"""
    from gan_nst.commands.importing import import_generator

    import_generator(source, output, options)


def _export(
    options: o.ExportOptions,
    source: Generator,
    *,
    output: Annotated[Path, Option("with the format's suffix", metavar="FILE")],
) -> None:
    """write a generator to a file that other programs run, and verify it

    Writes a generator to a file that other programs run, for images of any size from 1x1, runs the file, and compares
    it with `translate`: in float32 no value may differ by more than 1/255. Available are onnx in float32, float16 and
    int8, pt2 (a torch.export program) in float32 and float16, and safetensors (weights for gan-nst itself) in float32
    and float16. For pt2 and safetensors, float16 only halves the file.
    """
    from gan_nst.commands.export import export

    export(source, output, options)


def _curves(
    runs: Annotated[Sequence[Path], Option("drawn into one figure", metavar="RUN")],
    *,
    output: Annotated[Path | None, Option("default: curves.png in the first run", metavar="FILE.png")] = None,
) -> None:
    """draw the curves of runs, and diagnose them"""
    from gan_nst.commands.curves import curves

    curves(runs, output)


def _app(
    options: o.AppOptions,
    runs: Annotated[
        Sequence[Path],
        Option(
            "runs, checkpoints and generators to choose from, or folders of them, for example runs/DOMAIN",
            metavar="RUN|FILE|DIR",
        ),
    ],
) -> None:
    """serve a page in the browser to try translators on images"""
    from gan_nst.web.server import app

    app(runs, options)


def _bench(options: o.BenchOptions, arguments: Overrides = ()) -> None:
    """measure how fast this machine trains, loads and translates

    With a settings file or overrides, the step of that training is measured too.
    """
    from gan_nst.commands.bench import benchmark

    _results(options, lambda options: benchmark(*_split(arguments), options))


def _data_check(options: o.CheckOptions, folder: Folder = None) -> int:
    """look at every image before training does: broken or small ones, duplicates, leaks, colours

    Looks at every image before training does. The exit code is 1 when something is wrong: unreadable folders, broken
    files, images smaller than the crop, test images that are trained on, one image in both domains.
    """
    from gan_nst.commands.data_check import data_check

    return 0 if _results(options, lambda options: data_check(folder, options))["ok"] else 1


def _data_demo(
    options: o.DemoOptions, folder: Annotated[Path | None, Option("a new folder", metavar="DIR")] = None
) -> None:
    """draw the demo world: photographs and cartoons of made-up scenes"""
    from gan_nst.commands.data import data_demo

    data_demo(folder, options)


def _data_get(
    options: o.GetOptions,
    source: Annotated[
        str | None,
        Option(
            "a known set, or the http(s) address or path of a zip or tar (default: list the known sets)",
            metavar="NAME|ADDRESS|FILE",
        ),
    ] = None,
) -> None:
    """fetch a data set: a well-known one by its name, or any archive"""
    from gan_nst.commands.data_get import data_get
    from gan_nst.data.download import describe_known

    if source is None:
        print(describe_known())
    else:
        data_get(source, options)


def _data_frames(
    options: o.FramesOptions,
    video: Annotated[Path, Option("video file", metavar="VIDEO")],
    folder: Annotated[Path, Option("folder for the frames; it may hold others", metavar="DIR")],
) -> None:
    """take frames from a video, without duplicates, black and credits"""
    from gan_nst.commands.data import data_frames

    data_frames(video, folder, options)


def _data_smooth(
    options: o.SmoothOptions,
    folder: Annotated[Path, Option("image or folder", metavar="DIR")],
    output: Annotated[Path, Option("folder; the same tree, as PNG", metavar="OUT")],
) -> None:
    """write edge-smoothed images, CartoonGAN's negatives, for inspection"""
    from gan_nst.commands.data import data_smooth

    data_smooth(folder, output, options)


def _methods() -> None:
    """list the methods, their papers and all settings"""
    from gan_nst.commands.methods import describe_methods

    print(describe_methods())


Run = Callable[..., int | None]

COMMANDS: tuple[Run, ...] = (
    *(_train, _translate, _evaluate, _import, _export, _curves, _app, _bench),
    *(_data_check, _data_demo, _data_get, _data_frames, _data_smooth, _methods),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code: 0 done, 1 done in part, 2 a mistake in what was given."""
    parser = make_parser()
    given, rest = parser.parse_known_args(arguments)
    # argparse takes a command's free arguments only in one piece; those after an option arrive here.
    if any(text.startswith("-") for text in rest) or (rest and not hasattr(given, "arguments")):
        parser.error(one_line(f"unrecognized arguments: {' '.join(rest)}"))
    if rest:
        given.arguments += rest
    configure_threads()
    configure_logging(given.quiet or str(getattr(given, "json", None)) == "-")
    show_progress(not given.quiet)
    try:
        return _call(given) or 0
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
    places = {"": commands}
    for run in COMMANDS:
        above, _, name = run.__name__.removeprefix("_").rpartition("_")
        if above not in places:
            group = commands.add_parser(above, help="make and check data sets")
            places[above] = group.add_subparsers(title="commands", required=True, metavar="COMMAND")
        summary, _, about = (run.__doc__ or "").partition("\n\n")
        command = places[above].add_parser(
            name, help=summary, description=about or None, argument_default=argparse.SUPPRESS
        )
        command.set_defaults(run=run)
        groups: dict[str | None, Any] = {None: command}
        for one, is_positional in _arguments(run):
            if one.group not in groups:
                groups[one.group] = command.add_argument_group(one.group)
            _add(groups[one.group], one, is_positional)
    return parser


def _arguments(run: Run) -> Iterator[tuple[Declared, bool]]:
    """A command's arguments, and whether they are positional."""
    hints = get_type_hints(run, include_extras=True)
    for name, parameter in inspect.signature(run).parameters.items():
        if isinstance(hints[name], type) and issubclass(hints[name], o.Options):
            yield from ((one, False) for one in o.declared_in(hints[name]).values())
        elif name != "given":
            one = o.declare(
                name, hints[name], parameter.default, required=parameter.default is parameter.empty
            )
            yield one, parameter.kind is not parameter.KEYWORD_ONLY


def _add(parser: Any, one: Declared, is_positional: bool) -> None:
    """Adds an argument. Options that are not typed are missing from what is parsed."""
    option = one.option
    how: dict[str, Any] = {"help": option.help + _default(one)}
    if option.flag is not None:
        how |= {"action": "store_const", "const": option.flag}
    elif bool in one.types:
        how["action"] = argparse.BooleanOptionalAction if type(None) in one.types else "store_true"
    else:
        how |= {"type": _reader(one), "choices": one.choices or None, "metavar": option.metavar}
    if not is_positional:
        parser.add_argument(o.flag(one.name), dest=one.name, required=one.required, **how)
    elif one.is_list:
        parser.add_argument(one.name, nargs="+" if one.required else "*", default=[], **how)
    else:
        parser.add_argument(one.name, nargs=None if one.required else "?", default=None, **how)


def _reader(one: Declared) -> Callable[[str], Any]:
    """What turns text into an option's value, for argparse."""
    kind = one.option.kind
    if kind is None:
        return Path if Path in one.types else str

    def read(text: str) -> Any:
        try:
            return kind.read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def _default(one: Declared) -> str:
    """What a help text ends with, where the default is not described in it."""
    if one.required or not one.default or one.default == math.inf:
        return ""
    kind = one.option.kind
    return f" (default: {kind.show(one.default) if kind else one.default})"


def _call(given: Namespace) -> int | None:
    """Calls the command with what was typed."""
    values: dict[str, Any] = {}
    for name, hint in get_type_hints(given.run).items():
        if hint is Namespace:
            values[name] = given
        elif isinstance(hint, type) and issubclass(hint, o.Options):
            known = o.declared_in(hint)
            values[name] = hint(**{key: value for key, value in vars(given).items() if key in known})
        elif name in given:
            values[name] = getattr(given, name)
    code: int | None = given.run(**values)
    return code


def _split(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The settings file, if the first argument is not `key=value`, and the overrides."""
    if arguments and "=" not in arguments[0]:
        return arguments[0], list(arguments[1:])
    return None, list(arguments)


R = TypeVar("R", bound=o.Results)


def _results(options: R, command: Callable[[R], dict[str, Any]]) -> dict[str, Any]:
    """Runs a command that writes its results to a JSON file, or, for `--json -`, prints them instead."""
    if str(options.json) != "-":
        return command(options)
    result = command(replace(options, json=None))
    print(json.dumps(result, indent=2, default=str), flush=True)
    return result
