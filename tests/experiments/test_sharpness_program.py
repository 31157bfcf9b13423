"""The programs that measure sharpness: of finished runs, in a study, and while training."""

import math
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments import reproduce
from experiments import train as train_program
from experiments.config import Config
from experiments.runner import run, sharpness_records
from experiments.sharpness import SharpnessSettings, replay
from experiments.sharpness import __main__ as sharpness
from tests.experiments.conftest import train
from tests.experiments.finished_runs import finished, measured


def call(program: Any, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [program.__name__, *arguments])
    program.main()


def test_during_training_sharpness_is_measured_every_few_epochs(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = ("--sharpness.steps", "2", "--sharpness.examples", "48", "--sharpness.during", "2")
    arguments = ("--model", tiny, "--method", "gsam", "--batch-plan", "5x64", *quick)
    call(train_program, monkeypatch, *arguments, "--output", str(tmp_path / "run"))
    while_training = sharpness_records.read(tmp_path / "run")
    assert [record.epoch for record in while_training] == [2, 2, 4, 4, 5, 5]

    config = Config.load(tmp_path / "run" / "config.json")
    (tmp_path / "run" / "sharpness.jsonl").unlink()
    settings = SharpnessSettings(steps=2, examples=48, during=2)
    assert replay(tmp_path / "run", config, run.load(config), settings)
    assert sharpness_records.read(tmp_path / "run") == while_training


def test_a_missing_checkpoint_is_reported(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(tmp_path / "run", tiny)
    shutil.rmtree(tmp_path / "run" / "checkpoint")
    for arguments in ((), ("--during", "1")):
        with pytest.raises(SystemExit, match="2"):
            call(sharpness, monkeypatch, str(tmp_path), *arguments)
        assert "has no readable trained state" in capsys.readouterr().err


def test_settings_without_effect_are_refused(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        call(train_program, monkeypatch, "--model", tiny, "--sharpness.steps", "2", "--output", str(tmp_path / "run"))
    assert "sharpness.during is None" in capsys.readouterr().err


def test_the_program_measures_every_run_that_it_finds(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1):
        train(tmp_path / f"sam-{seed}", model=tiny, method="sam", batch_plan="1x64", seed=seed)
    chosen = ("worst_case", "trace")
    call(sharpness, monkeypatch, str(tmp_path), "--steps", "2", "--radius-rms", "0.5", "--measures", *chosen)
    printed = capsys.readouterr().out
    assert all(printed.count(kind.replace("_", " ")) >= 2 for kind in chosen)
    assert re.search(r"run +measure +radius +settings +value", printed)
    for seed in (0, 1):
        assert f"sam-{seed}" in printed
        assert measured(tmp_path / f"sam-{seed}")[1]["rho"] == pytest.approx(0.5 / math.sqrt(778), rel=1e-5)


def test_a_study_measures_only_what_is_missing(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", tiny, "--seeds", "0", "--constant-plan", "1x64", "--increasing-plan", "1x64"]
    arguments += ["--strategies", "constant", "--sharpness.steps", "2", "--output", str(tmp_path)]
    call(reproduce, monkeypatch, *arguments)
    assert "test error, % / sharpness" in capsys.readouterr().out
    file = tmp_path / "sgd-constant-0" / "sharpness.jsonl"
    file.unlink()
    shutil.rmtree(tmp_path / "gsam-constant-0" / "checkpoint")
    (tmp_path / "gsam-constant-0" / "sharpness.jsonl").unlink()
    untouched = (tmp_path / "sam-constant-0" / "sharpness.jsonl").stat().st_mtime_ns
    call(reproduce, monkeypatch, *arguments)
    assert "gsam-constant-0 has no readable trained state" in capsys.readouterr().out
    assert file.is_file()
    assert (tmp_path / "sam-constant-0" / "sharpness.jsonl").stat().st_mtime_ns == untouched
