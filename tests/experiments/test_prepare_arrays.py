"""The NumPy files that `experiments.prepare` writes, and the folder of parts."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from experiments import data
from experiments.data import catalogue
from experiments.prepare import __main__ as prepare
from experiments.prepare import cifar, numpy_copy
from tests.experiments import made_up

NAME = "cifar100"
KIB = 1024
PARTS = ["x_test-0.npy", "x_test-1.npy", *(f"x_train-{i}.npy" for i in range(9)), "y_test.npy", "y_train.npy"]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A data set of 60 images that takes 180 KiB, and of which a part holds 7 images."""
    made_up.forbid_network(monkeypatch)
    catalogue.load_prepared.cache_clear()
    monkeypatch.setattr(cifar, "COUNTS", {"train": made_up.TRAIN, "test": made_up.TEST})
    monkeypatch.setattr(numpy_copy, "_MIB", 26 * KIB)
    made_up.make(monkeypatch, NAME, tmp_path / "mine")


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> Path:
    """Prepares the data in parts, and returns the folder of the parts."""
    words = [NAME, "--source", str(folder / "mine"), "--data-dir", str(folder / "data"), *arguments]
    monkeypatch.setattr(sys, "argv", ["program", *words])
    prepare.main()
    return folder / "data" / f"{NAME}_arrays"


def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> str:
    """Returns the error message of a call."""
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, folder, *arguments)
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    return message


def test_no_part_is_larger_than_requested(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    parts = run(monkeypatch, tmp_path, "--part-size", "1")
    assert capsys.readouterr().out.endswith(f"NumPy arrays in {tmp_path}/data/cifar100.npz and {parts}\n")
    assert sorted(path.name for path in parts.iterdir()) == PARTS
    assert max(path.stat().st_size for path in parts.iterdir()) <= 26 * KIB
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [NAME, f"{NAME}.npz", f"{NAME}_arrays"]


def test_the_arrays_equal_the_tfds_data_example_by_example(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    parts = run(monkeypatch, tmp_path, "--part-size", "1")
    tfds = catalogue.load_prepared(NAME, data.Location(tmp_path / "data"), only_tfds=True)
    for kind in ("npz", "parts"):
        (tmp_path / kind).mkdir()
    (tmp_path / "data" / f"{NAME}.npz").rename(tmp_path / "npz" / f"{NAME}.npz")
    parts.rename(tmp_path / "parts" / parts.name)
    monkeypatch.setitem(sys.modules, "experiments.data.preparation", None)  # importing it fails
    monkeypatch.delattr(data, "preparation")
    for kind in ("npz", "parts"):
        arrays = data.load(NAME, 0, data.Location(tmp_path / kind))
        for split, expected in ((arrays.train, tfds.train), (arrays.test, tfds.test)):
            np.testing.assert_array_equal(split.images, expected.images, strict=True)
            np.testing.assert_array_equal(split.labels, expected.labels, strict=True)
            assert not split.images.flags.writeable
            assert not split.labels.flags.writeable
        assert arrays.fingerprint() == tfds.fingerprint()


def test_the_tfds_form_is_compared_with_the_source_although_there_are_arrays(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run(monkeypatch, tmp_path)
    (tmp_path / "data" / NAME).rename(tmp_path / "gone")
    run(monkeypatch, tmp_path)
    assert (tmp_path / "data" / NAME / "3.0.2").is_dir()
    catalogue.load_prepared.cache_clear()
    file = tmp_path / "data" / f"{NAME}.npz"
    arrays = dict(np.load(file))
    arrays["y_test"][3] += 1
    np.savez(file, **arrays)
    message = refusal(monkeypatch, capsys, tmp_path)
    assert f"{file} holds other images or labels (y_test), and is not replaced" in message


def test_the_same_parts_are_kept_and_foreign_files_are_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    parts = run(monkeypatch, tmp_path, "--part-size", "1")
    (parts / "notes.txt").write_text("mine")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")}
    run(monkeypatch, tmp_path, "--part-size", "1")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")} == before


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a part is missing": (lambda parts: (parts / "x_train-4.npy").unlink(), "_arrays does not hold the NumPy files"),
    "there is one more": (lambda parts: shutil.copy(parts / "y_test.npy", parts / "x_train-9.npy"), "_arrays does not"),
    "a part is damaged": (lambda parts: (parts / "x_train-4.npy").write_text("mine"), "x_train-4.npy holds other"),
    "other labels": (lambda parts: np.save(parts / "y_test.npy", np.zeros(10, np.int32)), "y_test.npy holds other"),
    "another dtype": (
        lambda parts: np.save(parts / "y_test.npy", np.load(parts / "y_test.npy").astype(np.int64)),
        "y_test.npy holds other",
    ),
    "it is a file": (lambda parts: (parts.rename(parts.with_name("x")), parts.touch()), "_arrays does not hold"),
    "it is a link to nothing": (lambda parts: parts.rename(parts.with_name("x")) and parts.symlink_to("y"), "_arrays"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_parts_are_refused_and_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, change: str
) -> None:
    parts = run(monkeypatch, tmp_path, "--part-size", "1")
    alter, sentence = CHANGES[change]
    alter(parts)
    before = {path: path.stat().st_mtime_ns for path in parts.rglob("*")}
    message = refusal(monkeypatch, capsys, tmp_path, "--part-size", "1")
    assert sentence in message
    assert "is not replaced: move it elsewhere, or choose another data_dir." in message
    assert {path: path.stat().st_mtime_ns for path in parts.rglob("*")} == before


def test_parts_of_another_size_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run(monkeypatch, tmp_path, "--part-size", "1")
    assert "with this part_size, and is not replaced" in refusal(monkeypatch, capsys, tmp_path, "--part-size", "2")


def test_a_size_below_one_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    message = refusal(monkeypatch, capsys, tmp_path, "--part-size", "0")
    assert "part_size is 0: give an integer of at least 1." in message
    assert not (tmp_path / "data").exists()


def test_a_failure_to_write_leaves_no_parts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run(monkeypatch, tmp_path)
    save = np.save

    def full(path: Path, array: np.ndarray, allow_pickle: bool) -> None:
        if path.name == "x_train-5.npy":
            raise OSError(28, "No space left on device")
        save(path, array, allow_pickle=allow_pickle)

    monkeypatch.setattr(np, "save", full)
    message = refusal(monkeypatch, capsys, tmp_path, "--part-size", "1")
    assert f"{tmp_path}/data/cifar100_arrays cannot be written (No space left on device): free space" in message
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [NAME, f"{NAME}.npz"]
