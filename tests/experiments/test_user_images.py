import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiments import data, reproduce
from experiments import train as train_program
from experiments.config import Config
from experiments.data.dataset import channel_moments
from experiments.report import __main__ as report_program
from experiments.runner import run
from experiments.runner.finished_runs import find_runs
from tests.experiments import made_up, written_images
from tests.experiments.conftest import train

KINDS = ("npz", "image_folder")


def written(kind: str, folder: Path, **changed: Any) -> str:
    """Writes the same data in one of the two forms, and returns the name of the data set."""
    if kind == "npz":
        return f"npz:{written_images.write_npz(folder / 'images.npz', **changed)}"
    return f"image_folder:{written_images.write_folder(folder / 'images', **changed)}"


def call(program: object, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["program", *arguments])
    program.main()


@pytest.mark.parametrize("kind", KINDS)
def test_the_data_set_contains_the_images_and_labels_of_the_files(tmp_path: Path, kind: str) -> None:
    dataset, made = data.load(written(kind, tmp_path), 0), written_images.arrays()
    assert (dataset.num_classes, dataset.image_shape) == (written_images.CLASSES, (8, 8, 1))
    assert (dataset.crop_padding, dataset.flip) == (0, False)
    for part, split in {"train": dataset.train, "test": dataset.test}.items():
        expected = data.Split(made[f"x_{part}"][..., None], made[f"y_{part}"].astype(np.int32))
        made_up.assert_same_examples(split, expected)
    mean, std = channel_moments(made["x_train"][..., None])
    np.testing.assert_array_equal((dataset.mean, dataset.std), (mean, std))


def test_a_numpy_file_keeps_its_order_and_a_folder_is_shuffled(tmp_path: Path) -> None:
    from_file, from_folder = (data.load(written(kind, tmp_path), 0) for kind in KINDS)
    np.testing.assert_array_equal(from_file.train.images[..., 0], written_images.arrays()["x_train"])
    assert set(from_folder.train.labels[:12].tolist()) == {0, 1, 2}


@pytest.mark.parametrize("suffix", ["png", "jpg", "JPEG"])
def test_images_in_colour_are_read_and_scaled(tmp_path: Path, suffix: str) -> None:
    made = written_images.arrays((6, 10, 3))
    folder = written_images.write_folder(tmp_path, suffix, **made)
    grey = folder / "train" / "class 0" / f"000.{suffix}"
    Image.open(grey).convert("L").save(grey)
    unscaled = data.load(f"image_folder:{folder}", 0)
    scaled = data.load(f"image_folder:{folder}", 0, user_images=data.UserImageSettings(image_size=4))
    assert (unscaled.image_shape, scaled.image_shape) == ((6, 10, 3), (4, 4, 3))
    assert len(scaled.train) == written_images.TRAIN


def test_images_of_several_sizes_are_scaled_to_one(tmp_path: Path) -> None:
    folder = written_images.write_folder(tmp_path)
    Image.new("L", (20, 5), 200).save(folder / "test" / "class 1" / "001.png")
    dataset = data.load(f"image_folder:{folder}", 0, user_images=data.UserImageSettings(image_size=8))
    assert dataset.image_shape == (8, 8, 1)
    assert (dataset.test.images == 200).all((1, 2, 3)).sum() == 1


def test_images_are_turned_upright_and_an_opaque_alpha_channel_is_accepted(tmp_path: Path) -> None:
    folder = written_images.write_folder(tmp_path, **written_images.arrays((8, 8, 3)))
    turned, opaque = (folder / "train" / "class 0" / name for name in ("000.png", "003.png"))
    image = Image.open(turned)
    exif = image.getexif()
    exif[0x0112] = 3  # turned by 180 degrees
    image.save(turned, exif=exif)
    Image.open(opaque).convert("RGBA").save(opaque)
    made = written_images.arrays((8, 8, 3))
    made["x_train"][0] = made["x_train"][0, ::-1, ::-1]
    read = data.load(f"image_folder:{folder}", 0).train
    made_up.assert_same_examples(read, data.Split(made["x_train"], made["y_train"].astype(np.int32)))


def test_hidden_files_are_ignored(tmp_path: Path) -> None:
    folder = written_images.write_folder(tmp_path)
    (folder / "train" / ".DS_Store").touch()
    (folder / "train" / "class 0" / ".DS_Store").touch()
    assert len(data.load(f"image_folder:{folder}", 0).train) == written_images.TRAIN


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_trains_and_is_reported_after_its_images_are_gone(
    tiny: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: str
) -> None:
    output, name = tmp_path / "run", written(kind, tmp_path)
    augmentation = ["--crop-padding", "1", "--flip", "True", "--batch-plan", "2x16,1x24"]
    call(train_program, monkeypatch, "--dataset", name, "--model", tiny, "--output", str(output), *augmentation)
    assert f"on {name}: test error" in capsys.readouterr().out
    (tmp_path / "images.npz" if kind == "npz" else tmp_path / "images").rename(tmp_path / "gone")
    call(report_program, monkeypatch, str(output), "--output", str(tmp_path / "report"))
    assert f"tiny on {name}" in (tmp_path / "report" / "report.md").read_text()
    (found,) = find_runs([output])
    assert found.config.epoch_size == written_images.TRAIN


