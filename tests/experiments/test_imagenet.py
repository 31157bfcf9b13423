"""ImageNet, from made-up archives in the published format that TFDS's own builder reads: three of the 1,000 classes."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from experiments import data
from experiments.data import catalogue, imagenet, preparation
from experiments.data.imagenet import Records
from experiments.data.stream import evaluation_batches
from sam_optax import BatchPlan
from tests.experiments import made_up
from tests.experiments.made_up_imagenet import TRAIN, VALIDATION, centre, close, tar, train_files, validation_files

FILES = 2  # of a split


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the two archives."""
    folder = tmp_path_factory.mktemp("by hand")
    classes = {f"{wnid}.tar": tar(files) for wnid, files in train_files().items()}
    (folder / "ILSVRC2012_img_train.tar").write_bytes(tar(classes))
    (folder / "ILSVRC2012_img_val.tar").write_bytes(tar(validation_files()))
    return folder


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch, archives: Path) -> None:
    """Makes TFDS expect the sizes of the made-up splits, and store few photographs in few files."""
    made_up.forbid_network(monkeypatch)
    catalogue.load_prepared.cache_clear()
    urls = tfds.builder_cls("imagenet2012").url_infos
    for url in list(urls):
        path = archives / url.rsplit("/", 1)[-1]
        monkeypatch.setitem(urls, url, tfds.download.checksums.compute_url_info(path))
    monkeypatch.setattr(preparation, "_FILES", FILES)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prepared")


@pytest.fixture
def dataset(prepared: Path, archives: Path) -> data.Dataset:
    return data.load("imagenet2012", 0, data.Location(prepared, archives))


def label_of(wnid: str) -> int:
    return tfds.builder("imagenet2012").info.features["label"].str2int(wnid)


def test_imagenet_has_its_published_moments_and_is_flipped_and_not_shifted(dataset: data.Dataset) -> None:
    assert (len(dataset.train), len(dataset.test), dataset.num_classes) == (3 * TRAIN, VALIDATION, 1000)
    assert (dataset.image_shape, dataset.crop_padding, dataset.flip) == ((224, 224, 3), 0, True)
    np.testing.assert_allclose(dataset.mean, [123.675, 116.28, 103.53], rtol=1e-6)
    np.testing.assert_allclose(dataset.std, [58.395, 57.12, 57.375], rtol=1e-6)


def test_an_evaluation_uses_the_centre_of_every_photograph_with_its_label(dataset: data.Dataset) -> None:
    """The labels of the validation split are those of TFDS, in the order of the file names."""
    images, labels = dataset.train.rows(np.arange(3 * TRAIN))
    assert (images.dtype, images.shape, labels.dtype) == (np.uint8, (3 * TRAIN, 224, 224, 3), np.int32)
    expected = [(label_of(wnid), content) for wnid, files in train_files().items() for content in files.values()]
    for label, content in expected:
        alike = [i for i, image in enumerate(images) if close(image, centre(content), 3)]
        assert [labels[i] for i in alike] == [label]
    published = tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt").read_text().split()
    of_test = {content: label_of(wnid) for content, wnid in zip(validation_files().values(), published, strict=False)}
    (batch,) = evaluation_batches(dataset.test, VALIDATION)
    for content, label in of_test.items():
        alike = [i for i, image in enumerate(batch["image"]) if close(image, centre(content), 3)]
        assert [batch["label"][i] for i in alike] == [label]


