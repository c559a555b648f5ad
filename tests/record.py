"""The record of what a refactor must not change: everything the README's commands do to a fixed corpus.

    python tests/record.py corpus DIR                     # once, at the commit before the refactor
    python tests/record.py make OUT --corpus DIR          # some minutes: runs every command, writes OUT/record.json
    python tests/record.py losses OUT --corpus DIR        # some minutes: 300 steps of each small recipe
    python tests/record.py compare A B                    # NUMERIC must be empty or intended, WORDING is to be read

`make` and `losses` take --package PATH (a checkout; default: this one) and --shared PATH (real weights; default: the
variable GAN_NST_RECORD_SHARED, or ../shared; without it what needs them is skipped). They run the command line of the
package in processes of their own, and import nothing of it, so that the same script replays an old and a new tree. The
commands are in record_cases.txt; record_corpus.py, which makes the corpus, needs the tests' helpers of back then.
"""

import argparse
import contextlib
import difflib
import hashlib
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

TREE = Path(__file__).resolve().parent.parent

# What may be called otherwise. Commands are written with the old names; a package that does not know one gets the new.
RENAMED_OPTIONS = {
    ("train", "--out"): "--output",
    ("curves", "--out"): "--output",
    ("export", "--out"): "--output",
    ("export", "--to"): "--format",
    ("evaluate", "--pictures"): "--images",
}
RENAMED_SETTINGS = {"evaluation.pictures": "evaluation.images"}
RENAMED_VALUES = {"method.generator.start_from=picture": "method.generator.start_from=image"}
# Applied to texts, file names and JSON keys of both records, at word borders ("_" and "/" are borders), in this order.
RENAMED_WORDS = {
    "pictures": "images",
    "picture": "image",
    "films": "videos",
    "film": "video",
    "--to": "--format",
    "--out": "--output",
    "left_out": "skipped",  # of data check's JSON, as the next three
    "odd_aspect": "elongated",
    "lying_elsewhere": "outside",
    "alike": "duplicates",
}

# What differs from run to run: masked in texts, dropped from JSON.
MASKS = (
    (r"\d+h ?\d+m|\d+m ?\d+s|\d[\d.,]*( |-)?(s|ms|min|seconds?|minutes?|hours?|days?)\b", "#time"),
    (r"\d[\d.,]* (pictures|images|frames|steps|megapixels)/s", "#speed"),
    (r"\d[\d.,]* (B|bytes|kB|MB|GB|KiB|MiB|GiB|TiB)\b", "#size"),
    (r'"milliseconds": [\d.]+', '"milliseconds": #time'),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:#port"),
    (r"\b20\d\d-?\d\d-?\d\d[-_T ]\d\d[-:]?\d\d([-:]?\d\d)?(\.\d+)?\b", "#date"),
)
UNSTEADY = re.compile(
    r"(^|[/._])(speed|memory|libraries|seconds|milliseconds|peak_mib|validation_share|time)([/._]|$)|_per_second"
)
DRAWN = ("curves.png", "report.html")  # with words in them: that they are there is recorded
LAZY = (
    "onnxruntime",
    "onnxscript",
    "torch.onnx",
    "torch._dynamo",
    "torch.export",
    "torchmetrics",
    "torch_fidelity",
)
LARGEST = 60_000  # values of an array that are kept; of a larger one each n-th


LOSSY = 6  # levels, the mean difference of two encodings of one video that counts for none


# ---- describing what lies in a folder


