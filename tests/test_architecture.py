"""The shape of the project: imports run down, settings files load, the README's commands exist, help is
quick.
"""

import ast
import fnmatch
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gan_nst
from gan_nst.cli import make_parser
from gan_nst.methods import base
from gan_nst.runs.settings import RESUMABLE, load_settings

PROJECT = Path(__file__).parent.parent
PACKAGE = PROJECT / "gan_nst"
EXPERIMENTS = sorted((PROJECT / "experiments").rglob("*.yaml"))

# Imports run from a later line to an earlier one; those of one line do not import each other.
LAYERS = [
    {"core"},
    {"images"},
    {"networks"},
    {"objectives"},
    {"data"},
    {"methods"},
    {"tiling"},
    {"training", "inference", "evaluation", "diagnosis"},
    {"runs", "bench"},
    {"commands"},
    {"web"},
    {"cli"},
    {"__main__"},
]


def level(part):
    return next(number for number, parts in enumerate(LAYERS) if part in parts)


def imports(path):
    """The modules of this package that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gan_nst"):
            folder = PROJECT.joinpath(*node.module.split("."))
            names = [alias.name for alias in node.names]
            inner = [n for n in names if (folder / f"{n}.py").exists() or (folder / n).is_dir()]
            yield from (f"{node.module}.{name}" for name in inner)
            if len(inner) < len(names):
                yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("gan_nst"))


def arrows():
    """(importing file, its part, imported module, its part) for every import between parts."""
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE)
        part = relative.parts[0].removesuffix(".py")
        if part == "__init__":
            continue
        for module in imports(path):
            names = module.split(".")
            if len(names) > 1 and names[1] != part:
                yield relative, part, module, names[1]


def test_every_part_has_a_layer():
    parts = {
        p.name.removesuffix(".py")
        for p in PACKAGE.iterdir()
        if p.suffix == ".py" or (p / "__init__.py").exists()
    }
    assert parts - {"__init__"} == set().union(*LAYERS)


def test_imports_run_down_and_not_sideways():
    wrong = []
    for path, part, module, other in arrows():
        sideways = level(part) == level(other)
        if level(other) > level(part) or sideways:
            wrong.append(f"{path} imports {module}")
    assert not wrong


def test_no_module_imports_itself_through_others():
    """Within a folder too, imports run one way."""
    graph = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")
        graph[name] = set(imports(path))
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_training_knows_no_method_by_name_and_inference_neither_methods_nor_data():
    for path, part, module, other in arrows():
        if part == "training" and other == "methods":
            assert module == "gan_nst.methods.base", path
        if part in ("inference", "tiling"):
            assert other not in ("methods", "data", "training"), path


def test_methods_do_not_import_each_other():
    for path in (PACKAGE / "methods").glob("*.py"):
        own = {module for module in imports(path) if module.startswith("gan_nst.methods")}
        assert own <= {"gan_nst.methods", "gan_nst.methods.base"}, path


def test_the_reference_imports_torch_alone():
    tree = ast.parse((PACKAGE / "bench" / "reference.py").read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {module.split(".")[0] for module in modules} <= {"torch", *sys.stdlib_module_names}


def test_only_the_command_line_prints_and_exits():
    for path in PACKAGE.rglob("*.py"):
        if path.name in ("cli.py", "__main__.py"):
            continue
        calls = {
            n.func.id
            for n in ast.walk(ast.parse(path.read_text()))
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
        }
        assert not calls & {"print", "exit", "quit", "input"}, path


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.relative_to(PROJECT).as_posix())
def test_every_settings_file_loads(path):
    settings, device, small = load_settings(path, ["device=cpu"])
    assert settings.method_name in base.names()
    assert device.type == "cpu"
    assert small == ("\non_cpu:" in path.read_text())


def test_published_recipe_is_the_published_one():
    """Recipe of pytorch-CycleGAN-and-pix2pix (train_options.py, cycle_gan_model.py)."""
    settings, _, _ = load_settings(PROJECT / "experiments/default/cyclegan_published.yaml", ["device=cpu"])
    method = settings.method
    assert (method.cycle_weight, method.identity_weight, method.replay) == (10, 5, 50)
    assert (method.learning_rate, method.betas, method.adversarial) == (2e-4, (0.5, 0.999), "lsgan")
    assert (method.generator.width, method.generator.blocks, method.generator.upsampling) == (
        64,
        9,
        "transposed",
    )
    assert (method.discriminator.width, method.discriminator.layers) == (64, 3)
    assert (settings.data.load_size, settings.data.crop_size, settings.data.resize) == (286, 256, "squash")
    assert (settings.training.epochs, settings.training.batch_size, settings.training.ema) == (200, 1, 0)
    assert (method.decay_from, method.decay_by, settings.precision) == (0.5, "epoch", "float32")


def test_public_names():
    expected = {
        "AppOptions",
        "BenchOptions",
        "CheckOptions",
        "DemoOptions",
        "EvaluateOptions",
        "ExportOptions",
        "FramesOptions",
        "GanNstError",
        "GetOptions",
        "ImportOptions",
        "SmoothOptions",
        "TrainOptions",
        "TranslateOptions",
        "Translator",
        "TranslatorOptions",
        "__version__",
        "app",
        "benchmark",
        "curves",
        "data_check",
        "data_demo",
        "data_frames",
        "data_get",
        "data_smooth",
        "evaluate",
        "export",
        "import_generator",
        "load_translator",
        "train",
        "translate",
    }
    assert set(gan_nst.__all__) == expected
    for name in expected:
        assert getattr(gan_nst, name) is not None
    with pytest.raises(AttributeError):
        gan_nst.no_such_name  # noqa: B018


def test_help_and_the_package_import_no_torch():
    code = """
import sys
from gan_nst.cli import COMMANDS, main
for arguments in [[]] + [name.split() for name in COMMANDS]:
    try:
        main([*arguments, "--help"])
    except SystemExit as exit:
        assert exit.code == 0, arguments
assert not sys.modules.keys() & {"torch", "numpy", "cv2", "PIL", "pydantic"}
"""
    result = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("usage: gan-nst data") == 5


def readme_commands(word):
    """The lines of the README's code blocks that begin with a word."""
    text = (PROJECT / "README.md").read_text()
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    return [
        line.split("#")[0].strip() for block in blocks for line in block.splitlines() if line.startswith(word)
    ]


def test_the_readmes_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.M))
    commands = readme_commands("make ")
    assert commands
    assert {command.split()[1] for command in commands} <= targets
    assert {"install", "train", "translate", "evaluate", "bench", "curves", "tensorboard", "data"} <= targets
    assert {"test", "lint", "clean"} <= targets


def test_the_readme_lists_the_settings_that_may_change_on_resume():
    text = (PROJECT / "README.md").read_text()
    listed = re.search(r"^`--resume` takes its settings from the run.*?\n\n", text, re.M | re.S)[0]
    patterns = set(re.findall("`([^`]*)`", listed)) - {"--resume"}
    methods = [base.find(name) for name in base.names()]
    accepted = (
        RESUMABLE | {"training.steps"} | {f"method.{name}" for method in methods for name in method.resumable}
    )
    assert {
        name for name in accepted if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    } == set()
    assert {pattern for pattern in patterns if not fnmatch.filter(accepted, pattern)} == set()


def test_the_readmes_gan_nst_commands_parse():
    commands = readme_commands("gan-nst ")
    assert commands
    for command in commands:
        try:
            make_parser().parse_known_args(command.split()[1:])
        except SystemExit as exit:
            assert exit.code == 0, command  # noqa: PT017 (--help and --version)
