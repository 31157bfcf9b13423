"""Studies whose finished runs are recorded in a file, which a later session continues in an empty folder."""

import csv
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import reproduce
from experiments.cli.errors import start
from experiments.report import drawn
from experiments.report.run_curves import curves_of
from experiments.runner import finished_file
from experiments.study import study_runs
from experiments.training.exceptions import UnusableError
from tests.experiments.test_command_line import call
from tests.experiments.test_time_limit import passes_at

STUDY = ["--model", "tiny", "--seeds", "0", "1", "--methods", "sgd", "sam", "--strategies", "increasing"]
STUDY += ["--increasing-plan", "1x32,1x64", "--sharpness.steps", "1", "--sharpness.examples", "16"]
NAMES = [f"{method}-increasing-{seed}" for seed in (0, 1) for method in ("sgd", "sam")]


@pytest.fixture
def command(tiny: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the study in a folder with a file of finished runs, and returns the exit code."""
    monkeypatch.setattr(drawn, "pictures_of", drawn.main_pictures_of)

    def called(output: Path, file: Path, *arguments: str) -> int:
        try:
            words = (*STUDY, "--output", str(output), "--finished", str(file), *arguments)
            start(partial(call, reproduce, monkeypatch, *words))
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    return called


def reported(output: Path) -> list[str]:
    return [(output / "report" / name).read_text() for name in ("report.md", "runs.csv", "epochs.csv")]


def test_a_study_over_several_sessions_runs_what_is_missing_and_reports_the_same(
    command: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "finished.jsonl"
    assert command(tmp_path / "first", file, "--part", "1/2") == 0
    assert len(file.read_text().splitlines()) == 2
    whole = tmp_path / "first"
    capsys.readouterr()
    assert command(tmp_path / "second", file) == 0
    assert "4 runs of tiny on digits, 2 of them to do" in capsys.readouterr().out
    assert command(whole, tmp_path / "other.jsonl") == 0
    assert len(file.read_text().splitlines()) == 4
    assert reported(tmp_path / "second") == reported(whole)

    def never(*arguments: Any) -> None:
        raise AssertionError("no run is to be made")

    monkeypatch.setattr(study_runs, "execute", never)
    monkeypatch.setattr(study_runs.measure_runs, "measure_finished_run", never)
    before = file.read_bytes()
    assert command(tmp_path / "third", file) == 0
    assert reported(tmp_path / "third") == reported(whole)
    assert file.read_bytes() == before
    for name in NAMES:
        assert not (tmp_path / "third" / name / "checkpoint").exists()
        found, wanted = curves_of(tmp_path / "third" / name), curves_of(whole / name)
        assert found.keys() == wanted.keys() >= {"learning_rate", "batch_size", "grad_norm", "test_error"}
        for quantity, curve in wanted.items():
            for mine, other in zip(found[quantity], curve, strict=True):
                np.testing.assert_allclose(mine, other, rtol=1e-6)


def test_a_study_with_a_limit_continues_from_the_file_alone(
    command: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command(tmp_path / "whole", tmp_path / "whole.jsonl") == 0
    file, sessions = tmp_path / "finished.jsonl", 0
    while True:
        sessions += 1
        with monkeypatch.context() as limited:
            passes_at(limited, 50)
            code = command(tmp_path / f"session {sessions}", file, "--time-limit", "25m")
        assert len(file.read_text().splitlines()) == min(sessions, 4)
        if code == 0:
            break
        assert code == 75
        assert f"{sessions} of 4 runs are done and {4 - sessions} are left" in capsys.readouterr().err
        shutil.rmtree(tmp_path / f"session {sessions}")
    assert reported(tmp_path / f"session {sessions}") == reported(tmp_path / "whole")


def test_a_tuned_study_continues_from_the_file_alone(
    command: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file, tuned = tmp_path / "finished.jsonl", ["--tune", "--methods", "sgd", "--seeds", "0", "--tuning.seeds", "5"]
    tuned += ["--tuning.rates", "1e-4", "1"]
    assert command(tmp_path / "first", file, *tuned) == 0
    lines = len(file.read_text().splitlines())
    capsys.readouterr()
    assert command(tmp_path / "second", file, *tuned) == 0
    out = capsys.readouterr().out
    assert lines == 2 * (2 + 1)
    assert out.count(", 0 of them to do") == 2 * 2
    choices = [(tmp_path / name / "as_given" / "choices.md").read_text() for name in ("first", "second")]
    assert choices[0] == choices[1]


def test_a_line_of_an_earlier_version_with_fewer_settings_is_read(command: Any, tmp_path: Path) -> None:
    file = tmp_path / "finished.jsonl"
    assert command(tmp_path / "study", file, "--only", "sgd-*-0") == 0
    (config,) = finished_file.read(file)
    values = json.loads(file.read_text())
    del values["checksum"], values["config"]["label_noise"]
    values["digest"] = finished_file._digest(values["config"])
    file.write_text(json.dumps(values | {"checksum": finished_file._digest(values)}) + "\n")
    assert list(finished_file.read(file)) == [config]


def test_a_line_has_the_config_the_figures_the_machine_and_the_version(command: Any, tmp_path: Path) -> None:
    file = tmp_path / "there" / "finished.jsonl"
    assert command(tmp_path / "study", file, "--only", "sam-increasing-0") == 0
    values = json.loads(file.read_text())
    assert values["name"] == "sam increasing, seed 0"
    assert values["config"]["method"] == "sam"
    assert values["result"]["updates"] == 24
    assert [record["epoch"] for record in values["epochs"]] == [1, 2]
    assert {record["kind"] for record in values["sharpness"]} == {"worst_case"}
    assert values["machine"].keys() == {"processor", "cores", "device", "jax", "version"}
    assert values["hours"] == pytest.approx(values["result"]["seconds"] / 3600)
    assert len(values["digest"]) == len(values["checksum"]) == 64


def test_a_run_that_was_complete_before_is_recorded_too(command: Any, tmp_path: Path) -> None:
    assert command(tmp_path / "study", tmp_path / "first.jsonl", "--only", "sgd-*-0") == 0
    assert command(tmp_path / "study", tmp_path / "second.jsonl", "--only", "sgd-*-0") == 0
    first, second = (finished_file.read(tmp_path / f"{name}.jsonl") for name in ("first", "second"))
    assert first == second
    assert len(first) == 1


def test_a_later_measurement_of_sharpness_is_recorded_in_a_line_of_its_own(command: Any, tmp_path: Path) -> None:
    file, only = tmp_path / "finished.jsonl", ["--only", "sgd-*-0"]
    assert command(tmp_path / "study", file, *only) == 0
    assert command(tmp_path / "study", file, *only, "--sharpness.measures", "trace") == 0
    assert len(file.read_text().splitlines()) == 2
    (finished,) = finished_file.read(file).values()
    assert {record.kind for record in finished.sharpness} == {"worst_case", "trace"}


def test_sharpness_that_a_restored_run_lacks_is_reported_as_not_measured(
    command: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file, only = tmp_path / "finished.jsonl", ["--only", "sgd-*-0"]
    assert command(tmp_path / "study", file, *only) == 0
    shutil.rmtree(tmp_path / "study")
    assert command(tmp_path / "study", file, *only, "--sharpness.measures", "trace") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "not measured:" in out
    assert "has no readable trained state" in out


def test_a_file_that_cannot_be_written_is_unchanged(
    command: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "finished.jsonl"
    assert command(tmp_path / "study", file, "--only", "sgd-*-0") == 0
    before = file.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(finished_file.os, "fsync", full)
    (finished,) = finished_file.read(file).values()
    with pytest.raises(UnusableError, match=r"cannot be written \(No space left on device\): free space"):
        finished_file.append(file, finished)
    assert file.read_bytes() == before


def test_a_file_that_cannot_be_written_is_refused_before_the_first_run(
    command: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name, reason in (("folder", "which cannot be written (Is a directory)"), ("link", "is a symbolic link")):
        assert command(tmp_path / "study", tmp_path / name) == 2
        assert reason in capsys.readouterr().err
    assert not list(tmp_path.glob("study/*/result.json"))


def changed(line: str, **values: Any) -> str:
    return json.dumps(json.loads(line) | values)


DAMAGES: dict[str, Callable[[str], str]] = {
    "no JSON": lambda line: "{" + line,
    "a part": lambda line: line[: len(line) // 2],
    "a blank line": lambda line: "",
    "a list": lambda line: "[1, 2]",
    "another object": lambda line: '{"kind": "epoch", "epoch": 1}',
    "another figure": lambda line: line.replace('"updates": 24', '"updates": 25'),
    "another config": lambda line: changed(line, config={"method": "sam"}),
    "another digest": lambda line: changed(line, digest="0" * 64),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_foreign_line_is_refused_by_its_number(
    command: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path, damage: str
) -> None:
    file = tmp_path / "finished.jsonl"
    assert command(tmp_path / "study", file, "--only", "sgd-*-0") == 0
    line = file.read_text().rstrip("\n")
    file.write_text(f"{line}\n{DAMAGES[damage](line)}\n{line}\n")
    capsys.readouterr()
    assert command(tmp_path / "again", file) == 2
    said = capsys.readouterr().err
    assert "line 2 is not the record of a finished run" in said
    assert said.count("\n") == 1
    assert not list((tmp_path / "again").glob("*/result.json"))


def test_a_last_line_that_is_incomplete_is_refused(command: Any, tmp_path: Path) -> None:
    file = tmp_path / "finished.jsonl"
    assert command(tmp_path / "study", file, "--only", "sgd-*-0") == 0
    file.write_bytes(file.read_bytes().rstrip(b"\n"))
    with pytest.raises(UnusableError, match="line 1 is incomplete, since it has no line break: remove this line"):
        finished_file.read(file)


def test_different_results_of_one_run_are_refused(
    command: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file, only = tmp_path / "finished.jsonl", ["--only", "sgd-*-0"]
    assert command(tmp_path / "study", file, *only) == 0
    result = tmp_path / "study" / "sgd-increasing-0" / "result.json"
    result.write_text(json.dumps(json.loads(result.read_text()) | {"test_error": 0.5}))
    assert command(tmp_path / "study", file, *only) == 2
    assert "have different results of the run sgd increasing, seed 0" in capsys.readouterr().err
    assert command(tmp_path / "study", tmp_path / "other.jsonl", *only) == 0
    file.write_text(file.read_text() + (tmp_path / "other.jsonl").read_text())
    with pytest.raises(UnusableError, match="line 2 and an earlier line have different results of one run"):
        finished_file.read(file)


def test_the_file_of_epochs_has_a_row_per_run_and_epoch(command: Any, tmp_path: Path) -> None:
    assert command(tmp_path / "study", tmp_path / "finished.jsonl") == 0
    with (tmp_path / "study" / "report" / "epochs.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 2
    last = rows[-1]
    assert {row["run"] for row in rows} == set(NAMES)
    assert (last["strategy"], last["epoch"], last["step"], last["examples"]) == ("increasing", "2", "24", "1024")
    assert (last["batch_size"], last["learning_rate"]) == ("64", "0.1")
    results = [json.loads((tmp_path / "study" / name / "result.json").read_text()) for name in NAMES]
    for row in rows[1::2]:
        result = results[NAMES.index(row["run"])]
        for name in ("train_loss", "train_error", "test_loss", "test_error"):
            assert float(row[name]) == pytest.approx(result[name], rel=1e-5)
