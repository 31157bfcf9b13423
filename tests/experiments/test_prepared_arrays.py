"""A named data set that is read from NumPy arrays on a machine without TensorFlow."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from experiments import data, reproduce, train
from experiments.config import Config
from experiments.data import catalogue
from experiments.runner import run
from experiments.runner.hosts import Machine
from experiments.sharpness import SharpnessSettings
from experiments.study import Grid
from tests.experiments import made_up

NAME = "cifar100"
Arrays = dict[str, np.ndarray]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduces the data set to 60 training images, and hides TFDS."""
    catalogue.load_prepared.cache_clear()
    made_up.shrink(monkeypatch, NAME)
    monkeypatch.setitem(sys.modules, "experiments.data.preparation", None)
    monkeypatch.delattr(data, "preparation", raising=False)


def arrays() -> Arrays:
    made = made_up.parts((32, 32, 3), 100)
    images = {f"x_{part}": split.images for part, split in made.items()}
    return images | {f"y_{part}": split.labels for part, split in made.items()}


def write_npz(folder: Path, **changed: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / f"{NAME}.npz", **(arrays() | changed))
    return folder / f"{NAME}.npz"


def write_parts(folder: Path) -> Path:
    """Twelve parts of five training images each, so that sorting by number and by name differ."""
    parts = folder / f"{NAME}_arrays"
    parts.mkdir(parents=True)
    made = arrays()
    for i, images in enumerate(np.split(made.pop("x_train"), 12)):
        np.save(parts / f"x_train-{i}.npy", images)
    for name, array in made.items():
        np.save(parts / f"{name}.npy", array)
    return parts


def load(folder: Path) -> data.Dataset:
    catalogue.load_prepared.cache_clear()
    return data.load(NAME, 0, data.Location(folder))


def test_both_forms_are_read_in_the_order_of_the_arrays(tmp_path: Path) -> None:
    write_npz(tmp_path / "npz")
    write_parts(tmp_path / "parts")
    made = arrays()
    for kind in ("npz", "parts"):
        dataset = load(tmp_path / kind)
        np.testing.assert_array_equal(dataset.train.images, made["x_train"], strict=True)
        np.testing.assert_array_equal(dataset.test.labels, made["y_test"], strict=True)
        assert (dataset.num_classes, dataset.crop_padding, dataset.flip) == (100, 4, True)
    assert load(tmp_path / "npz").fingerprint() == load(tmp_path / "parts").fingerprint()


def test_all_arrays_may_be_in_parts_and_other_files_are_ignored(tmp_path: Path) -> None:
    parts = write_parts(tmp_path)
    expected = load(tmp_path).fingerprint()
    for name in ("y_train", "x_test", "y_test"):
        array = np.load(parts / f"{name}.npy")
        (parts / f"{name}.npy").unlink()
        np.save(parts / f"{name}-0.npy", array[:4])
        np.save(parts / f"{name}-1.npy", array[4:])
    for other in ("notes.txt", "x_train-a.npy", "x_train-01.npy", "x_train--1.npy", ".x_test.npy.new", "x_extra.npy"):
        (parts / other).write_text("mine")
    assert load(tmp_path).fingerprint() == expected


def test_the_single_file_is_read_if_both_forms_exist(tmp_path: Path) -> None:
    write_parts(tmp_path)
    write_npz(tmp_path, y_test=np.full(10, 99))
    assert set(load(tmp_path).test.labels) == {99}


@pytest.mark.parametrize("variable", [True, False])
def test_the_default_folder_is_that_of_tfds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: bool) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ("elsewhere" if variable else "tensorflow_datasets")
    if variable:
        monkeypatch.setenv("TFDS_DATA_DIR", "~/elsewhere")
    else:
        monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    write_npz(folder)
    catalogue.load_prepared.cache_clear()
    assert len(data.load(NAME, 0).train) == made_up.TRAIN


def test_without_arrays_and_without_tensorflow_both_remedies_are_named(tmp_path: Path) -> None:
    remedies = f"install sam_optax[experiments], or copy cifar100.npz from another machine into {tmp_path}."
    with pytest.raises(ValueError, match=r"'cifar100' needs a package .*preparation") as refused:
        load(tmp_path)
    assert str(refused.value).endswith(remedies)


