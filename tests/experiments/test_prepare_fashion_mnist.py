import gzip
import io
import sys
from pathlib import Path

import pytest

from experiments import data
from experiments.data import catalogue
from experiments.prepare import __main__ as prepare
from experiments.prepare import fashion_mnist
from tests.experiments import made_up

DEBIAN = 1591347949  # the time at which Debian's tools made the package


def compressed(content: bytes, name: str, modified: int) -> bytes:
    file = io.BytesIO()
    with gzip.GzipFile(name, "wb", fileobj=file, mtime=modified) as archive:
        archive.write(content)
    return file.getvalue()


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder laid out like Debian's package. TFDS has the checksums of the archives with their original headers."""
    made_up.forbid_network(monkeypatch)
    catalogue.load_prepared.cache_clear()
    for folder in ("published", "package"):
        (tmp_path / folder).mkdir()
    for name, content in made_up.idx_files(made_up.parts((28, 28, 1), 10)).items():
        modified = fashion_mnist._MODIFIED[name.partition("-")[0]]
        (tmp_path / "published" / f"{name}.gz").write_bytes(compressed(content, name, modified))
        (tmp_path / "package" / f"{name}.gz").write_bytes(compressed(content, "", DEBIAN))
    made_up.register(monkeypatch, "fashion_mnist", tmp_path / "published")
    return tmp_path / "package"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", ["program", "fashion_mnist", *map(str, arguments)])
    prepare.main()


def failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The error message of a failing call."""
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, *arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"pixels" * 1000])
def test_the_header_equals_that_of_gzip(content: bytes) -> None:
    stripped, published = compressed(content, "", DEBIAN), compressed(content, "some-name", 1504176606)
    assert fashion_mnist.with_header(stripped, "some-name", 1504176606) == published


@pytest.mark.parametrize("archive", [b"", b"PK\3\4 and so on", compressed(b"", "named", 0)])
def test_files_with_another_header_are_refused(archive: bytes) -> None:
    with pytest.raises(ValueError, match=r"some-name\.gz is not the gzip file"):
        fashion_mnist.with_header(archive, "some-name", 0)


def test_debians_archives_are_prepared_like_the_published_ones(
    package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run(monkeypatch, "--source", package, "--data-dir", tmp_path / "data")
    assert "60 training and 10 test images" in capsys.readouterr().out
    for archive in (tmp_path / "data" / "downloads" / "manual" / "fashion_mnist").iterdir():
        assert archive.read_bytes() == (tmp_path / "published" / archive.name).read_bytes()
    dataset = data.load("fashion_mnist", 0, data.Location(tmp_path / "data"))
    made = made_up.parts((28, 28, 1), 10)["train"]
    made_up.assert_same_examples(dataset.train, made)


def test_the_archive_folder_can_be_chosen(package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run(monkeypatch, "--source", package, "--data-dir", tmp_path / "data", "--manual-dir", tmp_path / "by hand")
    assert len(list((tmp_path / "by hand" / "fashion_mnist").iterdir())) == 4
    assert [path.name for path in (tmp_path / "data").rglob("*.gz")] == []


def test_a_missing_or_damaged_package_ends_in_an_error_message(
    package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    where = ("--data-dir", tmp_path / "data")
    assert "--source" in failure(monkeypatch, capsys, "--source", tmp_path / "nowhere", *where)
    archive = package / "t10k-labels-idx1-ubyte.gz"
    archive.write_bytes(archive.read_bytes()[:-1])
    message = failure(monkeypatch, capsys, "--source", package, *where)
    assert message == f"error: {archive} is not the archive of Debian's package: download the package again.\n"
    assert not (tmp_path / "data" / "downloads" / "manual" / "fashion_mnist" / archive.name).exists()
    (tmp_path / "file").touch()
    assert "--manual-dir" in failure(
        monkeypatch, capsys, "--source", package, *where, "--manual-dir", tmp_path / "file"
    )


@pytest.mark.parametrize("kind", ["a file", "a link", "a folder"])
def test_a_file_with_the_name_of_an_archive_is_not_replaced(
    package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: str
) -> None:
    mine, outside = tmp_path / "data" / "downloads" / "manual" / "fashion_mnist", tmp_path / "outside"
    mine.mkdir(parents=True)
    outside.write_text("mine")
    archive = mine / "train-labels-idx1-ubyte.gz"
    if kind == "a file":
        archive.write_text("mine")
    elif kind == "a link":
        archive.symlink_to(outside)
    else:
        archive.mkdir()
    message = failure(monkeypatch, capsys, "--source", package, "--data-dir", tmp_path / "data")
    assert message.startswith(f"error: {archive} is not the published archive, and is not replaced: move it elsewhere")
    assert message.count("\n") == 1
    assert archive.is_dir() if kind == "a folder" else archive.read_text() == "mine"
    assert archive.is_symlink() == (kind == "a link")
    assert outside.read_text() == "mine"


def test_existing_published_archives_are_unchanged(
    package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    target = tmp_path / "by hand" / "fashion_mnist"
    target.mkdir(parents=True)
    for archive in (tmp_path / "published").iterdir():
        (target / archive.name).symlink_to(archive)
    run(monkeypatch, "--source", package, "--data-dir", tmp_path / "data", "--manual-dir", tmp_path / "by hand")
    assert all(archive.is_symlink() for archive in target.iterdir())
    assert len(list(target.iterdir())) == 4
