"""Impossible folders and counts are refused with a message before any work is done."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from experiments.cli.output_folder import make_folder, write_document
from experiments.config.checks import check_count
from experiments.report.page import publish
from experiments.runner.finished_runs import find_runs
from experiments.sharpness import SharpnessSettings
from experiments.study import Grid, Selection, Tuning, tuning
from experiments.training import learning_rate
from experiments.training.epoch_schedule import Saving
from experiments.training.exceptions import UnusableError


def loop(folder: Path) -> Path:
    (folder / "loop").symlink_to(folder / "loop")
    return folder / "loop"


def dangling(folder: Path) -> Path:
    (folder / "link").symlink_to(folder / "nothing")
    return folder / "link"


FOLDERS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a long name": (lambda folder: folder / ("x" * 256), "File name too long"),
    "a long path": (lambda folder: folder.joinpath(*["x" * 200] * 20), "a path that is too long for checkpoints"),
    "a loop": (loop, "Too many levels of symbolic links"),
    "below a loop": (lambda folder: loop(folder) / "run", "Too many levels of symbolic links"),
    "a link to nothing": (dangling, "it is a broken symbolic link"),
    "a backslash": (lambda folder: folder / "\\", r"has \\ in its path"),
    "with a backslash": (lambda folder: folder / "a\\b" / "run", r"has \\ in its path"),
    "a bucket": (lambda folder: folder / "gs:" / "run", "a name with which checkpoints cannot be saved"),
    "no text": (lambda folder: folder / os.fsdecode(b"\xff"), "a name with which checkpoints cannot be saved"),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_that_cannot_hold_a_run_is_refused_and_nothing_is_created(tmp_path: Path, kind: str) -> None:
    path, words = FOLDERS[kind]
    folder = path(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UnusableError, match=words) as refusal:
        make_folder(folder)
    assert "\n" not in str(refusal.value)
    assert sorted(tmp_path.iterdir()) == before


def test_a_link_to_a_folder_is_accepted_as_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    assert make_folder(tmp_path / "link") == tmp_path / "link"


def test_runs_in_an_impossible_folder_are_refused(tmp_path: Path) -> None:
    for folder in (tmp_path / ("x" * 256), loop(tmp_path)):
        with pytest.raises(ValueError, match="is not a folder"):
            find_runs([folder])


def test_a_report_that_cannot_be_written_names_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setitem(publish.__globals__, "write_whole", full)
    with pytest.raises(ValueError, match=f"report {tmp_path} cannot be written: No space left"):
        publish([], tmp_path, Console())


def test_a_document_that_cannot_be_written_ends_in_an_error_message(tmp_path: Path) -> None:
    with pytest.raises(UnusableError, match="is a symbolic link"):
        write_document(dangling(tmp_path), "words")


@pytest.mark.parametrize("name", ["steps", "restarts", "examples", "batch_size", "during"])
def test_impossibly_large_counts_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 9999999999: give an integer of at most"):
        SharpnessSettings(**{name: 9_999_999_999})


def test_steps_that_take_years_are_refused() -> None:
    with pytest.raises(ValueError, match="steps is 999999999: give an integer of at most 10000"):
        SharpnessSettings(steps=999_999_999)


def test_saves_and_other_counts_beyond_32_bits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"saving.every is \d+: give an integer from 1 to"):
        Saving(every=10**30)
    with pytest.raises(ValueError, match=r"images is \d+: give an integer of at most"):
        check_count("images", 10**30)


@pytest.mark.parametrize("schedule", ["polynomial:1e308", "steps:1e308:1", "warm_restarts:1e308"])
def test_schedule_numbers_outside_of_float32_are_refused(schedule: str) -> None:
    with pytest.raises(ValueError, match=f"lr_schedule is '{schedule}': give"):
        learning_rate.parse(schedule, 0.1, 10)


MANY = tuple(range(200, 10_201))


def test_more_runs_than_can_be_planned_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seeds has 10001 values, which makes 10001 runs: give fewer, a study has at"):
        Grid.from_settings(output=tmp_path, seeds=MANY, methods=("sgd",), strategies=("constant",))
    with pytest.raises(ValueError, match="seeds has 1112 values, which makes 10008 runs"):
        Grid.from_settings(output=tmp_path, seeds=MANY[:1112])
    for name in ("rates", "radii", "seeds"):
        with pytest.raises(ValueError, match=f"tuning.{name} has 10001 values"):
            Tuning(**{name: MANY})
    with pytest.raises(ValueError, match=r"tuning\.rates has 300 values, which makes 21600 runs"):
        tuning.trials(Grid.from_settings(output=tmp_path), Tuning(rates=MANY[:300]), 512)


@pytest.mark.parametrize("part", ["1/10001", "1/9999999999", f"1/{'9' * 5000}", "1/²"])
def test_more_parts_than_a_study_has_runs_are_refused(part: str) -> None:
    with pytest.raises(ValueError, match=f"part is '{part}': give one part of several"):
        Selection(part=part)