def with_array(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    """Returns a change of one array in a folder of arrays."""

    def alter(parts: Path) -> None:
        np.save(parts / f"{name}.npy", change(np.load(parts / f"{name}.npy")))

    return alter


def labelled(label: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda labels: np.append(labels[:-1], label)


def cut(name: str, to: int) -> Callable[[Path], object]:
    return lambda parts: (parts / name).write_bytes((parts / name).read_bytes()[:to])


HARMS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a part is missing": (lambda parts: (parts / "x_train-1.npy").unlink(), "{parts} has no file x_train-1.npy"),
    "the first part is missing": (lambda parts: (parts / "x_train-0.npy").unlink(), "has no file x_train-0.npy"),
    "the last part is missing": (
        lambda parts: (parts / "x_train-11.npy").unlink(),
        "{parts} has 55 images in x_train and 60 labels in y_train, and needs one label for each image",
    ),
    "an array is missing": (lambda parts: (parts / "x_test.npy").unlink(), "no file x_test.npy or x_test-0.npy"),
    "an array is there twice": (
        lambda parts: np.save(parts / "x_test-0.npy", np.zeros(1)),
        "{parts} has both x_test.npy and x_test-0.npy: remove the one that is outdated",
    ),
    "dtype of a part": (
        with_array("x_train-3", lambda images: images.astype(np.float32)),
        "x_train-3.npy has dtype float32 and shape (5, 32, 32, 3), and needs uint8 and (examples, 32, 32, 3)",
    ),
    "shape of a part": (with_array("x_train-3", lambda images: images[:, 0]), "has dtype uint8 and shape (5, 32, 3)"),
    "another image size": (with_array("x_test", lambda images: images[:, :28, :28]), "and shape (10, 28, 28, 3)"),
    "a single number": (with_array("x_test", lambda _: np.uint8(3)), "and shape ()"),
    "dtype of labels": (
        with_array("y_train", lambda labels: labels.astype(np.float32)),
        "y_train.npy has dtype float32 and shape (60,), and needs integers and (examples,)",
    ),
    "shape of labels": (with_array("y_test", lambda labels: labels[:, None]), "dtype int32 and shape (10, 1)"),
    "a label is too large": (
        with_array("y_test", labelled(100)),
        "y_test.npy has the label 100, and the data set has 100 classes, numbered from 0",
    ),
    "a label is negative": (with_array("y_train", labelled(-1)), "y_train.npy has the label -1, and the data set"),
    "fewer labels": (with_array("y_test", lambda labels: labels[:-1]), "10 images in x_test and 9 labels in y_test"),
    "no test images": (
        lambda parts: [with_array(f"{kind}_test", lambda array: array[:0])(parts) for kind in "xy"],
        "{parts} has 0 images in x_test and 0 labels in y_test",
    ),
    "fewer training images": (
        lambda parts: [(parts / "x_train-11.npy").unlink(), with_array("y_train", lambda labels: labels[:55])(parts)],
        "{parts} has 55 training images, and cifar100 has 60",
    ),
    "objects": (with_array("y_test", lambda labels: labels.astype(object)), "y_test.npy cannot be read (Object arrays"),
    "truncated": (cut("x_train-2.npy", 5000), "x_train-2.npy cannot be read ("),
    "truncated header": (cut("x_train-2.npy", 50), "x_train-2.npy cannot be read ("),
    "empty": (cut("y_train.npy", 0), "y_train.npy cannot be read ("),
    "a text": (lambda parts: (parts / "y_train.npy").write_text("labels"), "y_train.npy cannot be read ("),
    "a folder": (lambda parts: (parts / "x_train-12.npy").mkdir(), "x_train-12.npy cannot be read (Is a directory)"),
    "no folder": (lambda parts: (parts.rename(parts.with_name("x")), parts.touch()), "{parts} cannot be read (Not a"),
}


@pytest.mark.parametrize("harm", HARMS)
def test_wrong_arrays_are_refused_with_a_message(tmp_path: Path, harm: str) -> None:
    parts = write_parts(tmp_path)
    alter, sentence = HARMS[harm]
    alter(parts)
    with pytest.raises(ValueError, match=r"copy the arrays again|remove the one") as refused:
        load(tmp_path)
    assert sentence.format(parts=parts) in str(refused.value)
    assert str(parts) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"x_train": np.zeros((60, 28, 28, 3), np.uint8)}, "x_train in {file} has dtype uint8 and shape (60, 28, 28"),
        ({"y_train": np.full(60, 100)}, "y_train in {file} has the label 100, and the data set has 100 classes"),
        ({"x_train": arrays()["x_train"][:48], "y_train": np.zeros(48, int)}, "{file} has 48 training images, and"),
        ({"y_test": np.array([None] * 10)}, "the NumPy file {file} cannot be used (Object arrays"),
        (None, "the NumPy file {file} cannot be used (it is not an npz file, or it is truncated): copy the arrays"),
    ],
)
def test_a_wrong_file_is_refused_with_a_message(tmp_path: Path, changed: Arrays | None, sentence: str) -> None:
    file = write_npz(tmp_path, **changed or {})
    if changed is None:
        file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(ValueError, match="copy the arrays again from the machine that prepared them") as refused:
        load(tmp_path)
    assert sentence.format(file=file) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_data_set_of_photographs_is_never_read_from_arrays(tmp_path: Path) -> None:
    (tmp_path / "imagenet2012.npz").touch()
    with pytest.raises(ValueError, match=r"'imagenet2012' needs a package .*: install"):
        data.load("imagenet2012", 0, data.Location(tmp_path))


