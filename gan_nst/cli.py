"""The command line: calls a command, prints, exits. Torch is imported by the commands, not here."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gan_nst.arguments import make_parser
from gan_nst.core.errors import GanNstError, SettingsError, one_line
from gan_nst.core.terminal import configure_logging, show_progress


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code: 0 done, 1 done in part, 2 a mistake in what was given."""
    parser = make_parser()
    options, rest = parser.parse_known_args(arguments)
    # argparse takes a command's free arguments only in one piece; those after an option arrive here.
    if any(text.startswith("-") for text in rest) or (rest and not hasattr(options, "arguments")):
        parser.error(one_line(f"unrecognized arguments: {' '.join(rest)}"))
    if rest:
        options.arguments += rest
    configure_logging(options.quiet or _json_alone(options))
    show_progress(not options.quiet)
    try:
        return _COMMANDS[options.command](options)
    except GanNstError as error:
        print(f"gan-nst: {one_line(str(error))}", file=sys.stderr)
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
    from gan_nst.commands.translate import check_options, translate
    from gan_nst.inference.video import SMOOTHING, VideoOptions

    def given(*names: str) -> dict[str, Any]:
        return {name: getattr(options, name) for name in names if hasattr(options, name)}

    video = given("crf", "every", "start", "end", "fps", "window", "smooth")
    files = given("format", "suffix", "quality", "chroma")
    typed = [f"--{name}" for name in (*video, *files)]
    check_options(options.input, options.output, options.frames, options.resume, typed)
    if "smooth" in video:
        video["smooth"] = SMOOTHING
    outcome = translate(
        options.source,
        options.input,
        options.output,
        direction=options.direction,
        device=options.device,
        precision=options.precision,
        **files,
        resume=options.resume,
        preserve_color=options.preserve_color,
        strength=options.strength,
        scale=options.scale,
        memory=options.memory,
        scratch=options.scratch,
        max_pixels=options.max_pixels,
        video=VideoOptions(**video),
        frames=options.frames,
    )
    if outcome.failures:
        print(f"gan-nst: {outcome.trouble}", file=sys.stderr)
    return 1 if outcome.failures else 0


def _app(options: argparse.Namespace) -> int:
    from gan_nst.web.server import app

    app(
        options.runs,
        host=options.host,
        port=options.port,
        device=options.device,
        precision=options.precision,
        max_upload=options.max_upload,
        max_pixels=options.max_pixels,
    )
    return 0


def _import(options: argparse.Namespace) -> int:
    from gan_nst.commands.importing import import_generator

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


def _export(options: argparse.Namespace) -> int:
    from gan_nst.commands.export import export

    export(
        options.source,
        to=options.to,
        out=options.out,
        precision=options.precision,
        direction=options.direction,
        pixels=options.pixels,
        calibrate=options.calibrate,
    )
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from gan_nst.commands.evaluate import evaluate

    result = evaluate(
        options.source,
        images=options.images,
        reference=options.reference,
        data=options.data,
        direction=options.direction,
        protocol=options.protocol,
        features=options.features,
        weights=options.weights,
        download=options.download,
        json=_json_file(options),
        device=options.device,
        precision=options.precision,
    )
    _print_json(options, result)
    return 0


def _curves(options: argparse.Namespace) -> int:
    from gan_nst.commands.curves import curves

    curves(options.runs, out=options.out)
    return 0


def _bench(options: argparse.Namespace) -> int:
    from gan_nst.commands.bench import benchmark

    config, overrides = _split(options.arguments)
    result = benchmark(
        config,
        overrides,
        json=_json_file(options),
        rounds=options.rounds,
        device=options.device,
        compiled=options.compiled,
    )
    _print_json(options, result)
    return 0


def _data_check(options: argparse.Namespace) -> int:
    from gan_nst.commands.data_check import data_check

    result = data_check(
        options.folder,
        domain=options.domain,
        method=options.method,
        crop_size=options.crop_size,
        json=_json_file(options),
    )
    _print_json(options, result)
    return 0 if result["ok"] else 1


def _data_demo(options: argparse.Namespace) -> int:
    from gan_nst.commands.data import data_demo, demo_for_training

    if options.domain is not None:
        demo_for_training(options.domain, options.method)
    elif options.folder is not None:
        data_demo(options.folder, size=options.size, count=options.count, seed=options.seed)
    else:
        raise SettingsError("nowhere to draw: give a folder, or --domain NAME")
    return 0


def _data_get(options: argparse.Namespace) -> int:
    if options.source is None:
        from gan_nst.data.download import describe_known

        print(describe_known())
        return 0
    from gan_nst.commands.data_get import data_get

    data_get(options.source, options.into, sha256=options.sha256, max_size=options.max_size)
    return 0


def _data_frames(options: argparse.Namespace) -> int:
    from gan_nst.commands.data import data_frames

    data_frames(options.video, options.folder, every=options.every, size=options.size)
    return 0


def _data_smooth(options: argparse.Namespace) -> int:
    from gan_nst.commands.data import data_smooth

    data_smooth(options.folder, options.output, size=options.size)
    return 0


def _methods(options: argparse.Namespace) -> int:
    from gan_nst.commands.methods import describe_methods

    print(describe_methods())
    return 0


_COMMANDS = {
    "train": _train,
    "translate": _translate,
    "curves": _curves,
    "data check": _data_check,
    "data demo": _data_demo,
    "data frames": _data_frames,
    "data get": _data_get,
    "data smooth": _data_smooth,
    "methods": _methods,
    "evaluate": _evaluate,
    "import": _import,
    "export": _export,
    "app": _app,
    "bench": _bench,
}


def _split(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The settings file, if the first argument is none of `key=value`, and the overrides."""
    if arguments and "=" not in arguments[0]:
        return arguments[0], list(arguments[1:])
    return None, list(arguments)


def _json_alone(options: argparse.Namespace) -> bool:
    """Whether standard output is for a command's results as JSON, and for nothing else."""
    return str(getattr(options, "json", None)) == "-"


def _json_file(options: argparse.Namespace) -> Path | None:
    return None if options.json is None or _json_alone(options) else Path(options.json)


def _print_json(options: argparse.Namespace, result: dict[str, Any]) -> None:
    if _json_alone(options):
        print(json.dumps(result, indent=2, default=str), flush=True)
