import os
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from experiments import data
from experiments.data import catalogue
from tests.experiments import made_up


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without network, and without data that another test has cached."""
    made_up.forbid_network(monkeypatch)
    catalogue.load_prepared.cache_clear()


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("name", "num_classes", "flip"),
    [
        ("cifar10", 10, True),
        ("cifar100", 100, True),
        ("fashion_mnist", 10, True),
        ("mnist", 10, False),
        ("svhn_cropped", 10, False),
    ],
)
def test_archives_in_the_published_format_become_arrays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, num_classes: int, flip: bool
) -> None:
    made = made_up.make(monkeypatch, name, tmp_path / "by hand")
    dataset = data.load(name, 0, data.Location(tmp_path / "prepared", tmp_path / "by hand"))
    for split, expected in ((dataset.train, made["train"]), (dataset.test, made["test"])):
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)
        assert (split.images.shape, split.labels.shape) == (expected.images.shape, expected.labels.shape)
        made_up.assert_same_examples(split, expected)
    pixels = made["train"].images.astype(np.float64)
    np.testing.assert_allclose(dataset.mean, pixels.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(dataset.std, pixels.std((0, 1, 2)), rtol=1e-6)
    assert (dataset.num_classes, dataset.crop_padding, dataset.flip) == (num_classes, 4, flip)
    assert dataset.image_shape == pixels.shape[1:]


def test_prepared_data_are_read_without_archives_network_or_output(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    made_up.make(monkeypatch, "cifar10", tmp_path / "by hand")
    first = data.load("cifar10", 0, data.Location(tmp_path / "prepared", tmp_path / "by hand"))
    (tmp_path / "by hand").rename(tmp_path / "gone")
    monkeypatch.setattr(socket, "getaddrinfo", None)
    catalogue.load_prepared.cache_clear()
    again = data.load("cifar10", 1, data.Location(tmp_path / "prepared"))
    np.testing.assert_array_equal(again.train.images, first.train.images)
    np.testing.assert_array_equal(again.test.labels, first.test.labels)
    assert data.load("cifar10", 2, data.Location(tmp_path / "prepared")) is again
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_the_order_of_the_examples_is_that_of_the_files_every_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made_up.make(monkeypatch, "mnist", tmp_path / "by hand")
    monkeypatch.setattr(tfds.download, "DownloadConfig", partial(tfds.download.DownloadConfig, num_shards=3))
    locations = [data.Location(tmp_path / each, tmp_path / "by hand") for each in ("one", "two")]
    one, two = (data.load("mnist", 0, location).train for location in locations)
    np.testing.assert_array_equal(one.images, two.images)
    builder = tfds.builder("mnist", data_dir=tmp_path / "one")
    shards = sorted(tf.io.gfile.glob(f"{builder.data_dir}/*train*"))
    stored = tf.data.TFRecordDataset(shards).map(builder.info.features.deserialize_example)
    assert len(shards) == 3
    np.testing.assert_array_equal(one.images, [each["image"] for each in stored.as_numpy_iterator()])


def test_arrays_shared_by_all_runs_are_read_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made_up.make(monkeypatch, "mnist", tmp_path / "by hand")
    train = data.load("mnist", 0, data.Location(tmp_path, tmp_path / "by hand")).train
    with pytest.raises(ValueError, match="read-only"):
        train.images[0] = 0


def test_archives_are_searched_for_first_in_their_own_folder_within_the_data_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    manual = tmp_path / "downloads" / "manual"
    made_up.make(monkeypatch, "fashion_mnist", manual)
    fashion = data.load("fashion_mnist", 0, data.Location(tmp_path))
    (manual / "mnist").mkdir()
    digits = made_up.write_mnist(manual / "mnist", seed=1)
    made_up.register(monkeypatch, "mnist", manual / "mnist")
    made_up.assert_same_examples(data.load("mnist", 0, data.Location(tmp_path)).train, digits["train"])
    assert not np.array_equal(fashion.train.images, digits["train"].images)
    assert {name.split("/")[0] for name in files_of(tmp_path)} == {"downloads", "fashion_mnist", "mnist"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: next(folder.glob("*train.tfrecord*")).unlink(),
        lambda folder: os.truncate(next(folder.glob("*test.tfrecord*")), 1000),
        lambda folder: (folder / "dataset_info.json").unlink(),
        lambda folder: (folder / "dataset_info.json").write_text("{"),
    ],
    ids=["no examples", "cut", "no description", "half a description"],
)
def test_damaged_data_end_in_an_error_message(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    made_up.make(monkeypatch, "mnist", tmp_path / "by hand")
    location = data.Location(tmp_path / "prepared", tmp_path / "by hand")
    data.load("mnist", 0, location)
    catalogue.load_prepared.cache_clear()
    damage(tmp_path / "prepared" / "mnist" / "3.0.1")
    with pytest.raises(ValueError, match=r"'mnist' in .*prepared.*remove") as refused:
        data.load("mnist", 0, location)
    assert "\n" not in str(refused.value)


def test_missing_tfds_is_reported_with_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    for module in ("preparation", "reading"):
        monkeypatch.delitem(sys.modules, f"experiments.data.{module}", raising=False)
        monkeypatch.delattr(data, module, raising=False)
    with pytest.raises(ValueError, match=r"'mnist' needs a package .*tensorflow_datasets.*sam_optax\[experiments\]"):
        data.load("mnist", 0)


def test_bundled_data_need_no_location() -> None:
    dataset = data.load("digits", 3, data.Location(Path("nowhere")))
    np.testing.assert_array_equal(dataset.test.images, catalogue.load_digits(3).test.images)


def test_an_unknown_name_is_refused_with_the_known_names() -> None:
    with pytest.raises(ValueError, match=r"cifar0.*digits.*svhn_cropped"):
        data.load("cifar0", 0)