WITHOUT_PACKAGES = """
import sys
absent = ["tensorflow", "tensorflow_datasets", "matplotlib", "pandas", "matfree", "tensorboardX", "jinja2", "requests"]
sys.modules.update(dict.fromkeys(absent))  # an import of them fails
from dataclasses import replace
from experiments import models, reproduce, train
from experiments.data import catalogue
from experiments.models import registry
from experiments.sharpness import __main__ as sharpness
from tests.experiments.tiny_network import TinyNet
registry._BUILDERS["tiny"], models.NAMES = TinyNet, (*models.NAMES, "tiny")
entry = catalogue.ENTRIES["cifar100"]
catalogue.ENTRIES["cifar100"] = replace(entry, size=entry.size._replace(train=60))
run = ["--dataset", "cifar100", "--train-examples", "48", "--model", "tiny", "--batch-plan", "1x16"]
measured = ["--sharpness.during", "1", "--sharpness.steps", "1", "--sharpness.examples", "16"]
for kind in ("npz", "parts"):
    sys.argv = ["train", *run, *measured, "--data-dir", kind, "--output", f"runs/{kind}"]
    train.main()
    sys.argv = ["sharpness", f"runs/{kind}", "--steps", "2", "--examples", "16", "--data-dir", kind]
    sharpness.main()
row = ["--config", "cifar100_resnet18", "--epochs", "2", "--constant-plan", "1x16", "--increasing-plan", "1x8,1x16"]
cells = ["--seeds", "0", "--methods", "sam", "--strategies", "increasing", "--finished", "runs.jsonl"]
sys.argv = ["reproduce", *row, *cells, *run[2:6], *measured[2:], "--data-dir", "parts", "--output", "study"]
reproduce.main()
"""


def test_runs_from_parts_and_from_the_file_are_equal_without_the_large_packages(tmp_path: Path) -> None:
    write_npz(tmp_path / "npz")
    write_parts(tmp_path / "parts")
    command = [sys.executable, "-c", WITHOUT_PACKAGES]
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test error") == 3
    assert "The report needs a package" in done.stdout
    assert (tmp_path / "runs.jsonl").read_text().count('"name": "sam increasing, seed 0"') == 1
    from_file, from_parts = (tmp_path / "runs" / kind for kind in ("npz", "parts"))
    assert (from_file / "config.json").read_text() == (from_parts / "config.json").read_text()
    lines = [(folder / "sharpness.jsonl").read_text().splitlines() for folder in (from_file, from_parts)]
    assert len(lines[0]) > 2
    assert lines[0] == lines[1]
    losses = [json.loads((folder / "result.json").read_text())["test_loss"] for folder in (from_file, from_parts)]
    assert losses[0] == losses[1]


def test_a_setting_whose_package_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for package in ("matfree", "tensorboardX", "tensorflow"):
        monkeypatch.setitem(sys.modules, package, None)
    for measure in ("top_eigenvalue", "trace"):
        with pytest.raises(ValueError, match=f"measures has '{measure}', which needs the package matfree: install"):
            SharpnessSettings(measures=(measure,))
    with pytest.raises(ValueError, match="tensorboard is True, which needs the package tensorboardX: install"):
        train.Arguments(Config.from_settings(), Machine(), tmp_path, data.Location(), tensorboard=True)
    with pytest.raises(ValueError, match="tensorboard is True, which needs the package tensorboardX: install"):
        reproduce.Arguments(Grid(tmp_path), tensorboard=True)
    write_npz(tmp_path)
    catalogue.load_prepared.cache_clear()
    augmented = Config.from_settings(dataset=NAME, auto_augment=True, batch_plan="1x16")
    with pytest.raises(ValueError, match="auto_augment is True, which needs the package tensorflow: install"):
        run.load(augmented, data.Location(tmp_path))
