import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiments import data, show_batch
from experiments.config import Config
from experiments.show_batch import in_words

_BITS = np.random.default_rng(0)
_IMAGES = _BITS.integers(0, 256, (40, 12, 12, 3)).astype(np.uint8)
_LABELS = np.arange(40, dtype=np.int32) % 4
DATASET = data.Dataset(
    data.Split(_IMAGES, _LABELS),
    data.Split(_IMAGES[:4], _LABELS[:4]),
    num_classes=4,
    mean=_IMAGES.mean((0, 1, 2), dtype=np.float32),
    std=_IMAGES.std((0, 1, 2), dtype=np.float32),
    crop_padding=2,
    flip=True,
)


def _views(batch: int = 0, **settings: Any) -> dict[str, show_batch.View]:
    config = Config.from_settings(batch_plan="2x8", **settings)
    return {view.step: view for view in show_batch.views(config, DATASET, batch)}


def test_each_step_of_the_recipe_has_a_view_and_changes_the_image() -> None:
    full = _views(auto_augment=True, random_erasing=1.0, mixing=1.0, label_smoothing=0.1)
    assert list(full) == ["as read", "crop, flip, auto_augment", "erasing", "mixing"]
    images = [view.images for view in full.values()]
    assert all(each.shape == (8, 12, 12, 3) and each.dtype == np.uint8 for each in images)
    assert all(np.any(one != other) for one, other in pairwise(images))
    assert full["mixing"].targets.shape == (8, 4)


def test_the_first_view_is_the_stored_image_and_normalisation_is_undone() -> None:
    plain = _views()
    assert list(plain) == ["as read", "crop", "flip", "to the network"]
    for image, label in zip(plain["as read"].images, plain["as read"].targets, strict=True):
        (index,) = np.flatnonzero(np.all(image == _IMAGES, (1, 2, 3)))
        assert _LABELS[index] == label
    np.testing.assert_array_equal(plain["to the network"].images, plain["flip"].images)
    np.testing.assert_array_equal(plain["to the network"].targets, plain["as read"].targets)


def test_images_with_two_channels_are_drawn(tmp_path: Path) -> None:
    views = [show_batch.View("as read", _IMAGES[:2, ..., :2], _LABELS[:2])]
    show_batch.draw(views, 2, tmp_path / "two.png")
    with Image.open(tmp_path / "two.png") as drawn:
        assert drawn.size[0] > 100


def test_every_batch_of_the_run_can_be_shown_and_no_other() -> None:
    batches = [_views(batch)["as read"].images for batch in range(10)]
    first_epoch = np.concatenate(batches[:5])
    assert len({image.tobytes() for image in first_epoch}) == 40
    assert not np.array_equal(np.concatenate(batches[5:]), first_epoch)
    for batch in (-1, 10):
        with pytest.raises(ValueError, match=f"batch is {batch}: the run has 10"):
            _views(batch)
    assert len(_views(25, passes=3)) == 4


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (3, "label 3"),
        ([0, 1, 0], "1: 100%"),
        ([0.3, 0, 0.7], "2: 70%, 0: 30%"),
        ([0.025, 0.625, 0.025, 0.325], "1: 62%, 3: 32%\neach other: 2.5%"),
    ],
)
def test_targets_are_described_in_words(target: Any, words: str) -> None:
    assert in_words(np.asarray(target)) == words


@pytest.mark.usefixtures("drawn_pictures")
def test_the_program_draws_a_picture(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sizes = []
    for images in ("2", "4"):
        settings = ["--images", images, "--batch-plan", "1x16", "--mixing", "1", "--output", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", ["program", *settings])
        show_batch.main()
        with Image.open(tmp_path / "batch.png") as picture:
            sizes.append(picture.size)
            lightness = np.asarray(picture.convert("L"))
        assert np.ptp(lightness[:, : picture.size[0] // 2]) > 200
        assert str(tmp_path / "batch.png") in capsys.readouterr().out.replace("\n", "")
    assert sizes[0][0] == sizes[1][0]
    assert sizes[0][1] < sizes[1][1]


def test_invalid_options_end_in_an_error_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for settings in (["--images", "0"], ["--batch", "-1"]):
        monkeypatch.setattr(sys, "argv", ["program", *settings, "--output", str(tmp_path / "none")])
        with pytest.raises(SystemExit) as stop:
            show_batch.main()
        assert stop.value.code == 2
        assert f"{settings[0][2:]} is {settings[1]}" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
