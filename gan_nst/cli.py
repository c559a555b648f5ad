"""The command line: parses, calls a command, prints, exits.

`COMMANDS` lists the commands. Their options come from the classes in gan_nst.core.options; torch is imported by what
a command calls, so that help is quick.
"""

import argparse
import json
import math
import os
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from gan_nst.core import options as o
from gan_nst.core.errors import GanNstError, one_line
from gan_nst.core.terminal import configure_logging, show_progress
from gan_nst.core.threads import configure_threads
from gan_nst.core.version import __version__

Argument = Mapping[str, Any]  # how argparse adds it


def _argument(metavar: str, help: str, **how: Any) -> Argument:
    return {"metavar": metavar, "help": help, "type": Path, **how}


def _print(text: str | None) -> None:
    if text is not None:
        print(text, flush=True)


def _report_failures(outcome: Any) -> int:
    if outcome.failures:
        print(f"gan-nst: {outcome.trouble}", file=sys.stderr)
    return 1 if outcome.failures else 0


@dataclass(frozen=True)
class Command:
    """A command. calls: the function, by module and name, which takes the arguments by name, and `options`.

    arguments: those that are not in a class of options. finish: turns what the function returns into an exit code.
    typed: whether the function also takes the names of the options that were typed.
    """

    help: str
    calls: str
    arguments: Mapping[str, Argument]
    options: type[o.Options] = o.Options  # none
    finish: Callable[[Any], int | None] = lambda _: 0
    description: str | None = None
    typed: bool = False


_GENERATOR = _argument("RUN|FILE", "run, checkpoint, or .safetensors, .onnx or .pt2 file")
_SETTINGS = _argument(
    "CONFIG.yaml|section.key=value",
    "a settings file, then overrides of its settings",
    nargs="*",
    default=[],
    type=str,
)

