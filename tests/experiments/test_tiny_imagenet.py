"""Tiny ImageNet, from a made-up archive in the published format: five classes, some grey images, and unused files."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import data
from experiments.data import catalogue
from tests.experiments import made_up

WNIDS = ("n02124075", "n01443537", "n04067472", "n07749582", "n01629819")  # not in order, as in the original
TRAIN, VALIDATION = 4, 2  # images of a class


def jpeg(color: np.ndarray, mode: str) -> bytes:
    """An image of 64 x 64 in one colour: JPEG keeps it to within a few levels."""
    file = io.BytesIO()
    Image.fromarray(np.broadcast_to(color, (64, 64, 3)).astype(np.uint8)).convert(mode).save(file, "JPEG", quality=95)
    return file.getvalue()


def color_of(wnid: str, number: int, part: str) -> np.ndarray:
    """A colour that identifies each image; the last image of a class is grey."""
    level = 15 + 45 * sorted(WNIDS).index(wnid)
    if number == (TRAIN if part == "train" else VALIDATION) - 1:
        return np.full(3, level)
    return np.array([level, 40 * number, 200 if part == "train" else 20])


def write(path: Path) -> None:
    """The archive, in the original's order: the lists, the test part, then validation and training."""
    root = "tiny-imagenet-200"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{root}/", b"")
        archive.writestr(f"{root}/words.txt", "n00001740\tentity\n")
        archive.writestr(f"{root}/wnids.txt", "\n".join(WNIDS) + "\n")
        archive.writestr(f"{root}/test/images/test_0.JPEG", jpeg(np.zeros(3), "RGB"))
        rows = []
        for i, wnid in enumerate(wnid for wnid in WNIDS for _ in range(VALIDATION)):
            color = color_of(wnid, i % VALIDATION, "validation")
            archive.writestr(f"{root}/val/images/val_{i}.JPEG", jpeg(color, "L" if np.ptp(color) == 0 else "RGB"))
            rows.append(f"val_{i}.JPEG\t{wnid}\t0\t32\t44\t62\n")
        archive.writestr(f"{root}/val/val_annotations.txt", "".join(rows))
        for wnid in WNIDS:
            archive.writestr(f"{root}/train/{wnid}/{wnid}_boxes.txt", f"{wnid}_0.JPEG\t0\t10\t63\t58\n")
            for number in range(TRAIN):
                color = color_of(wnid, number, "train")
                name = f"{root}/train/{wnid}/images/{wnid}_{number}.JPEG"
                archive.writestr(name, jpeg(color, "L" if np.ptp(color) == 0 else "RGB"))


@pytest.fixture
def location(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> data.Location:
    """The location of the archive, which TFDS accepts."""
    made_up.forbid_network(monkeypatch)
    catalogue.load_prepared.cache_clear()
    (tmp_path / "by hand").mkdir()
    write(tmp_path / "by hand" / "tiny-imagenet-200.zip")
    made_up.register(monkeypatch, "tiny_imagenet", tmp_path / "by hand")
    return data.Location(tmp_path / "prepared", tmp_path / "by hand")


def colors(split: data.Split) -> list[tuple[int, ...]]:
    """Label and mean colour of every image, in steps of 5."""
    means = 5 * np.round(split.images.mean((1, 2)) / 5).astype(int)
    return sorted((int(label), *map(int, mean)) for mean, label in zip(means, split.labels, strict=True))


@pytest.mark.parametrize(("part", "count"), [("train", TRAIN), ("validation", VALIDATION)])
def test_images_have_the_class_of_their_folder_or_of_the_table(location: data.Location, part: str, count: int) -> None:
    dataset = data.load("tiny_imagenet", 0, location)
    split = dataset.train if part == "train" else dataset.test
    assert split.images.shape == (5 * count, 64, 64, 3)
    assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)
    expected = sorted(
        (label, *color_of(wnid, number, part)) for label, wnid in enumerate(sorted(WNIDS)) for number in range(count)
    )
    np.testing.assert_array_equal(colors(split), expected)


def test_tiny_imagenet_is_shifted_and_flipped_as_in_the_paper(location: data.Location) -> None:
    dataset = data.load("tiny_imagenet", 0, location)
    assert (dataset.num_classes, dataset.image_shape) == (200, (64, 64, 3))
    assert (dataset.crop_padding, dataset.flip) == (4, True)
    np.testing.assert_allclose(dataset.mean, dataset.train.images.mean((0, 1, 2)), rtol=1e-6)


def test_grey_images_have_three_equal_channels(location: data.Location) -> None:
    images = data.load("tiny_imagenet", 0, location).train.images
    grey = np.ptp(images.mean((1, 2)), axis=1) == 0
    assert grey.sum() == len(WNIDS)
    np.testing.assert_array_equal(images[grey][..., 0], images[grey][..., 2])


def test_tiny_imagenet_is_prepared_once(location: data.Location) -> None:
    first = data.load("tiny_imagenet", 0, location)
    (location.manual_dir / "tiny-imagenet-200.zip").unlink()
    catalogue.load_prepared.cache_clear()
    again = data.load("tiny_imagenet", 0, data.Location(location.data_dir))
    np.testing.assert_array_equal(again.train.images, first.train.images)


def test_a_different_archive_is_refused(location: data.Location) -> None:
    with (location.manual_dir / "tiny-imagenet-200.zip").open("ab") as archive:
        archive.write(b"more")
    with pytest.raises(ValueError, match=r"'tiny_imagenet'.*wrong checksum.*Put tiny-imagenet-200\.zip \(http"):
        data.load("tiny_imagenet", 0, location)
