"""The lines of a file of finished runs: what they hold, and which of them are refused."""

# ruff: noqa: F811 - the imported fixture is an argument of the tests

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.runner import finished_file
from experiments.training.exceptions import UnusableError
from tests.experiments.test_finished_file import command  # noqa: F401 - a fixture


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
def test_a_damaged_or_foreign_line_is_refused_with_its_number(
    command: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path, damage: str
) -> None:
    file = tmp_path / "finished.jsonl"
    assert command(tmp_path / "study", file, "--only", "sgd-*-0") == 0
    line = file.read_text().rstrip("\n")
    file.write_text(f"{line}\n{DAMAGES[damage](line)}\n{line}\n")
    capsys.readouterr()
    assert command(tmp_path / "again", file) == 2
    output = capsys.readouterr().err
    assert "line 2 is not the record of a finished run" in output
    assert output.count("\n") == 1
    assert not list((tmp_path / "again").glob("*/result.json"))


def test_an_incomplete_last_line_is_refused(command: Any, tmp_path: Path) -> None:
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