COMMANDS = {
    "train": Command(
        "train a translator, or resume training",
        "gan_nst.commands.train:train",
        {"arguments": _SETTINGS},
        o.TrainOptions,
    ),
    "translate": Command(
        "translate an image, a video, or a folder of images",
        "gan_nst.commands.translate:translate_as_typed",
        {
            "source": _GENERATOR,
            "images": _argument("INPUT", "image, video or folder"),
            "--output": _argument(
                "OUT",
                "folder, which gets the same tree; for an image or a video also a file (.mp4 .mov .mkv .webm .avi)",
                required=True,
            ),
        },
        o.TranslateOptions,
        finish=_report_failures,
        typed=True,
    ),
    "evaluate": Command(
        "measure how good a run, a generator or a folder of images is",
        "gan_nst.commands.evaluate:evaluate",
        {
            "source": _argument(
                "RUN|FILE.safetensors", "run or generator to evaluate", nargs="?", default=None
            )
        },
        o.EvaluateOptions,
    ),
    "import": Command(
        "convert a generator that another project published",
        "gan_nst.commands.importing:import_generator",
        {
            "source": _argument(
                "SOURCE",
                "weights of a CartoonGAN generator, or of a ResNet generator of pytorch-CycleGAN-and-pix2pix "
                "(*_net_G*.pth)",
            ),
            "output": _argument("OUT.safetensors", "a new file"),
        },
        o.ImportOptions,
    ),
    "export": Command(
        "write a generator to a file that other programs run, and verify it",
        "gan_nst.commands.export:export",
        {
            "source": _GENERATOR,
            "--output": _argument("FILE", "new file, with the format's suffix", required=True),
        },
        o.ExportOptions,
        description="Writes a generator to a file that other programs run, for images of any size from 1x1, runs the "
        "file, and compares it with `translate`: in float32 no value may differ by more than 1/255. Available are "
        "onnx in float32, float16 and int8, pt2 (a torch.export program) in float32 and float16, and safetensors "
        "(weights for gan-nst itself) in float32 and float16. For pt2 and safetensors, float16 only halves the file.",
    ),
    "curves": Command(
        "draw the curves of runs, and diagnose them",
        "gan_nst.commands.curves:curves",
        {
            "runs": _argument("RUN", "runs to draw into one figure", nargs="+"),
            "--output": _argument("FILE.png", "default: curves.png in the first run"),
        },
    ),
    "app": Command(
        "serve a page in the browser to try translators on images",
        "gan_nst.web.server:app",
        {
            "runs": _argument(
                "RUN|FILE|DIR",
                "runs, checkpoints and generators to choose from, or folders of them, for example runs/DOMAIN",
                nargs="+",
            )
        },
        o.AppOptions,
    ),
    "bench": Command(
        "measure how fast this machine trains, loads and translates",
        "gan_nst.commands.bench:benchmark",
        {"arguments": _SETTINGS},
        o.BenchOptions,
        description="With a settings file or overrides, the step of that training is measured too.",
    ),
    "data check": Command(
        "look at every image before training does: broken or small ones, duplicates, leaks, colours",
        "gan_nst.commands.data_check:data_check",
        {"folder": _argument("DIR", "data set, or a plain folder of images", nargs="?", default=None)},
        o.CheckOptions,
        finish=lambda result: 0 if result["ok"] else 1,
        description="Looks at every image before training does. The exit code is 1 when something is wrong: unreadable "
        "folders, broken files, images smaller than the crop, test images that are trained on, one image in both "
        "domains.",
    ),
    "data demo": Command(
        "draw the demo world: photographs and cartoons of made-up scenes",
        "gan_nst.commands.data:data_demo",
        {"folder": _argument("DIR", "a new folder", nargs="?", default=None)},
        o.DemoOptions,
    ),
    "data get": Command(
        "fetch a data set: a well-known one by its name, or any archive",
        "gan_nst.commands.data_get:get_or_list",
        {
            "source": _argument(
                "NAME|ADDRESS|FILE",
                "a known set, or the http(s) address or path of a zip or tar (default: list the known sets)",
                nargs="?",
                default=None,
                type=str,
            )
        },
        o.GetOptions,
        finish=_print,
    ),
    "data frames": Command(
        "take frames from a video, without duplicates, black and credits",
        "gan_nst.commands.data:data_frames",
        {
            "video": _argument("VIDEO", "video file"),
            "folder": _argument("DIR", "folder for the frames; it may contain others"),
        },
        o.FramesOptions,
    ),
    "data smooth": Command(
        "write edge-smoothed images, CartoonGAN's negatives, for inspection",
        "gan_nst.commands.data:data_smooth",
        {
            "images": _argument("DIR", "image or folder"),
            "output": _argument("OUT", "output folder, with the same tree, as PNG"),
        },
        o.SmoothOptions,
    ),
    "methods": Command(
        "list the methods, their papers and all settings",
        "gan_nst.commands.methods:describe_methods",
        {},
        finish=_print,
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code: 0 done, 1 done in part, 2 a mistake in what was given."""
    parser = make_parser()
    parsed, rest = parser.parse_known_args(arguments)
    given = vars(parsed)
    # argparse takes a command's free arguments only in one piece; those after an option arrive here.
    if any(text.startswith("-") for text in rest) or (rest and "arguments" not in given):
        parser.error(one_line(f"unrecognized arguments: {' '.join(rest)}"))
    if "arguments" in given:
        texts = given.pop("arguments") + rest
        given["config"] = texts.pop(0) if texts and "=" not in texts[0] else None
        given["overrides"] = texts
    quiet = given.pop("quiet")
    configure_threads()
    configure_logging(quiet or given.get("json") == "-")
    show_progress(not quiet)
    try:
        return _run(**given) or 0
    except GanNstError as error:
        print(f"gan-nst: {one_line(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("gan-nst: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the flush at exit fails, and the exit code is 120
        return 141


def make_parser() -> ArgumentParser:
    """The parser of the whole command line. Options that are not typed are missing from what it returns."""
    parser = ArgumentParser(prog="gan-nst", description="Unpaired image translation with GANs.")
    parser.add_argument("--version", action="version", version=f"gan-nst {__version__}")
    parser.add_argument("--quiet", action="store_true", help="only warnings and errors")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    places = {"": commands}
    for name, command in COMMANDS.items():
        above, _, name = name.rpartition(" ")
        if above not in places:
            group = commands.add_parser(above, help="make and check data sets")
            places[above] = group.add_subparsers(title="commands", required=True, metavar="COMMAND")
        one = places[above].add_parser(
            name, help=command.help, description=command.description, argument_default=argparse.SUPPRESS
        )
        one.set_defaults(command=command)
        for argument, how in command.arguments.items():
            one.add_argument(argument, **how)
        groups: dict[str | None, Any] = {None: one}
        for option in fields(command.options):
            title = o.heading(command.options, option)
            if title not in groups:
                groups[title] = one.add_argument_group(title)
            _add(groups[title], option)
    return parser


def _add(parser: Any, option: Field[Any]) -> None:
    about, default = option.metadata, option.default
    how: dict[str, Any] = {"help": about["help"], "required": default is MISSING}
    if default is not MISSING and default and default != math.inf:
        how["help"] += f" (default: {about['kind'].show(default) if about['kind'] else default})"
    if about["flag"] is not None:
        how |= {"action": "store_const", "const": about["flag"]}
    elif option.type is bool:
        how["action"] = "store_true"
    elif option.type == bool | None:
        how["action"] = argparse.BooleanOptionalAction
    else:
        known = ",".join(o.choices(option))
        how["metavar"] = f"{{{known}}}" if known else about["metavar"]
    parser.add_argument(o.flag(option.name), **how)


def _run(command: Command, **given: Any) -> int | None:
    """Calls a command with what was typed. Its results are printed for `--json -`, else written by the command."""
    to_stdout = given.get("json") == "-" and given.pop("json")
    if names := {option.name for option in fields(command.options)}:
        typed = {name: given.pop(name) for name in names & given.keys()}
        given["options"] = command.options(**typed)
        given |= {"typed": typed.keys()} if command.typed else {}
    result = resolve_name(command.calls)(**given)
    if to_stdout:
        print(json.dumps(result, indent=2, default=str), flush=True)
    return command.finish(result)
