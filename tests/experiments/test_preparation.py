import functools
import shutil
import socket
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.image_classification import mnist

from experiments import data
from experiments.data import archives, catalogue, preparation
from tests.experiments import made_up


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without network, and without data that another test has cached."""
    made_up.forbid_network(monkeypatch)
    catalogue.load_prepared.cache_clear()


class Quiet(SimpleHTTPRequestHandler):
    """A server that does not log its requests."""

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """The folder of a server."""
    (tmp_path / "published").mkdir()
    return tmp_path / "published"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, published: Path) -> Iterator[None]:
    """A server of the files in the folder, to which the addresses of MNIST's archives are changed."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(published))) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,)).start()
        move_mnist_to(monkeypatch, running.server_port)
        yield
        running.shutdown()


def move_mnist_to(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Changes the addresses of MNIST's archives to this machine."""
    address = f"http://127.0.0.1:{port}/"
    monkeypatch.setattr(mnist.MNIST, "URL", address)
    known = tfds.builder_cls("mnist").url_infos
    for url, info in list(known.items()):
        monkeypatch.delitem(known, url)
        monkeypatch.setitem(known, address + info.filename, info)


def refused(name: str, location: data.Location) -> str:
    """The error message of `load`."""
    with pytest.raises(ValueError, match=f"data set '{name}'") as refusal:
        data.load(name, 0, location)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize("name", catalogue.ENTRIES)
def test_missing_archives_are_requested_by_name_address_and_folder(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    message = refused(name, data.Location(tmp_path / "data"))
    for url, info in tfds.builder_cls(name).url_infos.items():
        assert f"{info.filename or url.split('/')[-1]} ({url})" in message
    assert f"not in {tmp_path / 'data'}," in message
    assert f"into {tmp_path / 'data' / 'downloads' / 'manual' / name}," in message
    assert ("no connection to" in message) == (name != "imagenet2012")
    assert ("after registration at https://image-net.org" in message) == (name == "imagenet2012")
    assert ("make data-fashion-mnist" in message) == (name == "fashion_mnist")
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_only_missing_archives_are_requested(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made_up.make(monkeypatch, "mnist", tmp_path / "by hand" / "mnist")
    (tmp_path / "by hand" / "mnist" / "train-labels-idx1-ubyte.gz").unlink()
    message = refused("mnist", data.Location(tmp_path / "data", tmp_path / "by hand"))
    assert message.count(".gz (") == 1
    assert "Put train-labels-idx1-ubyte.gz (" in message
    assert f"into {tmp_path / 'by hand' / 'mnist'}," in message


def test_a_shared_folder_that_has_some_archives_may_hold_another_data_sets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made_up.make(monkeypatch, "mnist", tmp_path / "by hand")
    (tmp_path / "by hand" / "train-labels-idx1-ubyte.gz").unlink()
    message = refused("mnist", data.Location(tmp_path / "data", tmp_path / "by hand"))
    assert message.count(".gz (") == 4
    assert f"into {tmp_path / 'by hand' / 'mnist'}," in message


@pytest.mark.parametrize("name", ["cifar10", "mnist"])
def test_an_archive_with_a_wrong_checksum_is_refused_and_leaves_no_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    made_up.make(monkeypatch, name, tmp_path / "by hand")
    archive = next((tmp_path / "by hand").iterdir())
    whole = archive.read_bytes()
    archive.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    location = data.Location(tmp_path / "new" / "data", tmp_path / "by hand")
    message = refused(name, location)
    assert "wrong checksum" in message
    assert str(archive) in message
    assert f"into {tmp_path / 'by hand' / name}," in message
    assert not (tmp_path / "new").exists()
    archive.write_bytes(whole)
    assert len(data.load(name, 0, location).train) == made_up.TRAIN


def test_an_interrupted_preparation_leaves_nothing_that_a_later_load_would_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = made_up.make(monkeypatch, "mnist", tmp_path / "by hand")
    location = data.Location(tmp_path / "data", tmp_path / "by hand")
    with monkeypatch.context() as patch:
        patch.setattr(mnist.MNIST, "_generate_examples", halfway)
        with pytest.raises(KeyboardInterrupt):
            data.load("mnist", 0, location)
    assert not (tmp_path / "data").exists()
    assert len(data.load("mnist", 0, location).train) == len(made["train"])


def test_another_process_may_finish_the_preparation_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made_up.make(monkeypatch, "mnist", tmp_path / "by hand")
    first = data.load("mnist", 0, data.Location(tmp_path / "other", tmp_path / "by hand"))
    generate = mnist.MNIST._generate_examples

    def overtaken(self: Any, **arguments: Any) -> Any:
        shutil.copytree(tmp_path / "other" / "mnist", tmp_path / "data" / "mnist", dirs_exist_ok=True)
        return generate(self, **arguments)

    monkeypatch.setattr(mnist.MNIST, "_generate_examples", overtaken)
    second = data.load("mnist", 0, data.Location(tmp_path / "data", tmp_path / "by hand"))
    np.testing.assert_array_equal(second.train.images, first.train.images)


def halfway(self: Any, **_: Any) -> Iterator[Any]:
    """The user interrupts after one example."""
    yield 0, {"image": np.zeros((28, 28, 1), np.uint8), "label": 0}
    raise KeyboardInterrupt


def test_a_folder_that_cannot_be_used_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made_up.make(monkeypatch, "mnist", tmp_path / "by hand")
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        message = refused("mnist", data.Location(folder, tmp_path / "by hand"))
        assert "choose another data_dir" in message


def test_archives_are_downloaded_once(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    published: Path,
    server: None,
    capfd: pytest.CaptureFixture[str],
) -> None:
    made_up.write_mnist(published)
    made_up.register(monkeypatch, "mnist", published)
    fetched = data.load("mnist", 0, data.Location(tmp_path / "data"))
    assert not list((tmp_path / "data").rglob("*.tmp.*"))
    shutil.rmtree(published)
    shutil.rmtree(tmp_path / "data" / "mnist")
    catalogue.load_prepared.cache_clear()
    again = data.load("mnist", 0, data.Location(tmp_path / "data"))
    np.testing.assert_array_equal(again.train.images, fetched.train.images)
    assert capfd.readouterr() == ("", "")


def test_a_terminal_shows_one_line_of_progress(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    made_up.make(monkeypatch, "mnist", tmp_path / "by hand")
    data.load("mnist", 0, data.Location(tmp_path / "data", tmp_path / "by hand"))
    out, err = capfd.readouterr()
    assert out == ""
    assert "preparing mnist in" in err
    assert "Downloading" not in err


def test_a_downloaded_archive_with_a_wrong_checksum_is_removed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, published: Path, server: None
) -> None:
    made_up.write_mnist(published)
    made_up.register(monkeypatch, "mnist", published)
    last = published / list(tfds.builder_cls("mnist").url_infos.values())[-1].filename
    whole = last.read_bytes()
    last.write_bytes(b"a page that says sorry")
    location = data.Location(tmp_path / "data")
    assert "wrong checksum" in refused("mnist", location)
    kept = {path.name for path in (tmp_path / "data").rglob("*") if path.is_dir()}
    assert kept == {"downloads", "mnist"}
    assert len(list((tmp_path / "data" / "downloads" / "mnist").glob("*.gz"))) == 3
    last.write_bytes(whole)
    assert len(data.load("mnist", 0, location).train) == made_up.TRAIN


def test_the_answer_of_a_server_without_the_archive_is_quoted(tmp_path: Path, server: None) -> None:
    assert "127.0.0.1 answers 404" in refused("mnist", data.Location(tmp_path / "data"))
    assert not (tmp_path / "data").exists()


def test_a_server_that_does_not_answer_times_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(archives, "_PATIENCE", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        move_mnist_to(monkeypatch, silent.getsockname()[1])
        message = refused("mnist", data.Location(tmp_path / "data"))
    assert "127.0.0.1 does not answer in 0.05 seconds" in message


def test_the_default_data_folder_is_that_of_tfds() -> None:
    usual = Path(tfds.core.constants.DATA_DIR).expanduser()
    assert preparation.manual_folder("mnist", data.Location()) == usual / "downloads" / "manual" / "mnist"
