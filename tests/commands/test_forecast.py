"""What a training reports in its first steps: time, memory, and whether it is compiled."""

import re

import pytest
import yaml
from helpers_runs import CONFIG

ABOUT = re.compile(
    r"^about \d+ (s|min) for (\d+) steps of \S+ s, and validation; \d+\.\d GiB of memory", re.M
)


def test_a_dry_run_reports_time_and_memory_and_writes_nothing(gan_nst, tiny, tmp_path):
    folder = tmp_path / "run"
    code, out, _ = gan_nst("train", CONFIG, *tiny, "training.steps=30", "--output", folder, "--dry-run")
    assert code == 0
    assert ABOUT.search(out).group(2) == "30"
    assert not folder.exists()


def test_a_dry_run_of_a_resumed_run_reports_the_remaining_time(gan_nst, tiny, tmp_path):
    folder = tmp_path / "run"
    steps = ["training.steps=30", "training.stop_at=10"]
    assert gan_nst("train", CONFIG, *tiny, *steps, "--output", folder)[0] == 0
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    code, out, _ = gan_nst("train", "--resume", folder, "--dry-run")
    assert code == 0
    assert ABOUT.search(out).group(2) == "20"
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_dry_run_too_short_for_an_estimate_reports_no_time(gan_nst, tiny):
    code, out, _ = gan_nst("train", CONFIG, *tiny, "training.steps=3", "--dry-run")
    assert code == 0
    assert not ABOUT.search(out)


def test_training_reports_them_in_its_first_lines(gan_nst, tiny, tmp_path):
    folder = tmp_path / "run"
    code, out, _ = gan_nst(
        "train", CONFIG, *tiny, "training.steps=12", "training.log_every=6", "--output", folder
    )
    assert code == 0
    assert ABOUT.search(out).start() < out.index("step 6/12")


def test_a_short_run_is_not_compiled_and_says_so_in_its_settings(gan_nst, tiny, tmp_path):
    folder = tmp_path / "run"
    assert gan_nst("train", CONFIG, *tiny, "training.steps=2", "--output", folder)[0] == 0
    assert yaml.safe_load((folder / "settings.yaml").read_text())["compile"] == "never"


@pytest.mark.parametrize("changed", ["compile=never", "training.activation_checkpointing=true"])
def test_settings_that_do_not_affect_results_may_change_on_resume(gan_nst, tiny, tmp_path, changed):
    folder = tmp_path / "run"
    steps = ["training.steps=4", "training.stop_at=2"]
    assert gan_nst("train", CONFIG, *tiny, *steps, "--output", folder)[0] == 0
    assert gan_nst("train", "--resume", folder, changed)[0] == 0
