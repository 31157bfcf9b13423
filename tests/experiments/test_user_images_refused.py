import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiments import data
from experiments import train as train_program
from experiments.config import Config
from experiments.runner import run
from tests.experiments import written_images

TRAIN, TEST = written_images.TRAIN, written_images.TEST
bytes_of = np.zeros((TRAIN, 8, 8), np.uint8)
labels = np.arange(TRAIN) % written_images.CLASSES

ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "an array is missing": ({"y_test": None}, "cannot be used (it has no array 'y_test'): write it with np.savez"),
    "images are floats": ({"x_train": bytes_of / 255}, "x_train in {file} has dtype float64: give uint8 images"),
    "images are flat": ({"x_train": bytes_of.reshape(TRAIN, 64)}, "x_train in {file} has shape (48, 64): give (ex"),
    "there are no images": ({"x_test": bytes_of[:0]}, "x_test in {file} has shape (0, 8, 8): give (examples"),
    "channels are first": (
        {"x_train": np.zeros((TRAIN, 3, 8, 8), np.uint8)},
        "x_train in {file} has shape (48, 3, 8, 8), with 8 channels on the last axis: give at most 4",
    ),
    "shapes differ": (
        {"x_test": np.zeros((TEST, 9, 8), np.uint8)},
        "x_test in {file} has images of shape (9, 8, 1), and x_train of shape (8, 8, 1): give images of one shape.",
    ),
    "labels are floats": ({"y_train": labels / 1}, "y_train in {file} has dtype float64: give integers"),
    "labels are a column": ({"y_test": labels[:TEST, None]}, "y_test in {file} has shape (12, 1): give shape (exam"),
    "a label is missing": (
        {"y_train": labels[:-1]},
        "y_train in {file} has 47 labels, and x_train has 48 images: give",
    ),
    "labels begin at 1": ({"y_train": labels + 1}, "y_train in {file} has the label 3, and not the label 0: number"),
    "labels have a gap": ({"y_train": labels * 2}, "y_train in {file} has the label 4, and not the label 1: number"),
    "a label is negative": ({"y_train": labels - 1}, "y_train in {file} has the label -1: number the classes from 0."),
    "there is one class": ({"y_train": labels * 0}, "y_train in {file} has the label 0 only: give images of at least"),
    "a class is not trained": (
        {"y_test": np.full(TEST, 3)},
        "y_test in {file} has the label 3, and y_train has labels up to 2: give training images of every class.",
    ),
    "labels are objects": ({"y_train": labels.astype(object)}, "cannot be used (Object arrays cannot be loaded"),
    "images are all alike": ({"x_train": bytes_of}, "the training images in {file} have a channel of one value only"),
}


def refusal(name: str, **settings: Any) -> str:
    """Returns the error message of loading."""
    with pytest.raises(ValueError, match=r"\w") as refused:
        data.load(name, 0, user_images=data.UserImageSettings(**settings))
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("case", ARRAYS)
def test_a_numpy_file_with_wrong_arrays_is_refused(tmp_path: Path, case: str) -> None:
    changed, sentence = ARRAYS[case]
    file = written_images.write_npz(tmp_path / "images.npz", **changed)
    assert sentence.format(file=file) in refusal(f"npz:{file}")


def damage(file: Path) -> None:
    """Changes one byte of the training labels."""
    content = bytearray(file.read_bytes())
    content[content.index(b"y_train.npy") + 200] ^= 1
    file.write_bytes(content)


def single_array(file: Path) -> None:
    with file.open("wb") as stream:
        np.save(stream, labels)


def change_compression(file: Path) -> None:
    """Gives the parts of the archive a compression that Python does not have."""
    content = bytearray(file.read_bytes())
    start = content.find(b"PK\x01\x02")
    while start >= 0:
        content[start + 10] = 99
        start = content.find(b"PK\x01\x02", start + 1)
    file.write_bytes(content)


CONTENTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "it does not exist": (Path.unlink, "No such file or directory"),
    "it is empty": (lambda file: file.write_bytes(b""), "it is not an npz file"),
    "it is a text": (lambda file: file.write_text("images"), "it is not an npz file"),
    "it is truncated": (
        lambda file: file.write_bytes(file.read_bytes()[:2000]),
        "it is not an npz file, or it is trunc",
    ),
    "it is a single array": (single_array, "it is not an npz file"),
    "its compression is unknown": (change_compression, "That compression method is not supported"),
    "its bytes are damaged": (damage, "Bad CRC-32 for file"),
    "it is a folder": (lambda file: (file.unlink(), file.mkdir()), "Is a directory"),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, case: str) -> None:
    file = written_images.write_npz(tmp_path / "images.npz")
    harm, reason = CONTENTS[case]
    harm(file)
    remedy = "write it with np.savez, with the arrays x_train, y_train, x_test and y_test."
    sentence = rf"the NumPy file {re.escape(str(file))} cannot be used \({reason}.*\): {remedy}$"
    assert re.match(sentence, refusal(f"npz:{file}"))
    with pytest.raises(ValueError, match=sentence):
        Config.from_settings(dataset=f"npz:{file}")


def save(*parts: str, image: Image.Image) -> Callable[[Path], object]:
    """Returns a function that saves an image into the folder."""

    def write(folder: Path) -> None:
        (folder / Path(*parts)).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / Path(*parts))

    return write


