import io
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments import data
from experiments.data import catalogue
from experiments.prepare import __main__ as prepare
from experiments.prepare import cifar
from tests.experiments import made_up

ARCHIVES = {name: layout.archive for name, layout in cifar.LAYOUTS.items()}
FORMS = ("archive", "unpacked", "unpacked, renamed", "folder with the archive", "folder with the unpacked folder")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The data sets have a few images, and there is no network."""
    made_up.forbid_network(monkeypatch)
    catalogue.load_prepared.cache_clear()
    monkeypatch.setattr(cifar, "COUNTS", {"train": made_up.TRAIN, "test": made_up.TEST})


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", ["program", *map(str, arguments)])
    prepare.main()


def unpacked(name: str, archives: Path) -> Path:
    """Unpacks the archive next to it, and returns the folder."""
    with tarfile.open(archives / ARCHIVES[name]) as archive:
        archive.extractall(archives, filter="data")
    return archives / cifar.LAYOUTS[name].folder


def source_of(name: str, archives: Path, form: str) -> Path:
    if form in ("archive", "folder with the archive"):
        return archives / ARCHIVES[name] if form == "archive" else archives
    folder = unpacked(name, archives)
    (archives / ARCHIVES[name]).unlink()
    if form == "unpacked, renamed":
        return folder.rename(archives / "my copy")
    return folder if form == "unpacked" else archives


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", cifar.LAYOUTS)
def test_the_prepared_images_are_those_of_the_binary_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, form: str
) -> None:
    made = made_up.make(monkeypatch, name, tmp_path / "mine")
    run(monkeypatch, name, "--source", source_of(name, tmp_path / "mine", form), "--data-dir", tmp_path / "data")
    assert "60 training and 10 test images are ready" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [name, f"{name}.npz"]
    prepared = catalogue.load_prepared(name, data.Location(tmp_path / "data"), only_tfds=True)
    made_up.assert_same_examples(prepared.train, made["train"])
    made_up.assert_same_examples(prepared.test, made["test"])


def test_the_numpy_file_of_cifar10_gives_the_data_set_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made_up.make(monkeypatch, "cifar10", tmp_path / "mine")
    run(monkeypatch, "cifar10", "--source", tmp_path / "mine", "--data-dir", tmp_path / "data")
    user_images = data.UserImageSettings(crop_padding=catalogue.SHIFT, flip=True)
    from_file = data.load(f"npz:{tmp_path / 'data' / 'cifar10.npz'}", 0, user_images=user_images)
    tfds = catalogue.load_prepared("cifar10", data.Location(tmp_path / "data"), only_tfds=True)
    assert from_file.fingerprint() == tfds.fingerprint()


def test_a_second_call_keeps_existing_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made_up.make(monkeypatch, "cifar10", tmp_path / "mine")
    arguments = ("cifar10", "--source", tmp_path / "mine", "--data-dir", tmp_path / "data")
    run(monkeypatch, *arguments)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")}
    run(monkeypatch, *arguments)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")} == before


def longer(folder: Path, by: bytes = b"\0") -> None:
    with (folder / "train.bin").open("ab") as file:
        file.write(by)


def with_label(folder: Path) -> None:
    content = bytearray((folder / "test.bin").read_bytes())
    content[1] = 100
    (folder / "test.bin").write_bytes(content)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file is missing": (lambda folder: (folder / "test.bin").unlink(), "has no file test.bin: give the binary"),
    "a file is shorter": (lambda folder: (folder / "train.bin").write_bytes(b"\0" * 3074), "has 3,074 bytes, and the"),
    "a file is longer": (longer, "has 184,441 bytes, and the 60 images of the data set have 184,440"),
    "a label is too large": (with_label, "test.bin in {source} has the label 100, and the data set has 100 classes"),
    "a name is missing": (lambda folder: (folder / _NAMES).write_text("one"), "has 1 names, and the data set has 100"),
    "there are no files": (lambda folder: [path.unlink() for path in folder.iterdir()], "has no file train.bin"),
}
_NAMES = "fine_label_names.txt"


def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Returns the error message of a call."""
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, *arguments)
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    return message


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_folder_that_is_incomplete_or_wrong_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, damage: str
) -> None:
    made_up.make(monkeypatch, "cifar100", tmp_path / "mine")
    folder = unpacked("cifar100", tmp_path / "mine")
    harm, sentence = DAMAGES[damage]
    harm(folder)
    message = refusal(monkeypatch, capsys, "cifar100", "--source", folder, "--data-dir", tmp_path / "data")
    assert sentence.format(source=folder) in message
    assert str(folder) in message
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("content", ["truncated", "another archive", "no archive"])
def test_an_archive_that_is_not_the_published_one_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str
) -> None:
    made_up.make(monkeypatch, "cifar100", tmp_path / "mine")
    archive = tmp_path / "mine" / ARCHIVES["cifar100"]
    other = io.BytesIO()
    tarfile.open(fileobj=other, mode="w:gz").close()
    contents = {"truncated": archive.read_bytes()[:1000], "another archive": other.getvalue(), "no archive": b"a page"}
    archive.write_bytes(contents[content])
    message = refusal(monkeypatch, capsys, "cifar100", "--source", archive, "--data-dir", tmp_path / "data")
    assert f"{archive} is not the published cifar-100-binary.tar.gz: its SHA-256 is " in message
    assert not (tmp_path / "data").exists()


def test_invalid_options_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    where = ("--data-dir", tmp_path / "data")
    assert "choose one of cifar10, cifar100, fashion_mnist" in refusal(monkeypatch, capsys, "cifar1", *where)
    assert "source is None, and cifar10 has no default" in refusal(monkeypatch, capsys, "cifar10", *where)
    nowhere = tmp_path / "nowhere"
    assert "which does not exist: give" in refusal(monkeypatch, capsys, "cifar10", "--source", nowhere, *where)


def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def absent(*_: object) -> None:
        raise ImportError("no TensorFlow")

    monkeypatch.setattr(prepare, "prepare_cifar", absent)
    message = refusal(monkeypatch, capsys, "cifar10", "--source", tmp_path)
    assert message == "error: preparing cifar10 needs a package (no TensorFlow): install sam_optax[experiments].\n"


def test_data_that_cannot_be_written_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    made_up.make(monkeypatch, "cifar10", tmp_path / "mine")
    (tmp_path / "file").touch()
    where = ("--source", tmp_path / "mine", "--data-dir", tmp_path / "file")
    assert "choose another data_dir" in refusal(monkeypatch, capsys, "cifar10", *where)


def test_other_data_under_the_same_name_are_refused_and_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    made_up.make(monkeypatch, "cifar10", tmp_path / "mine")
    where = ("--data-dir", tmp_path / "data")
    run(monkeypatch, "cifar10", "--source", tmp_path / "mine", *where)
    (tmp_path / "data" / "cifar10.npz").write_text("mine")
    message = refusal(monkeypatch, capsys, "cifar10", "--source", tmp_path / "mine", *where)
    assert "cifar10.npz is not the NumPy file of this data set, and is not replaced: move it elsewhere" in message
    assert (tmp_path / "data" / "cifar10.npz").read_text() == "mine"
    folder = unpacked("cifar10", tmp_path / "mine")
    content = bytearray((folder / "data_batch_3.bin").read_bytes())
    content[1000] ^= 1
    (folder / "data_batch_3.bin").write_bytes(content)
    message = refusal(monkeypatch, capsys, "cifar10", "--source", folder, *where)
    assert f"is already prepared, and its train part differs from {folder}: remove" in message
