import gc
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments import reproduce, train
from experiments.cli.errors import start
from experiments.data import catalogue
from experiments.runner import run
from experiments.study import Grid
from experiments.study.run_spec import execute, is_done


def call(program: object, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["program", *arguments])
    program.main()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--dataset", "cifar0"], "digits"),
        (["--model", "resnet"], "small_resnet"),
        (["--method", "adam"], "gsam"),
        (["--batch-plan", "40*16"], "epochs x size"),
        (["--batch-plan", "40x1024"], "larger than the data"),
        (["--train-examples", "513"], "train_examples is 513, and digits has 512 training examples: give at most"),
        (["--batch-plan", "99999999999x16"], "updates"),
        (["--rho", "-1"], "rho"),
        (["--rho", "much"], "rho"),
        (["--lr-schedule", "triangle"], "cosine"),
        (["--no-such-flag", "1"], "no-such-flag"),
    ],
)
def test_invalid_options_end_in_an_error_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], word: str
) -> None:
    output = tmp_path / "run"
    with pytest.raises(SystemExit) as stop:
        call(train, monkeypatch, "--output", str(output), *arguments)
    captured = capsys.readouterr()
    assert stop.value.code == 2
    assert word in captured.err
    assert "Traceback" not in captured.err
    assert not output.exists()


def test_a_folder_that_is_not_empty_stays_unchanged(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "result.json").write_text("mine")
    with pytest.raises(SystemExit) as stop:
        call(train, monkeypatch, "--output", str(tmp_path))
    assert stop.value.code == 2
    assert "holds result.json already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
    assert (tmp_path / "result.json").read_text() == "mine"


def test_an_output_that_is_a_file_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stop:
        call(train, monkeypatch, "--output", str(tmp_path / "file"))
    assert stop.value.code == 2
    assert "cannot be used" in capsys.readouterr().err


def test_missing_data_end_in_an_error_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    catalogue._scans.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(SystemExit) as stop:
        call(train, monkeypatch, "--output", str(tmp_path / "run"))
    assert stop.value.code == 2
    assert "install" in capsys.readouterr().err


def test_training_reports_its_test_error_and_output_paths(
    tiny: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    output = tmp_path / "run"
    call(train, monkeypatch, "--model", tiny, "--batch-plan", "1x128", "--output", str(output))
    assert "test error" in capsys.readouterr().out
    assert {path.name for path in output.iterdir()} == {"config.json", "metrics.jsonl", "checkpoint", "result.json"}


def test_the_program_runs_as_a_module_and_fails_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "experiments.train", "--method", "none", "--output", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)  # noqa: S603
    assert done.returncode == 2
    assert done.stderr.startswith("error: method is 'none': choose one of sgd, sam, gsam, ")
    assert done.stderr.count("\n") == 1


GRID = ["--constant-plan", "2x128", "--increasing-plan", "1x64,1x128", "--seeds", "0", "1"]


def test_the_grid_is_run_once_and_reported(
    tiny: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    study = ["--model", tiny, "--output", str(tmp_path), "--methods", "sgd", "gsam", *GRID]
    study += ["--strategies", "constant", "cosine"]
    study += ["--sharpness.steps", "1", "--sharpness.examples", "64"]
    call(reproduce, monkeypatch, *study)
    first = capsys.readouterr().out
    assert "8 runs of tiny on digits, 8 of them to do" in first
    page = (tmp_path / "report" / "report.md").read_text()
    assert len(re.findall(r"\d ± \d", page)) == 4 * 4  # error, loss, and sharpness at two radii
    assert "| updates" in page
    assert (tmp_path / "report" / "report.html").exists()
    changed = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("metrics.jsonl")}
    (tmp_path / "gsam-cosine-1" / "result.json").rename(tmp_path / "kept.json")
    (tmp_path / "gsam-cosine-1").rename(tmp_path / "gsam-cosine-1.unfinished")
    call(reproduce, monkeypatch, *study)
    assert "8 runs of tiny on digits, 1 of them to do" in capsys.readouterr().out
    again = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("metrics.jsonl")}
    assert [path.parent.name for path in again if again[path] != changed[path]] == ["gsam-cosine-1"]
    again = (tmp_path / "report" / "report.md").read_text()
    heading = "## Details: Runs"  # the sections from here on contain times
    assert heading in page
    assert again.partition(heading)[0] == page.partition(heading)[0]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--constant-plan", "0x16"], "constant_plan is '0x16'"),
        (["--increasing-plan", "16"], "increasing_plan is '16'"),
        (["--seeds", "1", "1"], "seeds is (1, 1)"),
        (["--momentum", "1"], "momentum is 1.0"),
        (["--model", "resnet"], "small_resnet"),
    ],
)
def test_impossible_studies_end_in_an_error_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], word: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        call(reproduce, monkeypatch, "--output", str(tmp_path / "study"), *arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert word in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "study").exists()


def test_tensorboard_files_are_written_on_request(tiny: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    call(train, monkeypatch, "--model", tiny, "--batch-plan", "1x256", "--output", str(tmp_path), "--tensorboard")
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_imported_objects_are_frozen_for_the_garbage_collector() -> None:
    imported = len(gc.get_objects())
    left: list[int] = []
    start(lambda: left.append(len(gc.get_objects())))
    assert left[0] < imported / 10
    assert gc.get_freeze_count() == 0


def test_an_interrupted_program_reports_the_interruption(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        start(interrupted)
    assert stop.value.code == 130
    assert capsys.readouterr().err == "stopped.\n"


def test_runs_with_other_settings_are_not_mixed_into_a_study(
    tiny: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "sgd-constant-0").mkdir()
    with pytest.raises(SystemExit) as stop:
        call(reproduce, monkeypatch, "--model", tiny, "--output", str(tmp_path), *GRID)
    assert stop.value.code == 2
    assert "holds another run" in capsys.readouterr().err


def test_a_study_needs_a_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stop:
        call(reproduce, monkeypatch, "--output", str(tmp_path / "file" / "study"), *GRID)
    assert stop.value.code == 2
    assert "cannot be used" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["config.json", "result.json", "metrics.jsonl"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text('{"half')], ids=["gone", "cut"])
def test_a_damaged_run_is_not_counted(tiny: str, tmp_path: Path, name: str, damage: Callable[[Path], object]) -> None:
    study = Grid.from_settings(output=tmp_path, model=tiny, constant_plan="1x256", seeds=(0,))
    spec = study.run_specs()[0]
    assert not is_done(spec)
    execute(spec, run.load(spec.config))
    assert is_done(spec)
    damage(spec.folder / name)
    with pytest.raises(ValueError, match="or a damaged one"):
        is_done(spec)


def test_a_run_that_diverges_writes_json(tiny: str, tmp_path: Path) -> None:
    study = Grid.from_settings(output=tmp_path, model=tiny, constant_plan="1x256", seeds=(0,), learning_rate=1e38)
    result = execute(study.run_specs()[0], run.load(study.run_specs()[0].config))
    assert result.test_loss is None
    assert "NaN" not in (study.run_specs()[0].folder / "result.json").read_text()