ONE = ("train", "class 0", "000.png")
FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "it does not exist": (
        shutil.rmtree,
        "{0}/train cannot be read as a folder (No such file or directory): put images",
    ),
    "test is missing": (lambda folder: shutil.rmtree(folder / "test"), "{0}/test cannot be read as a folder (No such"),
    "there is one class": (
        lambda folder: [shutil.rmtree(folder / "train" / f"class {label}") for label in (1, 2)],
        "{0}/train has 1 folders: put images into train/LABEL and test/LABEL, with one folder for each class, for at",
    ),
    "a class is empty": (lambda folder: (folder / "train" / "class 3").mkdir(), "{0}/train/class 3 has no images: add"),
    "a class is not trained": (
        save("test", "class 3", "0.png", image=Image.new("L", (8, 8))),
        "{0}/test/class 3 has a class that {0}/train does not have: give training images of every class.",
    ),
    "there are no test images": (
        lambda folder: [path.unlink() for path in (folder / "test").rglob("*.png")],
        "{0}/test has no images: put images into train/LABEL and test/LABEL",
    ),
    "a file lies between the classes": (lambda folder: (folder / "train" / "readme").touch(), "(Not a directory): put"),
    "a file is no image": (
        lambda folder: (folder / "train" / "class 0" / "names.txt").touch(),
        "{0}/train/class 0/names.txt is not a png or jpg image: convert it, or move it elsewhere.",
    ),
    "an image is damaged": (
        lambda folder: (folder / Path(*ONE)).write_bytes((folder / Path(*ONE)).read_bytes()[:60]),
        "image {0}/train/class 0/000.png cannot be read: replace it, or remove it.",
    ),
    "an image has another size": (
        save(*ONE, image=Image.new("L", (9, 7))),
        "has 9 x 7 pixels, and ",
    ),
    "an image has 16 bits": (
        save(*ONE, image=Image.fromarray(np.zeros((8, 8), np.uint16))),
        "image {0}/train/class 0/000.png has the mode I;16 of Pillow: convert it to 8 bits per channel.",
    ),
    "an image is transparent": (
        save(*ONE, image=Image.new("RGBA", (8, 8), (1, 2, 3, 100))),
        "image {0}/train/class 0/000.png is partly transparent: save it with a background, without transparency.",
    ),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_of_images_that_is_incomplete_or_wrong_is_refused(tmp_path: Path, case: str) -> None:
    folder = written_images.write_folder(tmp_path / "images")
    harm, sentence = FOLDERS[case]
    harm(folder)
    assert sentence.format(folder) in refusal(f"image_folder:{folder}")


SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "no path": ({"dataset": "npz:"}, "dataset is 'npz:': choose one of digits, cifar10,"),
    "another kind": ({"dataset": "csv:{file}"}, "imagenet2012, npz:FILE, image_folder:FOLDER."),
    "control characters": ({"dataset": "npz:{file}\x07"}, "give a path without control characters."),
    "a crop of a named set": (
        {"crop_padding": 0},
        "crop_padding is 0, and digits has its own: omit it, or give images",
    ),
    "a flip of a named set": ({"dataset": "cifar10", "flip": False}, "flip is False, and cifar10 has its own: omit it"),
    "a number of examples of a named set": ({"examples_in_file": 3}, "examples_in_file is 3, and digits has its own"),
    "a size of a named set": ({"image_size": 8}, "image_size is 8, and the images of digits are not scaled: omit it"),
    "a size of a NumPy file": (
        {"dataset": "npz:{file}", "image_size": 8},
        "are not scaled: omit it, or give an image_f",
    ),
    "a negative crop": ({"dataset": "npz:{file}", "crop_padding": -1}, "crop_padding is -1: give a number of pixels"),
    "a size of 0": ({"dataset": "image_folder:{folder}", "image_size": 0}, "image_size is 0: give an integer of at"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, case: str) -> None:
    settings, sentence = SETTINGS[case]
    places = {
        "file": written_images.write_npz(tmp_path / "images.npz"),
        "folder": written_images.write_folder(tmp_path / "images"),
    }
    settings = {name: value.format(**places) if name == "dataset" else value for name, value in settings.items()}
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Config.from_settings(**({"batch_plan": "1x16"} | settings))


def test_a_network_that_does_not_fit_the_images_is_refused(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (TRAIN, 10, 10), np.uint8)
    arrays = {"x_train": images, "y_train": labels, "x_test": images[:TEST], "y_test": labels[:TEST]}
    np.savez(tmp_path / "images.npz", **arrays)
    config = Config.from_settings(dataset=f"npz:{tmp_path / 'images.npz'}", model="vit_tiny", batch_plan="1x16")
    with pytest.raises(ValueError, match=re.escape("image_shape is (10, 10, 1): give sides that are multiples of 4")):
        run.load(config)


def test_a_crop_that_is_larger_than_the_images_is_refused(tmp_path: Path) -> None:
    name = f"npz:{written_images.write_npz(tmp_path / 'images.npz')}"
    assert "crop_padding is 9, and the images in" in refusal(name, crop_padding=9)
    assert data.load(name, 0, user_images=data.UserImageSettings(crop_padding=8)).crop_padding == 8


@pytest.mark.parametrize("changed", [{}, {"x_train": bytes_of / 255}, {"y_train": None}])
def test_the_program_ends_with_one_sentence_and_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, changed: dict[str, Any]
) -> None:
    file = tmp_path / "images.npz" if not changed else written_images.write_npz(tmp_path / "images.npz", **changed)
    arguments = ["program", "--dataset", f"npz:{file}", "--batch-plan", "1x16", "--output", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stop:
        train_program.main()
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert str(file) in error
    assert not (tmp_path / "run").exists()
