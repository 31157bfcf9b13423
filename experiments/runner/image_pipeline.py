"""Prepares images for the network, in stages whose random draws depend on the seed and the position in the stream."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import compress
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments import augmentation, data
from experiments.config import Config
from experiments.config.checks import check_package
from experiments.config.sections import Recipe
from experiments.data.stream import Batch, moved
from sam_optax import BatchPlan

_ERASING, _MIXING = 2, 3  # folded into the run's key; the keys of the crop and the flip are obtained by splitting it

_RESIDENT_BYTES = 2**28  # the limit for training images on the device; CIFAR has 154 million bytes, SVHN 225 million


class Constants(NamedTuple):
    """The constant inputs of every step of a run.

    Attributes:
      key: the key of the augmentation.
      mean: the mean of each channel of the training images.
      std: the standard deviation of each channel of the training images.
      examples: the training images and labels, if they are stored on the device.
    """

    key: jax.Array
    mean: jax.Array
    std: jax.Array
    examples: tuple[jax.Array, jax.Array] | None = None


class PreparationSettings(NamedTuple):
    """The settings of the preparation of images and labels.

    Attributes:
      num_classes: the number of classes; labels are from 0 to `num_classes` − 1.
      crop_padding: the largest shift of an image, in pixels.
      flip: whether images are flipped at random.
      recipe: the settings of erasing, mixing and label smoothing; its other settings have their defaults.
    """

    num_classes: int
    crop_padding: int
    flip: bool
    recipe: Recipe


Transform = Callable[[Any, Any], Any]
"""`transform(image, key)` → image, in the graph of a tf.data pipeline."""

Stage = Callable[[Constants, jax.Array, jax.Array], jax.Array]
"""`stage(constants, positions, images)` → images."""


def preparation_settings(config: Config, dataset: data.Dataset) -> PreparationSettings:
    """Returns the preparation settings of a run."""
    padding, flip = (0, False) if config.recipe.auto_augment else (dataset.crop_padding, dataset.flip)
    return PreparationSettings(dataset.num_classes, padding, flip, replace(config.recipe, auto_augment=False, passes=1))


def transform_of(config: Config, dataset: data.Dataset) -> Transform | None:
    """Returns the image transformation before the compiled step: crop, flip and AutoAugment; None without AutoAugment.

    Raises:
      ValueError: If the images are not in colour, or if TensorFlow is not installed.
    """
    if not config.recipe.auto_augment:
        return None
    if dataset.image_shape[-1] != 3:
        raise ValueError(f"auto_augment is True, and {config.problem.dataset} has grey images: omit auto_augment.")
    check_package("auto_augment is True", "tensorflow")
    from experiments.data.auto_augment import auto_augment  # noqa: PLC0415 - few runs need Pillow

    def transform(image: Any, key: Any) -> Any:
        return auto_augment(moved(image, key, dataset.crop_padding, flip=dataset.flip), key)

    return transform


def stages(settings: PreparationSettings) -> dict[str, Stage]:
    """Returns the stages that process each image separately, by name, in order."""

    def crop(constants: Constants, positions: jax.Array, images: jax.Array) -> jax.Array:
        keys = augmentation.example_keys(jax.random.split(constants.key)[0], positions)
        return augmentation.random_crop(keys, images, settings.crop_padding)

    def flip(constants: Constants, positions: jax.Array, images: jax.Array) -> jax.Array:
        keys = augmentation.example_keys(jax.random.split(constants.key)[1], positions)
        return augmentation.random_flip(keys, images)

    def normalize(constants: Constants, _: jax.Array, images: jax.Array) -> jax.Array:
        return augmentation.normalize(images, constants.mean, constants.std)

    def erasing(constants: Constants, positions: jax.Array, images: jax.Array) -> jax.Array:
        keys = augmentation.example_keys(jax.random.fold_in(constants.key, _ERASING), positions)
        # the study's code also fills with the mean of colours in [0, 1], although the mean of normalised images is 0
        return augmentation.random_erasing(keys, images, settings.recipe.random_erasing, constants.mean / 255)

    is_used = (settings.crop_padding, settings.flip, True, settings.recipe.random_erasing)
    return {stage.__name__: stage for stage in compress((crop, flip, normalize, erasing), is_used)}


def preparation(settings: PreparationSettings) -> Callable[[Any, Constants], tuple[jax.Array, jax.Array, jax.Array]]:
    """Returns `prepare(batch, constants)` → images, targets, labels; without smoothing and mixing, targets are labels.

    The batch has `image` and `label`, or `index` if the examples are stored on the device. The mixing uses one key for
    the whole batch, derived from the position of its first example.
    """
    in_order, smoothing, mixing = stages(settings), settings.recipe.label_smoothing, settings.recipe.mixing

    def prepare(batch: Any, constants: Constants) -> tuple[jax.Array, jax.Array, jax.Array]:
        if constants.examples is None or "image" in batch:
            images, labels = batch["image"], batch["label"]
        else:
            images, labels = (x.at[batch["index"]].get(mode="promise_in_bounds") for x in constants.examples)
        targets = labels
        for stage in in_order.values():
            images = stage(constants, batch["position"], images)
        if smoothing or mixing:
            targets = augmentation.smoothed(targets, settings.num_classes, smoothing)
        if mixing:
            key = jax.random.fold_in(jax.random.fold_in(constants.key, _MIXING), batch["position"][0])
            images, targets = augmentation.mix(key, images, targets, mixing)
        return images, targets, labels

    return prepare


def normalization(batch: Any, constants: Constants) -> jax.Array:
    """Returns the images of an evaluation: normalised, without augmentation."""
    return augmentation.normalize(batch["image"], constants.mean, constants.std)


def constants_of(config: Config, dataset: data.Dataset) -> Constants:
    """Returns the constant inputs of every step of a run."""
    train, examples = dataset.train, None
    if isinstance(train, data.Split) and is_resident(config, dataset):
        examples = jnp.asarray(train.images), jnp.asarray(train.labels)
    return Constants(jax.random.key(config.seed), jnp.asarray(dataset.mean), jnp.asarray(dataset.std), examples)


def is_resident(config: Config, dataset: data.Dataset) -> bool:
    """Returns whether the training examples are stored on the device, so that a batch is sent as their indices.

    They are stored on the device if they are in memory, if their images have at most 2²⁸ bytes, and if AutoAugment is
    not used.
    """
    train = dataset.train
    return not config.recipe.auto_augment and isinstance(train, data.Split) and train.images.nbytes <= _RESIDENT_BYTES


def stream_of(
    config: Config, dataset: data.Dataset, start: int = 0, part: tuple[int, int] = (0, 1), plan: BatchPlan | None = None
) -> Iterator[Batch]:
    """Returns the batches of a run, as its compiled step reads them.

    Args:
      config: the config of the run.
      dataset: the data of the run.
      start: the number of batches that were read already.
      part: `(index, count)`: this process reads part `index` of the `count` equal parts of each batch.
      plan: the batch plan, if it is decided during training; None: that of the config.

    Returns:
      The iterator that `data.training_batches` returns.
    """
    plan, seed, passes = plan or config.plan, config.seed, config.recipe.passes
    transform, is_read = transform_of(config, dataset), not is_resident(config, dataset)
    return data.training_batches(
        dataset.train, plan, seed, start, passes=passes, transform=transform, part=part, is_read=is_read
    )