class Arrays:
    """The pixels of a record, by their hash."""

    def __init__(self):
        self.kept = {}

    def add(self, array):
        array = np.ascontiguousarray(array)
        name = f"{hashlib.sha256(array.tobytes()).hexdigest()[:20]} {array.dtype} {array.shape}"
        flat = array.ravel()
        self.kept[name] = flat[:: -(-flat.size // LARGEST) or 1]
        return name


def digest(data):
    return hashlib.sha256(data).hexdigest()[:20]


def describe_folder(path, arrays):
    """Every file at or below a path, by its relative name."""
    path = Path(path)
    files = sorted(path.rglob("*")) if path.is_dir() else [path] if path.exists() else []
    found = {}
    for file in files:
        name = file.relative_to(path).as_posix() if file != path else file.name
        if file.is_symlink():
            found[name] = {"link": masked(os.readlink(file))}
        elif file.is_dir():
            if not any(file.iterdir()):
                found[name + "/"] = {}
        else:
            found[masked(re.sub(r"tfevents\..*", "tfevents", name))] = describe(file, arrays)
    return found


def describe(file, arrays):
    """What one file is, in plain values; of its pixels, tensors and frames the hashes."""
    kind = file.suffix.lower()
    try:
        if file.name in DRAWN or ".cache" in file.parts:
            return {}
        if kind in (".json", ".yaml", ".jsonl"):
            return describe_data(file)
        if kind == ".safetensors":
            return describe_tensors(file)
        if kind in (".onnx", ".pt2"):
            return describe_program(file, arrays)
        if kind in (".mp4", ".mkv", ".mov", ".webm", ".avi"):
            return describe_video(file, arrays)
        if kind in (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".avif", ".gif"):
            return describe_image(file, arrays)
    except Exception as error:
        return {"unreadable": f"{type(error).__name__}: {error}"}
    return {}


def describe_data(file):
    import yaml

    text = file.read_text()
    if file.suffix == ".jsonl":
        return {"data": flat([json.loads(line) for line in text.splitlines()])}
    return {"data": flat(json.loads(text) if file.suffix == ".json" else yaml.safe_load(text))}


def flat(value, where=""):
    """A nest of dicts and lists as one dict, without what differs from run to run."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        found = {}
        for key, item in items:
            name = f"{where}.{key}" if where else str(key)
            if not UNSTEADY.search(str(key)):
                found.update(flat(item, name))
        return found or {where: "nothing"}
    return {where: masked(value) if isinstance(value, str) else value}


def describe_tensors(file):
    from safetensors import safe_open

    with safe_open(file, framework="np") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        told = opened.metadata() or {}
    told = {key: flat(json.loads(text)) if text.startswith("{") else text for key, text in told.items()}
    hashes = {name: f"{digest(t.tobytes())} {t.dtype} {t.shape}" for name, t in tensors.items()}
    return {"tensors": hashes, "data": flat(told)}


def describe_program(file, arrays):
    """What an exported program makes of fixed pictures."""
    rng, outputs = np.random.default_rng(0), {}
    inputs = [rng.integers(0, 256, shape, np.uint8) for shape in ((1, 3, 20, 23), (2, 3, 8, 8), (1, 3, 1, 1))]
    if file.suffix == ".onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        (into,), (out,) = session.get_inputs(), session.get_outputs()
        outputs["form"] = f"{into.type} {len(into.shape)}d to {out.type}"
        whole = "uint8" in into.type
        run = lambda x: session.run(None, {into.name: x})[0]  # noqa: E731
    else:
        import torch

        program = torch.export.load(file)
        whole = any(
            t.dtype == torch.uint8
            for t in (node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder")
            if isinstance(t, torch.Tensor)
        )
        outputs["form"] = "uint8" if whole else "float"
        run = lambda x: program.module()(torch.from_numpy(x)).detach().numpy()  # noqa: E731
    for x in inputs:
        outputs[f"pixels of {x.shape}"] = arrays.add(run(x if whole else (x / 255).astype(np.float32)))
    return outputs


def describe_image(file, arrays):
    import io

    import cv2
    from PIL import Image, ImageCms

    Image.MAX_IMAGE_PIXELS = None
    with Image.open(file) as image:
        pages = getattr(image, "n_frames", 1)
        told = {"format": image.format, "mode": image.mode, "size": str(image.size), "pages": pages}
        if (icc := image.info.get("icc_profile")) is not None:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            told["icc"] = f"{ImageCms.getProfileDescription(profile).strip()} {digest(icc)}"
        for key in ("dpi", "transparency", "gamma", "duration", "loop"):
            if key in image.info:
                told[key] = str(image.info[key])
        for key in ("xmp", "XML:com.adobe.xmp", "comment"):
            if key in image.info:
                told[key] = digest(repr(image.info[key]).encode())
        if image.format == "JPEG":
            told["sampling"] = str([layer[1:3] for layer in image.layer])
        if image.format == "TIFF":
            told["bits"] = str(image.tag_v2.get(258)) + str(image.tag_v2.get(338))
        exif = image.getexif()
        for tag, value in exif.items():
            told[f"exif {tag:#x}"] = digest(value) if isinstance(value, bytes) else str(value)
        for ifd in (0x8769, 0x8825):
            for tag, value in exif.get_ifd(ifd).items():
                told[f"exif {ifd:#x} {tag:#x}"] = digest(value) if isinstance(value, bytes) else str(value)
        pixels = None
        if image.format in ("PNG", "TIFF"):  # Pillow makes 8 bits of 16
            pixels = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_UNCHANGED)
        told["pixels"] = arrays.add(np.array(image) if pixels is None else pixels)
    return told


def describe_video(file, arrays):
    import av

    told = {}
    with av.open(str(file)) as video:
        told["metadata"] = flat(
            {k: v for k, v in video.metadata.items() if k.lower() not in ("encoder", "creation_time")}
        )
        for number, stream in enumerate(video.streams):
            told[f"stream {number}"] = (
                f"{stream.type} {stream.codec_context.name} {stream.metadata.get('language')}"
            )
        rest = [stream for stream in video.streams if stream.type != "video"]
        packets = {}
        for packet in video.demux(*rest) if rest else ():
            if packet.size:
                at = round(float(packet.pts * packet.time_base), 4)
                packets.setdefault(packet.stream.index, []).append(f"{at} {digest(bytes(packet))}")
        for index, texts in packets.items():
            told[f"packets of {index}"] = f"{len(texts)} {digest(' '.join(texts).encode())} from {texts[0]}"
    with av.open(str(file)) as video:
        stream = video.streams.video[0]
        frames = list(video.decode(stream))
        first = frames[0]
        told["frames"] = len(frames)
        told["times"] = str([None if frame.time is None else round(frame.time, 4) for frame in frames])
        told["form"] = f"{first.format.name} {first.width}x{first.height} turned {first.rotation}"
        told["aspect"], told["rate"] = str(stream.sample_aspect_ratio), str(stream.average_rate)
        told["colours"] = str(
            [int(x) for x in (first.colorspace, first.color_range, first.color_primaries, first.color_trc)]
        )
        # x264 encodes the same frames differently in one run of ten, but for those without loss.
        exact = "4:4:4" in str(stream.profile) or stream.codec_context.name == "ffv1"
        told["pixels" if exact else "pixels, lossy"] = arrays.add(
            np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
        )
    return told


# ---- running the package


def masked(text):
    for pattern, word in MASKS:
        text = re.sub(pattern, word, text)
    return text


def serve():
    """Runs command lines that arrive as JSON lines, each in a fork, so that torch is imported once."""
    import importlib
    import pkgutil

    sys.path.pop(0)
    for name in ("torch", "torchvision", "cv2", "av", "PIL.Image", "albumentations", "matplotlib", *LAZY):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    import gan_nst

    for module in pkgutil.walk_packages(gan_nst.__path__, "gan_nst."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(Exception):
                importlib.import_module(module.name)
    print(Path(gan_nst.__file__).resolve().parent.parent, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        if (child := os.fork()) == 0:
            code = 70
            try:
                signal.alarm(900)
                for number, name in ((0, os.devnull), (1, job["out"]), (2, job["err"])):
                    os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644), number)
                os.environ.update(job["env"])
                sys.argv = ["gan-nst", *job["arguments"]]
                code = gan_nst.cli.main(job["arguments"])
            except SystemExit as stop:
                code = stop.code
            except BaseException:
                print("Traceback:", repr(sys.exc_info()[1]), file=sys.stderr)
            finally:
                with contextlib.suppress(Exception):
                    sys.stdout.flush()
                    sys.stderr.flush()
                os._exit(code if isinstance(code, int) else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


class Package:
    """The command line of the package under test, run in one folder; commands are given in the old spelling."""

    def __init__(self, tree, folder, shared):
        self.folder = folder
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("GAN_NST", "XDG"))},
            "PYTHONPATH": str(tree),
            "PYTHONWARNINGS": "ignore",
            "OMP_NUM_THREADS": "1",
            "XDG_CACHE_HOME": str(folder / "home"),
            "TORCH_HOME": str(folder / "home" / "torch"),
            "MPLCONFIGDIR": str(Path("~/.cache/matplotlib").expanduser()),
            "NO_ALBUMENTATIONS_UPDATE": "1",
            "COLUMNS": "120",
            "NO_COLOR": "1",
            "TERM": "dumb",
            "TZ": "UTC",
        }
        self.weights = {"GAN_NST_WEIGHTS": str(shared / "weights")} if shared else None
        command = [sys.executable, __file__, "serve"]
        self.server = subprocess.Popen(
            command,
            cwd=folder,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        found = self.server.stdout.readline().strip()
        if found != str(Path(tree).resolve()):
            sys.exit(f"{found}: not the package that was asked for, {tree}")
        self.helps = {}
        settings = self.run(["methods"])[1]
        self.settings = set(re.findall(r"^  (\S+) = ", settings, re.M))
        self.choices = settings

    def run(self, arguments, environment=None):
        """Exit code, standard output and standard error."""
        files = [self.folder / name for name in (".out", ".err")]
        job = {"arguments": arguments, "env": environment or {}, "out": str(files[0]), "err": str(files[1])}
        self.server.stdin.write(json.dumps(job) + "\n")
        self.server.stdin.flush()
        code = int(self.server.stdout.readline())
        return code, *(file.read_text(errors="backslashreplace") for file in files)

    def spell(self, words):
        """A command of old names in those that the package knows."""
        command, spelt = next((word for word in words if not word.startswith("-")), ""), []
        for word in words:
            new = RENAMED_OPTIONS.get((command, word))
            if new is not None and not re.search(rf"{word}\b", self.help(command)):
                word = new
            key, equals, value = word.partition("=")
            if equals and key in RENAMED_SETTINGS and key not in self.settings:
                word = f"{RENAMED_SETTINGS[key]}={value}"
            if word in RENAMED_VALUES and f"{value}," not in self.choice(key):
                word = RENAMED_VALUES[word]
            spelt.append(word)
        return spelt

    def help(self, command):
        if command not in self.helps:
            self.helps[command] = self.run([command, "--help"])[1]
        return self.helps[command]

    def choice(self, key):
        found = re.search(rf"^  {re.escape(key)} = .*\(one of (.*)\)$", self.choices, re.M)
        return found[1] + "," if found else ""

    def close(self):
        self.server.stdin.close()
        self.server.wait()


def read_cases(file):
    """The commands of a text: (name, options, line)."""
    short, found = {}, []
    for line in file.read_text().splitlines():
        if line.startswith("$"):
            name, _, words = line.partition(" = ")
            short[name[1:]] = words
        elif line and not line.startswith("#"):
            name, options, command = re.fullmatch(r"(\S+?)((?: [-+@]\S+?)*):(?: (.*))?", line).groups()
            command = command or ""
            while (longer := re.sub(r"\$([A-Z]+1?)", lambda match: short[match[1]], command)) != command:
                command = longer
            if command.count("--output") > 1:  # the short form's, and the line's own
                command = command.replace(" --output {o} ", " ", 1)
            told = {}
            for option in options.split():
                key = "of" if option[0] == "@" else "weights"
                told[key] = {"@": option[1:], "+": "needed", "-": "where there are some"}[option[0]]
            found.append((name, told, command))
    assert len({name for name, *_ in found}) == len(found)
    return found


def make(out, corpus, tree, shared, cases, only=None):
    """Runs the cases in a fresh folder and writes what they did."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="record-") as made, serving(Path(made) / "c/archives") as address:
        folder = Path(made).resolve()
        shutil.copytree(corpus, folder / "c", symlinks=True)
        (folder / "experiments").symlink_to(Path(tree).resolve() / "experiments")
        (folder / "o").mkdir()
        package, arrays, record = Package(tree, folder, shared), Arrays(), {}
        times = {}
        for name, options, line in cases:
            if only and not re.search(only, name):
                continue
            environment = {}
            if "weights" in options:
                environment = package.weights or {}
            if options.get("weights") == "needed" and not environment:
                print(f"skipped, without real weights: {name}")
                continue
            if missing := [word for word in re.findall(r"c/inputs\S*", line) if not (folder / word).exists()]:
                print(f"skipped, as the corpus has no {missing[0]}: {name}")
                continue
            target = options.get("of", f"o/{name}")
            line = line.replace("{o}", f"o/{name}").replace("{site}", address)
            words = package.spell(shlex.split(line))
            began = time.monotonic()
            code, told, err = package.run(words, environment)
            times[name] = time.monotonic() - began
            # The usage is in --help.
            err = re.sub(r"^usage: .*?^(gan-nst.*: error: )", r"\1", err, flags=re.M | re.S)
            plain = [masked(hide(text, folder, corpus, tree, shared)) for text in (told, err)]
            record[name] = {"line": masked(line), "exit": code, "out": plain[0], "err": plain[1]}
            found = record[name]["files"] = describe_folder(folder / target, arrays)
            for beside in sorted(folder.glob(f"o/{name}.*")):
                found.update(describe_folder(beside, arrays))
        package.close()
        left = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()]
        left = sorted(
            {masked(re.sub(r"tfevents\..*", "tfevents", name)) for name in left if "cache/" not in name}
        )
        left = {name: {} for name in left if not name.startswith(("c/archives/", "home/"))}
        record["what is there in the end"] = {"line": "", "exit": 0, "out": "", "err": "", "files": left}
    (out / "record.json").write_text(json.dumps(record, indent=1, ensure_ascii=True))
    np.savez_compressed(out / "arrays.npz", **arrays.kept)
    slowest = sorted(times, key=times.get, reverse=True)[:10]
    print("slowest: " + ", ".join(f"{name} {times[name]:.1f} s" for name in slowest))
    codes = [case["exit"] for case in record.values()]
    print(
        f"{len(record)} commands, exit codes "
        + ", ".join(f"{c}: {codes.count(c)}" for c in sorted(set(codes)))
    )


def hide(text, folder, corpus, tree, shared):
    """A text without the paths of this machine."""
    paths = {
        "CORPUS": Path(corpus).resolve(),
        "TREE": Path(tree).resolve(),
        "SHARED": shared,
        "VENV": sys.prefix,
    }
    for word, path in {".": folder, **paths, "TEMPORARY": tempfile.gettempdir()}.items():
        text = re.sub(rf"{re.escape(str(path))}\b", word, text) if path else text
    return text


@contextlib.contextmanager
def serving(folder):
    """A folder, on a web server of this machine: its address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


LOSSES = [
    (
        f"{method}",
        {"weights": "where there are some"},
        f"train experiments/photo2cartoon/{method}.yaml device=cpu seed=0 training.stop_at=300 training.log_every=1 "
        "training.sample_every=100000 training.checkpoint_every=300 evaluation.every=100000 --out {o}",
    )
    for method in ("cyclegan", "cartoongan")
]


# ---- comparing two records


def vocabulary(text):
    for old, new in RENAMED_WORDS.items():
        for one, other in ((old, new), (old.capitalize(), new.capitalize())):
            text = re.sub(rf"(?<![A-Za-z]){re.escape(one)}(?![A-Za-z-])", other, text)
    for old, new in (*RENAMED_SETTINGS.items(), *RENAMED_VALUES.items()):
        text = text.replace(old, new)
    return re.sub("  +", "  ", re.sub(r"\ba image\b", "an image", text))  # columns are as wide as their words


def in_order(lines):
    """The lines of a text, those that name the corpus' files, which are read at the same time, by their names."""
    named = re.compile(r"(?<!\S)c/[^:]+")
    groups = [list(group) for _, group in itertools.groupby(lines, lambda line: bool(named.search(line)))]
    return [
        line
        for group in groups
        for line in sorted(
            group, key=lambda line: (named.findall(line), line) if named.search(line) else ([], "")
        )
    ]


def plain(value):
    """The values of a described file in the new words: strings too."""
    if isinstance(value, dict):
        return {vocabulary(key): plain(item) for key, item in value.items()}
    return vocabulary(value) if isinstance(value, str) else value


def compare(first, second, atol, rtol, only=None):
    """Prints every difference; returns how many there are that are not mere wording."""
    records = [json.loads((path / "record.json").read_text()) for path in (first, second)]
    arrays = [np.load(path / "arrays.npz") for path in (first, second)]
    numeric, wording = [], {}

    def words(where, old, new):
        olds, news = (in_order(vocabulary(masked(text)).splitlines()) for text in (old, new))
        if olds == news:
            return
        for tag, i, j, k, n in difflib.SequenceMatcher(None, olds, news, False).get_opcodes():
            for at in range(0 if tag == "equal" else max(j - i, n - k)):
                pair = [lines[at] if at < len(lines) else "(nothing)" for lines in (olds[i:j], news[k:n])]
                numbers = [re.findall(r"\d[\d.]*", text) for text in pair]
                wording.setdefault((numbers[0] == numbers[1], *pair), []).append(where)

    def values(where, old, new):
        if old == new:
            return
        if isinstance(old, str) and isinstance(new, str):
            if re.search(r": \.pixels", where):
                pixels(where, old, new)
            elif ": .data " in where and "nothing" not in (old, new):
                words(where, old, new)
            else:
                numeric.append(f"{where}: {old} -> {new}")
        elif isinstance(old, int | float) and isinstance(new, int | float) and not isinstance(old, bool):
            if not abs(old - new) <= rtol * max(abs(old), abs(new)):
                numeric.append(f"{where}: {old!r} -> {new!r}")
        else:
            numeric.append(f"{where}: {old!r} -> {new!r}")

    def pixels(where, old, new):
        one, other = (file[name] for file, name in zip(arrays, (old, new), strict=True) if name in file)
        if one.shape != other.shape or old.split(" ", 1)[1] != new.split(" ", 1)[1]:
            numeric.append(f"{where}: {old} -> {new}")
            return
        away = np.abs(one.astype(float) - other)
        unseen = "" if away.any() else ", of those that are kept"
        same = away.mean() <= LOSSY if where.endswith("lossy") else 0 < away.max(initial=0) <= atol
        if not same:
            share, most = (away > 0).mean(), away.max(initial=0)
            numeric.append(f"{where}: {share:.3%} of the values differ, by {most:.4g} at most{unseen}")

    for name in sorted(name for name in {*records[0], *records[1]} if not only or re.search(only, name)):
        if any(name not in record for record in records):
            numeric.append(f"{name}: only in {first if name in records[0] else second}")
            continue
        old, new = records[0][name], records[1][name]
        if old["exit"] != new["exit"]:
            numeric.append(f"{name}: exit code {old['exit']} -> {new['exit']}: {new['err'][-200:]!r}")
        for stream in ("err", "out"):
            words(f"{name} ({stream})", old[stream], new[stream])
        olds, news = plain(old["files"]), plain(new["files"])
        for file in sorted({*olds, *news}):
            if file not in olds or file not in news:
                numeric.append(f"{name}: {file} is {'gone' if file in olds else 'new'}")
                continue
            for kind in sorted({*olds[file], *news[file]}):
                one, other = olds[file].get(kind), news[file].get(kind)
                where = f"{name}: {file}: .{kind}"
                if isinstance(one, dict) and isinstance(other, dict):
                    for word, keys in (("gone", one.keys() - other), ("new", other.keys() - one)):
                        if keys:
                            some = ", ".join(sorted(keys)[:4]) + f" and {len(keys) - 4} more" * (
                                len(keys) > 4
                            )
                            numeric.append(f"{where} {word}: {some}")
                    for key in sorted(key for key in one.keys() & other if not UNSTEADY.search(key)):
                        values(f"{where} {key}", one[key], other[key])
                else:
                    values(where, one, other)
    print(f"NUMERIC: {len(numeric)} differences", *numeric, sep="\n  ")
    odd = sum(not same for same, *_ in wording)
    print(f"\nWORDING: {len(wording)} texts, {odd} of them with other numbers in them, which come first")
    for (_, old, new), places in sorted(wording.items()):
        print(
            f"  {old}\n    -> {new}\n       in {places[0]}"
            + (f" and {len(places) - 1} more" * (len(places) > 1))
        )
    return len(numeric)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve")
    commands.add_parser("corpus").add_argument("out", type=Path)
    for name in ("make", "losses"):
        command = commands.add_parser(name)
        command.add_argument("out", type=Path)
        command.add_argument("--corpus", type=Path, required=name == "make")
        command.add_argument("--package", type=Path, default=TREE)
    for name in ("corpus", "make", "losses"):
        shared = os.environ.get("GAN_NST_RECORD_SHARED", TREE.parent / "shared")
        commands.choices[name].add_argument("--shared", type=Path, default=Path(shared))
    command = commands.add_parser("compare")
    command.add_argument("first", type=Path)
    command.add_argument("second", type=Path)
    command.add_argument("--atol", type=float, default=0, help="of pixels, in their own levels")
    command.add_argument("--rtol", type=float, default=0, help="of other numbers")
    for name in ("make", "losses", "compare"):
        commands.choices[name].add_argument("--only", metavar="REGEX", help="of the cases' names")
    given = parser.parse_args()
    if given.command == "serve":
        return serve()
    if given.command == "compare":
        return min(compare(given.first, given.second, given.atol, given.rtol, given.only), 1)
    shared = given.shared.resolve() if given.shared.is_dir() else None
    if shared is None:
        print(f"{given.shared}: no such folder; what needs it is skipped")
    if given.command == "corpus":
        from record_corpus import make_corpus

        return make_corpus(given.out.resolve(), shared)
    cases = read_cases(Path(__file__).with_name("record_cases.txt")) if given.command == "make" else LOSSES
    with tempfile.TemporaryDirectory() as nothing:
        return make(given.out, given.corpus or Path(nothing), given.package, shared, cases, given.only)


if __name__ == "__main__":
    sys.exit(main())
