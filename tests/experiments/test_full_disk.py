"""A full or read-only disk ends in an error message, and earlier saves are kept."""

import errno
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from experiments.config import Config
from experiments.runner import run, sharpness_records
from experiments.training import checkpoint
from experiments.training.checkpoint import Checkpoints
from experiments.training.epoch_schedule import Saving
from experiments.training.exceptions import UnusableError, disk_errors_as_unusable
from experiments.training.writers import JsonLines, TensorBoard
from tests.experiments.interrupted_runs import assert_same_run, execute
from tests.experiments.sharpness_records import add_lines, worst_case

SETTINGS: dict[str, Any] = {"model": "tiny", "method": "sam", "batch_plan": "2x128"}  # 8 updates


@pytest.fixture
def whole_run(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    execute(folder, Config.from_settings(**SETTINGS))
    return folder


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Limits the file size of this process, which has the effect of a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def limited(size: int, folder: Path) -> Callable[[Any], Any]:
    """Iterates over batches, and makes the disk full once a save exists."""

    def track(batches: Any) -> Any:
        for i, batch in enumerate(batches):
            if i == 4:
                while not checkpoint.steps(folder):
                    time.sleep(0.01)
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
            yield batch

    return track


# orbax stops at the first file that fails, and tensorstore may report another one afterwards
@pytest.mark.filterwarnings("ignore:Exception ignored in. None:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("size", "words"), [(4096, "cannot be saved: File too large"), (64, "cannot be written")])
def test_a_full_disk_is_reported_and_earlier_saves_are_kept(
    tiny: str, whole_run: Path, tmp_path: Path, size: int, words: str
) -> None:
    config = Config.from_settings(**SETTINGS)
    with largest_file(2**30), pytest.raises(UnusableError, match=words) as refusal:
        execute(tmp_path, config, track=limited(size, tmp_path / "checkpoints"), saving=Saving(3))
    assert "run the same command again (with --resume for a single run)" in str(refusal.value)
    assert checkpoint.steps(tmp_path / "checkpoints") == [3]
    execute(tmp_path, config)
    assert_same_run(tmp_path, whole_run)


def test_missing_disk_space_is_reported_before_the_run(
    tiny: str, whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        full.setattr(checkpoint.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 1_000_000))
        with pytest.raises(UnusableError, match=r"cannot be saved: 1.1 MB are needed, 1.0 MB are free"):
            execute(tmp_path, Config.from_settings(**SETTINGS), saving=Saving(3))
    assert not (tmp_path / "checkpoints").exists()
    execute(tmp_path, Config.from_settings(**SETTINGS))
    assert_same_run(tmp_path, whole_run)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_unwritable_metrics_are_reported(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(self: JsonLines, record: Any) -> None:
        raise OSError(number, "no such luck")

    monkeypatch.setattr(JsonLines, "write", full)
    with pytest.raises(UnusableError, match=f"{tmp_path.name} cannot be written: no such luck"):
        execute(tmp_path, Config.from_settings(**SETTINGS))


def test_a_file_in_place_of_the_checkpoint_folder_is_reported(tiny: str, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("mine")
    with pytest.raises(UnusableError, match="holds checkpoints, which does not belong to the run"):
        run.execute(
            Config.from_settings(**SETTINGS),
            run.load(Config.from_settings(**SETTINGS)),
            tmp_path,
            run.RunContext(saving=Saving(3)),
        )
    assert (tmp_path / "checkpoints").read_text() == "mine"


def test_unwritable_sharpness_is_reported_and_earlier_records_are_kept(tmp_path: Path) -> None:
    add_lines(tmp_path, [worst_case(0.1, 1.0, epoch=1)])
    before = (tmp_path / "sharpness.jsonl").read_text()
    with largest_file(len(before)), pytest.raises(UnusableError, match=r"jsonl cannot be written: File too"):
        add_lines(tmp_path, [worst_case(0.1, 1.0, epoch=2)])
    assert (tmp_path / "sharpness.jsonl").read_text() == before


@pytest.mark.parametrize("content", ["{", "[]", '{"kind": "trace"}', "\xff"])
def test_a_damaged_sharpness_file_ends_a_measuring_run_with_an_error_message(tmp_path: Path, content: str) -> None:
    (tmp_path / "sharpness.jsonl").write_bytes(content.encode("latin-1"))
    with pytest.raises(
        UnusableError, match=r"sharpness\.jsonl is damaged, or was made by another version .*: remove it"
    ):
        sharpness_records.add(tmp_path, [])
    assert (tmp_path / "sharpness.jsonl").read_bytes() == content.encode("latin-1")


def test_unwritable_event_files_are_reported_at_once(tmp_path: Path) -> None:
    """The writer of tensorboardX would wait forever for a thread that has ended."""

    def write_curves() -> None:
        with (
            disk_errors_as_unusable(tmp_path),
            closing(TensorBoard(tmp_path / "tensorboard")) as board,
            largest_file(64),
        ):
            for step in range(50):
                board.write({"kind": "step", "step": step, "loss": 1.0})
            board.flush()

    with pytest.raises(UnusableError, match=f"{tmp_path.name} cannot be written: File too large"):
        write_curves()


def test_a_deleted_folder_is_reported(tmp_path: Path) -> None:
    saves = Checkpoints(tmp_path / "run" / "checkpoints", keep=1)
    with pytest.raises(UnusableError, match="run cannot be saved: No such file or directory"):
        saves.save(1, {}, {})
    saves.close()