def test_a_study_runs_on_the_users_own_images(
    tiny: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    plans = ["--constant-plan", "2x16", "--increasing-plan", "1x8,1x16", "--seeds", "0", "--strategies", "constant"]
    study = ["--dataset", written("npz", tmp_path), "--model", tiny, "--methods", "sgd", *plans]
    call(reproduce, monkeypatch, *study, "--output", str(tmp_path / "dry"), "--dry-run")
    assert re.search(r"constant-0 .* 6 ", capsys.readouterr().out)
    call(reproduce, monkeypatch, *study, "--output", str(tmp_path / "study"), "--sharpness.examples", "16")
    assert (tmp_path / "study" / "report" / "report.html").exists()


def test_a_step_is_timed_with_the_shapes_of_the_images(tmp_path: Path) -> None:
    name = written("image_folder", tmp_path)
    noise = data.synthetic(name, 5)
    assert (len(noise.train), noise.image_shape, noise.num_classes) == (5, (8, 8, 1), written_images.CLASSES)


def test_crops_and_flips_change_the_run(tiny: str, tmp_path: Path) -> None:
    name = written("npz", tmp_path)
    shared = {"dataset": name, "model": tiny, "batch_plan": "1x16"}
    plain = train(tmp_path / "plain", **shared)
    for i, changed in enumerate(({"crop_padding": 2}, {"flip": True})):
        assert train(tmp_path / str(i), **shared, **changed).train_loss != plain.train_loss
    assert train(tmp_path / "same", **shared, crop_padding=0, flip=False).train_loss == plain.train_loss


def test_a_file_with_another_number_of_examples_than_the_config_is_refused(tmp_path: Path) -> None:
    name = written("npz", tmp_path)
    config = Config.from_settings(dataset=name, batch_plan="1x16")
    fewer = {name: array[:30] for name, array in written_images.arrays().items() if name.endswith("train")}
    written_images.write_npz(tmp_path / "images.npz", **fewer)
    with pytest.raises(ValueError, match=r"examples_in_file is 48, and npz:.* has 30 training examples: omit"):
        run.load(config)


@pytest.mark.parametrize("kind", KINDS)
def test_runs_on_changed_images_are_other_runs(kind: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"dataset": written(kind, tmp_path), "batch_plan": "1x16"}
    config = Config.from_settings(**settings)
    assert Config.from_settings(**settings) == config
    assert Config.of(json.loads(json.dumps(config.settings))) == config
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    assert written(kind, tmp_path, **written_images.arrays(seed=1)) == settings["dataset"]
    assert Config.from_settings(**settings) != config
    with pytest.raises(ValueError, match=r"the images of .* have changed since the run was started: restore them"):
        run.load(config)


def test_a_record_without_a_digest_needs_no_images(tmp_path: Path) -> None:
    settings = Config.from_settings(dataset=written("npz", tmp_path), batch_plan="1x16").settings
    shutil.rmtree(tmp_path)
    del settings["images_digest"]
    assert Config.of(settings).problem.images_digest is None


WITHOUT_TENSORFLOW = """
import sys
sys.modules.update(dict.fromkeys(["tensorflow", "tensorflow_datasets"]))  # an import of them fails
from experiments import models, train
from experiments.models import registry
from experiments.sharpness import __main__ as sharpness
from tests.experiments.conftest import TinyNet
registry._BUILDERS["tiny"], models.NAMES = TinyNet, (*models.NAMES, "tiny")
folder, *names = sys.argv[1:]
for i, name in enumerate(names):
    sys.argv = ["train", "--dataset", name, "--model", "tiny", "--batch-plan", "1x16", "--output", f"{folder}/{i}"]
    train.main()
sys.argv = ["sharpness", folder, "--steps", "1", "--examples", "16"]
sharpness.main()
"""


def test_data_in_memory_train_and_are_measured_without_tensorflow(tmp_path: Path) -> None:
    names = ["digits", *(written(kind, tmp_path) for kind in KINDS)]
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, str(tmp_path / "runs"), *names]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test error") == len(names)
    assert len(list((tmp_path / "runs").glob("*/sharpness.jsonl"))) == len(names)
