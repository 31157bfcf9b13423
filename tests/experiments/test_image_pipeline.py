"""The recipe of a run, from the stored image to the network: the order of its stages."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
import tensorflow as tf

from experiments import augmentation, data
from experiments.config import Config
from experiments.data.auto_augment import auto_augment
from experiments.data.stream import moved
from experiments.runner import image_pipeline, run

KEY = np.array([3, 17], np.int64)


def dataset(size: int = 12, channels: int = 3) -> data.Dataset:
    bits = np.random.default_rng(0)
    part = data.Split(
        bits.integers(1, 256, (size, 8, 8, channels)).astype(np.uint8), np.arange(size, dtype=np.int32) % 4
    )
    mean, std = np.full(channels, 120.0, np.float32), np.full(channels, 70.0, np.float32)
    return data.Dataset(part, part, 4, mean, std, crop_padding=2, flip=True)


def test_shifting_and_flipping_gives_all_crops_of_both_mirror_images() -> None:
    image = dataset().train.images[0]
    padded = [np.pad(each, ((2, 2), (2, 2), (0, 0))) for each in (image, image[:, ::-1])]
    crops = {each[r : r + 8, c : c + 8].tobytes() for each in padded for r in range(5) for c in range(5)}
    move = tf.function(lambda key: moved(tf.constant(image), key, 2, flip=True))
    results = [move(tf.constant([3, position], tf.int64)).numpy().tobytes() for position in range(600)]
    assert set(results) == crops
    assert len(crops) == 50
    still = moved(tf.constant(image), tf.constant(KEY), 0, flip=False)
    np.testing.assert_array_equal(still, image)


def test_with_auto_augment_images_are_shifted_before_it_and_not_again_in_the_step() -> None:
    config, colours = Config.from_settings(auto_augment=True, batch_plan="1x4"), dataset()
    transform: Any = image_pipeline.transform_of(config, colours)
    image = tf.constant(colours.train.images[1])
    expected = auto_augment(moved(image, tf.constant(KEY), 2, flip=True), tf.constant(KEY))
    np.testing.assert_array_equal(transform(image, tf.constant(KEY)), expected)
    assert list(image_pipeline.stages(image_pipeline.preparation_settings(config, colours))) == ["normalize"]
    assert list(
        image_pipeline.stages(image_pipeline.preparation_settings(Config.from_settings(random_erasing=0.5), colours))
    ) == [
        "crop",
        "flip",
        "normalize",
        "erasing",
    ]
    assert image_pipeline.transform_of(Config.from_settings(), colours) is None


def test_colour_augmentation_of_grey_images_is_refused() -> None:
    with pytest.raises(ValueError, match="auto_augment is True, and digits has grey images"):
        run.load(Config.from_settings(auto_augment=True))


def test_erased_pixels_have_the_configured_value_and_targets_are_smoothed_before_mixing() -> None:
    colours = dataset()
    config = Config.from_settings(random_erasing=1.0, mixing=1.0, label_smoothing=0.2)
    ours, constants = image_pipeline.preparation_settings(config, colours), image_pipeline.constants_of(config, colours)
    batch = {"image": colours.train.images, "label": colours.train.labels, "position": np.arange(12)}
    erased = colours.train.images
    for stage in image_pipeline.stages(ours).values():
        erased = stage(constants, batch["position"], erased)
    hidden = np.all(np.isclose(erased, 120 / 255, rtol=1e-6), -1)
    assert hidden.any((1, 2)).all()
    images, targets, _ = image_pipeline.preparation(ours)(batch, constants)
    np.testing.assert_allclose(targets.sum(-1), 1.0, rtol=1e-5)
    assert float(targets.min()) == pytest.approx(0.2 / 4, rel=1e-5)  # the smoothed part of each class
    assert float(targets.max()) <= 0.8 + 0.2 / 4 + 1e-6
    assert not np.array_equal(images, erased)
    smooth = augmentation.smoothed(batch["label"], 4, 0.2)
    plain = image_pipeline.preparation(ours._replace(recipe=replace(ours.recipe, mixing=0.0)))(batch, constants)
    np.testing.assert_allclose(plain[1], smooth)
    np.testing.assert_array_equal(plain[0], erased)
    bare = ours._replace(recipe=replace(ours.recipe, mixing=0.0, label_smoothing=0.0))
    assert jax.tree.structure(image_pipeline.preparation(bare)(batch, constants)[1])


def test_the_whole_recipe_trains_with_several_passes_per_epoch(tiny: str) -> None:
    config = Config.from_settings(
        model=tiny, batch_plan="2x4", passes=3, auto_augment=True, random_erasing=0.5, mixing=0.5
    )
    recorded: list[int] = []
    context = run.RunContext(watch=lambda record, state: recorded.append(record.step))
    _, last = run.train(config, dataset(), context)
    assert recorded == [9, 18]
    assert np.isfinite(last.train_loss)
