"""Studies, runs, resumed runs, reports and measurements leave foreign files unchanged."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments import reproduce, train
from experiments.config import Config
from experiments.convergence import network_study
from experiments.report import __main__ as report
from experiments.runner import run
from experiments.sharpness import __main__ as sharpness
from experiments.training import run_folder
from experiments.training.atomic_write import write_whole
from experiments.training.exceptions import UnusableError
from experiments.training.run_folder import LOCK, hold_run_lock
from tests.experiments.interrupted_runs import execute, stopped
from tests.experiments.test_stop_and_resume import STUDY, command, constant_spec, unfinished_of  # noqa: F401

ARGUMENTS = ["--model", "tiny", "--batch-plan", "1x256"]
FOREIGN = ("thesis.tex", "checkpoint.txt", "checkpoint.best/w.npz", "checkpoints.old/5/w", "config.json.new", ".x.new")
SHARPNESS = ["--steps", "1", "--examples", "16"]


class ForeignFiles:
    """Foreign files and links that must not change."""

    def __init__(self, outside: Path) -> None:
        self._outside, self._files, self._links = outside, [], []
        (outside / "inside").mkdir(parents=True)
        self._write(outside / "file")
        self._write(outside / "inside" / "file")

    def add(self, folder: Path, *names: str) -> None:
        for name in names or FOREIGN:
            self._write(folder / name)
        if not names:
            self.link(folder / "link", "inside")
            self.link(folder / "to-file", "file")
            self.link(folder / "nowhere", "nothing")

    def link(self, path: Path, to: str) -> None:
        path.symlink_to(self._outside / to)
        self._links.append((path, self._outside / to))

    def moved(self, before: Path, after: Path) -> None:
        self._files = [after / path.relative_to(before) if before in path.parents else path for path in self._files]
        self._links = [
            (after / path.relative_to(before) if before in path.parents else path, to) for path, to in self._links
        ]

    def check(self) -> None:
        assert [path for path in self._files if not path.is_file() or path.read_text() != "mine"] == []
        assert [path for path, to in self._links if not path.is_symlink() or path.readlink() != to] == []

    def _write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
        self._files.append(path)


@pytest.fixture
def foreign_files(tmp_path: Path) -> ForeignFiles:
    return ForeignFiles(tmp_path / "outside")


def test_a_run_a_resume_a_measurement_and_a_report_leave_foreign_files_as_they_are(
    command: Any,  # noqa: F811
    foreign_files: ForeignFiles,
    tmp_path: Path,
) -> None:
    output = tmp_path / "run"
    foreign_files.add(output)
    assert command(train, *ARGUMENTS, "--output", str(output)) == 2
    assert command(train, *ARGUMENTS, "--output", str(output), "--resume") == 2
    foreign_files.check()
    shutil.copytree(output, tmp_path / "kept", symlinks=True)
    shutil.rmtree(output)
    stopped(output, Config.from_settings(model="tiny", batch_plan="1x256"), 2, every=1)
    shutil.copytree(tmp_path / "kept", output, dirs_exist_ok=True, symlinks=True)
    foreign_files.add(output / "checkpoints", "notes.txt")
    foreign_files.link(output / "checkpoints" / "link", "inside")
    assert command(train, *ARGUMENTS, "--output", str(output), "--resume") == 0
    foreign_files.check()
    assert not (output / "checkpoints" / "2").exists()
    foreign_files.add(output / "checkpoint", "thesis.tex")
    assert command(train, *ARGUMENTS, "--output", str(output), "--resume") == 0
    assert command(sharpness, *SHARPNESS, str(output)) == 0
    foreign_files.add(output / "report")
    assert command(report, str(output)) == 0
    foreign_files.check()


@pytest.mark.parametrize("name", ["report.md", "report.html", "runs.csv", "epochs.csv", "pictures"])
def test_a_report_is_not_written_through_a_link(
    command: Any,  # noqa: F811
    foreign_files: ForeignFiles,
    tmp_path: Path,
    name: str,
) -> None:
    execute(tmp_path / "run", Config.from_settings(model="tiny", batch_plan="1x512"))
    (tmp_path / "run" / "report").mkdir()
    foreign_files.link(tmp_path / "run" / "report" / name, "inside" if name == "pictures" else "file")
    assert command(report, str(tmp_path / "run")) == 2
    foreign_files.check()


def test_a_study_refuses_an_unfinished_folder_with_anything_foreign(
    command: Any,  # noqa: F811
    foreign_files: ForeignFiles,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    unfinished = unfinished_of(constant_spec(tmp_path / "study").folder)
    for name in ("thesis.tex", "tensorboard/mine.txt", "checkpoint.best/w.npz", "metrics.jsonl/mine"):
        foreign_files.add(unfinished, name)
        capsys.readouterr()
        assert command(reproduce, *STUDY, "--output", str(tmp_path / "study")) == 2
        assert capsys.readouterr().err.count("\n") == 1
        foreign_files.check()
        shutil.rmtree(unfinished)
        foreign_files._files = [path for path in foreign_files._files if unfinished not in path.parents]


def test_a_study_follows_no_link(
    command: Any,  # noqa: F811
    foreign_files: ForeignFiles,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    cell = constant_spec(tmp_path / "study")
    (tmp_path / "study").mkdir()
    for path, to in ((unfinished_of(cell.folder), "inside"), (cell.folder, "nothing")):
        foreign_files.link(path, to)
        assert command(reproduce, *STUDY, "--output", str(tmp_path / "study")) == 2
        assert "Traceback" not in capsys.readouterr().err
        foreign_files.check()
        path.unlink()
        foreign_files._links.clear()


def test_a_study_resumes_and_keeps_foreign_files(command: Any, foreign_files: ForeignFiles, tmp_path: Path) -> None:  # noqa: F811
    cell = constant_spec(tmp_path)
    stopped(unfinished_of(cell.folder), cell.config, 3)
    foreign_files.add(unfinished_of(cell.folder))
    assert command(reproduce, *STUDY, "--output", str(tmp_path)) == 0
    foreign_files.moved(unfinished_of(cell.folder), cell.folder)
    foreign_files.check()


@pytest.mark.parametrize(
    "place", ["checkpoint", "checkpoints", "result.json", "sharpness.jsonl", "checkpoint.orbax-checkpoint-tmp"]
)
@pytest.mark.parametrize("to", ["inside", "nothing"])
def test_a_link_in_place_of_a_run_file_is_refused_before_training(
    tiny: str, foreign_files: ForeignFiles, tmp_path: Path, place: str, to: str
) -> None:
    (tmp_path / "run").mkdir()
    foreign_files.link(tmp_path / "run" / place, to)
    config = Config.from_settings(model=tiny, batch_plan="1x512")
    with pytest.raises(UnusableError, match=f"run holds {place}, which does not belong to the run"):
        run.execute(config, run.load(config), tmp_path / "run", run.RunContext(track=lambda batches: 1 / 0))
    foreign_files.check()


def test_a_foreign_file_in_a_save_is_refused(tmp_path: Path, foreign_files: ForeignFiles) -> None:
    foreign_files.add(tmp_path / "run" / "checkpoints" / "5", "state/thesis.tex")
    with pytest.raises(UnusableError, match=r"run holds checkpoints/5/state/thesis.tex"):
        run_folder.remove_unfinished(tmp_path / "run")
    run_folder.remove(tmp_path / "run", "checkpoints")
    foreign_files.check()


def test_only_the_exact_temporary_names_are_removed(tmp_path: Path) -> None:
    for name in ("checkpoint.orbax-checkpoint-tmp/d", "checkpoint.orbax-checkpoint-tmp-17", "checkpoints/3"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "checkpoints" / "4.orbax-checkpoint-tmp" / "state.orbax-checkpoint-tmp").mkdir(parents=True)
    (tmp_path / "checkpoint.orbax-checkpoint-tmp" / "manifest.ocdbt").touch()
    (tmp_path / ".result.json.0123abcd.new").touch()
    kept = {"checkpoint.orbax-checkpoint-tmp.old", "checkpoint.orbax-checkpoint", "result.json.new", ".result.json.new"}
    for name in kept:
        (tmp_path / name).mkdir()
    run_folder.remove_unfinished(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints", *kept}
    assert os.listdir(tmp_path / "checkpoints") == ["3"]


def test_all_files_of_a_run_are_known(tiny: str, tmp_path: Path) -> None:
    config = Config.from_settings(model=tiny, batch_plan="2x128")
    stopped(tmp_path / "run", config, 5, every=2)
    assert run_folder.user_files(tmp_path / "run") == []
    execute(tmp_path / "run", config, tensorboard=True)
    assert run_folder.user_files(tmp_path / "run") == []
    for name in os.listdir(tmp_path / "run"):
        run_folder.remove(tmp_path / "run", name)
    assert os.listdir(tmp_path / "run") == []


PLACES: dict[str, Callable[[Path, ForeignFiles], object]] = {
    "a file": lambda path, foreign_files: foreign_files.add(path.parent, path.name),
    "a link": lambda path, foreign_files: foreign_files.link(path, "file"),
    "a folder": lambda path, foreign_files: foreign_files.add(path, "file"),
}


@pytest.mark.parametrize("kind", PLACES)
def test_a_users_file_with_the_name_of_the_lock_is_refused(
    tmp_path: Path, foreign_files: ForeignFiles, kind: str
) -> None:
    PLACES[kind](tmp_path / "run" / LOCK, foreign_files) if kind != "a link" else (tmp_path / "run").mkdir()
    if kind == "a link":
        foreign_files.link(tmp_path / "run" / LOCK, "file")
    with pytest.raises(UnusableError), hold_run_lock(tmp_path / "run"):
        pass
    foreign_files.check()


@pytest.mark.parametrize("kind", PLACES)
def test_a_convergence_study_replaces_only_its_own_file(
    tiny: str, tmp_path: Path, foreign_files: ForeignFiles, kind: str
) -> None:
    cell = constant_spec(tmp_path)
    path = network_study.path_of(cell).with_name(f"{network_study.path_of(cell).name}{run.UNFINISHED}")
    PLACES[kind](path, foreign_files)
    with pytest.raises(UnusableError):
        network_study.check_unfinished(cell)
    foreign_files.check()


def test_files_are_not_written_through_links_or_over_other_files(tmp_path: Path, foreign_files: ForeignFiles) -> None:
    foreign_files.add(tmp_path, "words.md.new")
    write_whole(tmp_path / "words.md", "words")
    write_whole(tmp_path / "words.md", "other words")
    assert (tmp_path / "words.md").read_text() == "other words"
    foreign_files.link(tmp_path / "link.md", "file")
    with pytest.raises(UnusableError, match="is a symbolic link"):
        write_whole(tmp_path / "link.md", "words")
    foreign_files.check()
    assert not list(tmp_path.glob(".*.new"))


@pytest.mark.parametrize("folder", ["checkpoint", "checkpoints/4.orbax-checkpoint-tmp"])
def test_a_run_killed_while_writing_checksums_resumes(tiny: str, tmp_path: Path, folder: str) -> None:
    config = Config.from_settings(model=tiny, batch_plan="1x128")
    stopped(tmp_path / "run", config, 3, every=2)
    (tmp_path / "run" / folder).mkdir()
    (tmp_path / "run" / folder / ".digests.json.0123abcd.new").write_text("{")
    execute(tmp_path / "run", config)
    assert list((tmp_path / "run").rglob(".*.new")) == []
    assert (tmp_path / "run" / "result.json").exists()