def test_a_large_photograph_is_antialiased_as_by_pillow() -> None:
    squares = np.random.default_rng(0).integers(0, 256, (320, 450, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(squares).resize((900, 640), Image.Resampling.NEAREST).save(file, "JPEG", quality=95)
    assert close(imagenet.evaluation_image(tf.constant(file.getvalue())).numpy(), centre(file.getvalue()), 2)


def test_an_evaluation_counts_every_photograph_once(dataset: data.Dataset) -> None:
    batches = list(evaluation_batches(dataset.test, 4))
    assert [batch["image"].shape for batch in batches] == [(4, 224, 224, 3)] * 2
    np.testing.assert_array_equal(np.concatenate([batch["weight"] for batch in batches]), [1] * 6 + [0] * 2)


def stream(dataset: data.Dataset, plan: str, **settings: Any) -> dict[int, tuple[int, bytes]]:
    """Label and image by position."""
    batches = data.training_batches(dataset.train, BatchPlan.parse(plan), **{"seed": 0, **settings})
    return {
        int(position): (int(label), image.tobytes())
        for batch in batches
        for position, label, image in zip(batch["position"], batch["label"], batch["image"], strict=True)
    }


def test_training_images_depend_only_on_seed_and_position(dataset: data.Dataset) -> None:
    whole = stream(dataset, "2x3")
    assert sorted(whole) == list(range(2 * 3 * TRAIN))
    assert stream(dataset, "1x4,1x6") == whole
    assert stream(dataset, "2x3", start=5) == {position: whole[position] for position in range(15, 24)}
    assert len({image for _, image in whole.values()}) == len(whole)  # no photograph has the same crop twice
    other = stream(dataset, "2x3", seed=1)
    assert not {image for _, image in other.values()} & {image for _, image in whole.values()}


def test_a_transform_gets_the_random_crop_and_the_key_of_its_position(dataset: data.Dataset) -> None:
    def with_its_key(image: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
        assert image.shape == (224, 224, 3)
        return image // 2 + tf.cast(key[0] + key[1], tf.uint8)

    plain, transformed = (stream(dataset, "1x4", seed=9, transform=each) for each in (None, with_its_key))
    for position, (label, image) in plain.items():
        expected = np.frombuffer(image, np.uint8) // 2 + np.uint8(9 + position)
        assert transformed[position] == (label, expected.tobytes())


def test_a_split_is_stored_in_few_enough_files_to_keep_open(dataset: data.Dataset, prepared: Path) -> None:
    assert len(list(prepared.rglob("*train.array_record*"))) == FILES
    assert preparation.BY_INDEX in dataset.train.source.dataset_info.file_format.value


def test_an_epoch_has_the_label_counts_of_the_data(dataset: data.Dataset) -> None:
    labels = [label for label, _ in stream(dataset, "1x4").values()]
    assert sorted(labels) == sorted(dataset.train.rows(np.arange(3 * TRAIN))[1].tolist())


def areas_and_ratios(height: int, width: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Area and aspect ratio of random crops of a photograph whose colours are its coordinates."""
    rows, columns = np.mgrid[:height, :width]
    ramps = np.stack([255 * rows / height, 255 * columns / width, np.zeros((height, width))], -1).round()
    content = tf.io.encode_jpeg(ramps.astype(np.uint8), quality=100, chroma_downsampling=False)
    keys = tf.stack([tf.zeros(count, tf.int64), tf.range(count, dtype=tf.int64)], 1)
    parts = tf.map_fn(lambda key: imagenet.training_image(content, key), keys, fn_output_signature=tf.uint8).numpy()
    heights, widths = (np.ptp(parts[..., c].astype(int), axis=(1, 2)) / 255 * s for c, s in ((0, height), (1, width)))
    return heights * widths / (height * width), widths / heights


def test_random_crops_have_areas_and_shapes_within_their_bounds() -> None:
    area, aspect = areas_and_ratios(256, 320, count=100)
    assert 0.06 < area.min() < 0.2
    assert 0.8 < area.max() < 1.02
    assert 0.7 < aspect.min() < 0.85
    assert 1.15 < aspect.max() < 1.4


def test_a_photograph_too_long_for_any_such_crop_is_used_whole() -> None:
    area, _ = areas_and_ratios(20, 2000, count=1)
    assert area > 0.94  # colours at the edge are averaged, too


def test_noise_and_validation_leave_the_photographs_on_disk(
    dataset: data.Dataset, prepared: Path, archives: Path
) -> None:
    location = data.Location(prepared, archives)
    noisy = data.load("imagenet2012", 0, location, label_noise=0.5, validation=0.25)
    clean = data.load("imagenet2012", 0, location, validation=0.25)
    assert isinstance(noisy.train, Records)
    assert (len(noisy.train), len(noisy.test)) == (9, 3)
    index = np.arange(9)
    (images, labels), (same, right) = noisy.train.rows(index), clean.train.rows(index)
    np.testing.assert_array_equal(images, same)
    stored, all_labels = dataset.train.rows(np.arange(12))
    parts, of_parts = zip(clean.train.rows(index), clean.test.rows(np.arange(3)), strict=True)
    examples = [(image.tobytes(), label) for image, label in zip(stored, all_labels, strict=True)]
    both = zip(np.concatenate(parts), np.concatenate(of_parts), strict=True)
    assert sorted(examples) == sorted((image.tobytes(), label) for image, label in both)
    assert (labels != right).sum() == 4  # 4.5, rounded half to even
    np.testing.assert_array_equal(noisy.test.rows(np.arange(3))[1], clean.test.rows(np.arange(3))[1])
    (batch,) = data.training_batches(noisy.train, BatchPlan.constant(9, 1), seed=0)
    assert sorted(batch["label"]) == sorted(labels)
    np.testing.assert_array_equal(noisy.mean, imagenet.MEAN)


def test_preparing_prints_and_logs_nothing(
    tmp_path: Path, archives: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    data.load("imagenet2012", 0, data.Location(tmp_path, archives))
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_prepared_photographs_need_no_archive(dataset: data.Dataset, prepared: Path, tmp_path: Path) -> None:
    catalogue.load_prepared.cache_clear()
    again = data.load("imagenet2012", 0, data.Location(prepared, tmp_path))
    np.testing.assert_array_equal(again.test.rows(np.arange(2))[0], dataset.test.rows(np.arange(2))[0])


def test_missing_archives_are_reported_with_their_source(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'imagenet2012'.*ILSVRC2012_img_val\.tar.*registration at https"):
        data.load("imagenet2012", 0, data.Location(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: os.truncate(path, 1000), r"img_train\.tar has 1000 bytes, and the published archive has \d+"),
        (
            lambda path: path.write_bytes(b"x" * path.stat().st_size),
            r"cannot be prepared there: file could not be opened",
        ),
    ],
    ids=["cut", "no archive"],
)
def test_a_damaged_archive_is_refused(
    tmp_path: Path, archives: Path, damage: Callable[[Path], object], message: str
) -> None:
    (tmp_path / "by hand").mkdir()
    for path in archives.iterdir():
        (tmp_path / "by hand" / path.name).write_bytes(path.read_bytes())
    damage(tmp_path / "by hand" / "ILSVRC2012_img_train.tar")
    with pytest.raises(ValueError, match=message) as refused:
        data.load("imagenet2012", 0, data.Location(tmp_path / "data", tmp_path / "by hand"))
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: next(folder.glob("*train.array_record*")).unlink(),
        lambda folder: os.truncate(next(folder.glob("*validation.array_record*")), 1000),
        lambda folder: (folder / "dataset_info.json").write_text("{"),
    ],
    ids=["no file", "cut", "half a description"],
)
def test_damaged_photographs_end_in_an_error_message(
    tmp_path: Path, archives: Path, damage: Callable[[Path], object]
) -> None:
    location = data.Location(tmp_path, archives)
    data.load("imagenet2012", 0, location)
    catalogue.load_prepared.cache_clear()
    damage(tmp_path / "imagenet2012" / "5.1.0")
    with pytest.raises(ValueError, match=r"'imagenet2012' in .*remove") as refused:
        data.load("imagenet2012", 0, location)
    assert "\n" not in str(refused.value)


def test_photographs_prepared_in_tfds_own_format_are_refused(tmp_path: Path, archives: Path) -> None:
    preparation.prepare("imagenet2012", data.Location(tmp_path, archives))
    with pytest.raises(ValueError, match=r"(?i)'imagenet2012' in .*tfrecord.*remove"):
        data.load("imagenet2012", 0, data.Location(tmp_path, archives))
