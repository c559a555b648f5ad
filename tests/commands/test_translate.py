"""`gan-nst translate`: its options, its exit codes, Ctrl-C, and several processes at once."""

import logging
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from helpers_runs import ENVIRONMENT, finish, one_line
from PIL import Image

from gan_nst.cli import make_parser
from gan_nst.commands.translate import translate
from gan_nst.core import device as processes
from gan_nst.core import terminal as messages
from gan_nst.core import terminal as progress
from gan_nst.core.errors import SettingsError
from gan_nst.core.options import TranslateOptions, TranslatorOptions
from gan_nst.images.files import find_images
from gan_nst.images.photo import read_photo
from gan_nst.inference.exported import Description, TrainingScale, export
from gan_nst.networks import build
from gan_nst.runs.generators import load_translator

SMALL = {"name": "resnet", "width": 4, "blocks": 1}


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    """The file of a tiny generator."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("generator") / "g.safetensors"
    described = Description(
        network=SMALL, translation="ab", training_scale=TrainingScale(load_size=32, crop_size=32), method="x"
    )
    export(build(SMALL), described, path)
    return path


def fill(root, *names, size=(33, 40)):
    rng = np.random.default_rng(0)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(root / name)
    return root


def parsed(*options):
    return make_parser().parse_args(["translate", "run", "in", "--output", "out", *options])


def test_sizes_are_parsed():
    for text, size in {
        "1.5GiB": 3 * 2**29,
        "1.5G": 3 * 2**29,
        "2g": 2**31,
        "800M": 800 * 2**20,
        "1500MB": 1_500_000_000,
        "0.5 TiB": 2**39,
    }.items():
        assert TranslateOptions(memory=text).memory == size
    for text, count in {"600M": 600_000_000, "12000": 12_000, "1.2G": 1_200_000_000, "30k": 30_000}.items():
        assert TranslateOptions(max_pixels=text).max_pixels == count
    assert (TranslateOptions().memory, TranslateOptions().max_pixels) == (3 * 2**29, 512_000_000)


def test_options_that_are_not_given_keep_their_defaults():
    assert vars(parsed()).keys() == {"source", "images", "output", "command", "quiet"}


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--memory", "much", "expected a size such as 1.5GiB or 800M, got 'much'"),
        ("--memory", "-1G", "expected a size"),
        ("--memory", "2", "expected a size"),
        ("--max-pixels", "0", "expected a number such as 600M, got '0'"),
        ("--max-pixels", "6e8", "expected a number such as 600M"),
        ("--max-pixels", "9" * 400, "expected a number such as 600M"),
        ("--memory", "9" * 400 + "G", "expected a size"),
        ("--strength", "1.5", "expected a number from 0 to 1, got '1.5'"),
        ("--strength", "nan", "expected a number from 0 to 1"),
        ("--scale", "0", "expected a number above 0 and up to 1, got '0'"),
        ("--quality", "0", "expected a whole number from 1 to 100, got '0'"),
        ("--quality", "101", "expected a whole number from 1 to 100"),
        ("--suffix", "a/b", "expected a part of a file's name, got 'a/b'"),
        ("--format", "gif", "expected one of png, jpeg, webp, tiff, avif, same, got 'gif'"),
        ("--chroma", "4:1:1", "expected one of 4:4:4, 4:2:2, 4:2:0"),
        ("--preserve-color", "hue", "expected one of none, luma, statistics"),
    ],
)
def test_values_out_of_range_are_refused(gan_nst, option, value, message):
    result = gan_nst("translate", "run", "in", "--output", "out", f"{option}={value}")
    one_line(result, f"{option}: {message}")


def test_every_option_reaches_its_place(gan_nst, generator, tmp_path, monkeypatch):
    from gan_nst.commands import translate as command

    seen = {}

    def spy(translator, source, output, options, share):
        seen.update(translator=translator, options=options, share=share)
        return command.Outcome()

    monkeypatch.setattr(command, "translate_folder", spy)
    options = {
        "--device": "cpu",
        "--precision": "bfloat16",
        "--format": "jpeg",
        "--suffix": "_x",
        "--quality": 70,
        "--chroma": "4:2:0",
        "--preserve-color": "luma",
        "--strength": 0.5,
        "--scale": 0.25,
        "--memory": "100M",
        "--max-pixels": 9000,
        "--scratch": tmp_path,
    }
    typed = [part for option in options.items() for part in option]
    source = fill(tmp_path / "in", "a.png")
    code, _, _ = gan_nst("translate", generator, source, "--output", "out", *typed, "--resume")
    assert code == 0
    translator, options = seen["translator"], seen["options"]
    assert (translator.memory, translator.scratch) == (100 * 2**20, tmp_path)
    assert translator.precision == "bfloat16"
    assert (options.format, options.suffix) == ("jpeg", "_x")
    assert (options.quality, options.chroma) == (70, "4:2:0")
    assert (options.preserve_color, options.strength, options.scale) == ("luma", 0.5, 0.25)
    assert (options.resume, options.max_pixels, seen["share"]) == (True, 9000, (0, 1))


def test_what_was_done_is_reported(gan_nst, generator, tmp_path):
    source = fill(tmp_path / "in", "a.png", "b.png", "c.png")
    code, out, err = gan_nst("translate", generator, source, "--output", "out")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "3 images translated into out"
    (source / "c.png").write_text("broken")
    (tmp_path / "out" / "b.png").unlink()
    code, out, err = gan_nst("translate", generator, source, "--output", "out", "--resume")
    assert code == 1
    assert out.splitlines()[-1] == "1 image translated into out, 1 already finished, 1 failed"
    assert err.splitlines()[-1] == "gan-nst: 1 image could not be translated"
    assert "c.png" in err.splitlines()[0]
    assert gan_nst("--quiet", "translate", generator, source / "a.png", "--output", "x/y.jpg") == (0, "", "")
    assert read_photo(tmp_path / "x" / "y.jpg").pixels.shape == (33, 40, 3)


def test_mistakes_in_where_to_write(gan_nst, generator, tmp_path):
    source = fill(tmp_path / "in", "a.png")

    def refused(*arguments):
        return gan_nst("translate", generator, *arguments)

    one_line(refused(source, "--output", source), "would overwrite an input")
    one_line(refused(source / "a.png", "--output", "out.gif"), "out.gif", "written as .png")
    one_line(refused(source / "a.png", "--output", "x.png", "--format", "jpeg"), "omit --format jpeg")
    one_line(refused(source, "--output", source / "a.png"), "is a file")
    one_line(refused(source / "a.png", "--output", source / "a.png" / "out"), "could not be created")
    one_line(
        refused(source, "--output", source, "--format", "webp", "--resume"), "--resume", "another folder"
    )


@pytest.mark.parametrize("name", ["em\npty.png", "\x1b[31mred.png", "\u202egnp.png", "\udcff.png"], ids=ascii)
def test_a_message_is_one_line_for_any_file_name(gan_nst, generator, tmp_path, name):
    escaped = name.encode("unicode_escape").decode()
    source = fill(tmp_path / "in", "good.png")
    (source / name).write_bytes(b"")
    code, _, err = gan_nst("translate", generator, source, "--output", tmp_path / "out", "--device", "cpu")
    assert code == 1
    first, last = err.splitlines()
    assert first.startswith(f"error: skipped: {source}/{escaped}: not a readable image")
    assert last == "gan-nst: 1 image could not be translated"
    missing = gan_nst("translate", generator, source / f"no{name}", "--output", tmp_path / "out")
    one_line(missing, f"no{escaped}: no such file or folder")
    code, out, err = gan_nst(
        "translate", generator, source / "good.png", "--output", tmp_path / f"to{name} x"
    )
    assert (code, err) == (0, "")
    assert f"1 image translated into {tmp_path}/to{escaped} x" in out.splitlines()


def test_a_progress_bar_escapes_names(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # makes rich draw even without a terminal
    monkeypatch.setattr(progress, "progress_shown", lambda: True)
    with progress.progress_bar("translating [/x] \x1b[31m.mp4") as report:
        report(0.5)
    assert list(progress.track([1], "[/x]\n")) == [1]
    assert "[/x]" in (text := capsys.readouterr().err)
    assert "\x1b[31m.mp4" not in text


def begin(*arguments, **variables):
    """Starts `gan-nst ARGUMENTS`, to be interrupted."""
    return subprocess.Popen(
        [sys.executable, "-m", "gan_nst", *map(str, arguments)],
        env={**ENVIRONMENT, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # If the tests run as a shell's background job, ignoring Ctrl-C would be inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def test_ctrl_c_leaves_only_complete_files(generator, tmp_path):
    source = fill(tmp_path / "in", *(f"{number:03}.png" for number in range(200)), size=(256, 256))
    output = tmp_path / "out"
    process = begin("translate", generator, source, "--output", output)
    deadline = time.monotonic() + 60
    while len(find_images(output)) < 5 and time.monotonic() < deadline:
        assert process.poll() is None, finish(process)
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert (code, err) == (130, "gan-nst: interrupted\n")
    done = find_images(output)
    assert 5 <= len(done) < 200
    assert sorted(os.listdir(output)) == [path.name for path in done]
    assert all(read_photo(path).pixels.shape == (256, 256, 3) for path in done)


def test_processes_share_a_folder(generator, tmp_path):
    """Two processes, started manually: every image is translated once."""
    source = fill(tmp_path / "in", *(f"{number}.png" for number in range(9)), "c/x.png", "c/y.png")
    arguments = ("translate", generator, source, "--output", tmp_path / "out")
    started = [begin(*arguments, RANK=str(number), WORLD_SIZE="2") for number in range(2)]
    results = [finish(process) for process in started]
    assert [code for code, _, _ in results] == [0, 0]
    summaries = [out.splitlines()[-1] for _, out, _ in results]
    assert summaries[0].startswith("process 1 of 2: 6 images translated")
    assert summaries[1].startswith("process 2 of 2: 5 images translated")
    assert len(find_images(tmp_path / "out")) == 11
    same = TranslateOptions(precision=load_translator(generator).precision)
    alone = translate(generator, source, tmp_path / "alone", same)
    for path in alone.written:
        other = tmp_path / "out" / path.relative_to(tmp_path / "alone")
        np.testing.assert_allclose(read_photo(path).pixels, read_photo(other).pixels, atol=1)


def test_a_broken_image_does_not_stop_other_processes(generator, tmp_path):
    """All images of one process are broken, so that it finishes, and fails, at once."""
    source = fill(tmp_path / "in", *(f"{number}.png" for number in range(10)), size=(600, 600))
    for path in find_images(source)[::2]:
        path.write_bytes(b"")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, "-m", "gan_nst", "translate", generator, source, "--output", tmp_path / "out"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert len(find_images(tmp_path / "out")) == 5, done.stderr
    assert "process 1 of 2: 0 images translated" in done.stdout
    assert "process 2 of 2: 5 images translated" in done.stdout


@pytest.mark.parametrize(
    ("variables", "found"),
    [({}, (0, 1)), ({"RANK": "2", "WORLD_SIZE": "3"}, (2, 3)), ({"WORLD_SIZE": "1"}, (0, 1))],
)
def test_the_share_of_a_process(monkeypatch, variables, found):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert processes.rank_and_count() == found


@pytest.mark.parametrize(("number", "count"), [("2", "2"), ("-1", "2"), ("x", "2"), ("0", "0"), ("1", "")])
def test_an_inconsistent_environment_is_refused(gan_nst, generator, monkeypatch, number, count):
    monkeypatch.setenv("RANK", number)
    monkeypatch.setenv("WORLD_SIZE", count)
    one_line(gan_nst("translate", generator, "in", "--output", "out"), f"RANK={number} WORLD_SIZE={count}")


@pytest.mark.parametrize(
    ("device", "count", "gpus", "found"),
    [
        ("auto", "4", 2, "cuda:1"),
        ("cuda", "4", 4, "cuda:3"),
        ("auto", "1", 4, "auto"),
        ("cpu", "4", 4, "cpu"),
        ("cuda:0", "4", 4, "cuda:0"),
        ("auto", "4", 0, "auto"),
    ],
)
def test_each_process_uses_its_own_gpu(monkeypatch, device, count, gpus, found):
    monkeypatch.setenv("RANK", "3" if count == "4" else "0")
    monkeypatch.setenv("WORLD_SIZE", count)
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert processes.device_for_rank(device) == found


def test_processes_started_by_hand_do_not_wait(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    processes.wait_for_all()


def test_a_missing_scratch_folder_is_reported_at_once(generator):
    with pytest.raises(SettingsError, match=r"^--scratch nowhere: no such folder$"):
        load_translator(generator, TranslatorOptions(scratch="nowhere"))


def test_videos_among_images_are_reported(generator, tmp_path, caplog):
    fill(tmp_path / "in", "a.png")
    (tmp_path / "in" / "b.mp4").touch()
    translate(generator, tmp_path / "in", tmp_path / "out")
    assert "skipping 1 video" in caplog.text


def test_tables_keep_their_lines_and_are_escaped(capsys):
    messages.configure_logging(quiet=False)
    logging.getLogger("gan_nst").info("FID  1\nKID  \x1b[31m2")
    assert capsys.readouterr().out == "FID  1\nKID  \\x1b[31m2\n"
