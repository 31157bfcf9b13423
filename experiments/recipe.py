"""What is done to images on their way to the network, stage by stage, in bits of the seed and their positions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments import augmentation, data
from experiments.config import Config

_ERASING, _MIXING = 2, 3  # which key of the run's; 0 and 1 are the crop's and the flip's


class Constants(NamedTuple):
    """What every step of a run reads: the augmentation's key, and the training images' moments a channel."""

    key: jax.Array
    mean: jax.Array
    std: jax.Array


class Recipe(NamedTuple):
    """The stages of a run.

    Attributes:
      num_classes: labels run from 0 to below it.
      crop_padding: pixels that an image may be shifted by.
      flip: whether images are mirrored.
      random_erasing: the probability that a rectangle is erased.
      mixing: the probability that images are mixed.
      label_smoothing: which part of a label is spread over all classes.
    """

    num_classes: int
    crop_padding: int
    flip: bool
    random_erasing: float
    mixing: float
    label_smoothing: float


Transform = Callable[[Any, Any], Any]
"""`transform(image, key)` → image, in the graph of a tf.data pipeline."""

Stage = Callable[[Constants, jax.Array, jax.Array], jax.Array]
"""`stage(constants, positions, images)` → images."""


def recipe_of(config: Config, dataset: data.Dataset) -> Recipe:
    """The recipe of a run."""
    moving = (0, False) if config.auto_augment else (dataset.crop_padding, dataset.flip)
    return Recipe(dataset.num_classes, *moving, config.random_erasing, config.mixing, config.label_smoothing)


def transform_of(config: Config, dataset: data.Dataset) -> Transform | None:
    """What is done to images before the compiled step: AutoAugment, and ahead of it what belongs there.

    Raises:
      ValueError: If the images are not in colour.
    """
    if not config.auto_augment:
        return None
    if dataset.image_shape[-1] != 3:
        raise ValueError(f"auto_augment is True, and {config.dataset} is not in colour: leave it out.")
    from experiments.data.auto_augment import auto_augment  # noqa: PLC0415 - it traces operations that few runs need

    def transform(image: Any, key: Any) -> Any:
        return auto_augment(data.moved(image, key, dataset.crop_padding, flip=dataset.flip), key)

    return transform


def stages(recipe: Recipe) -> dict[str, Stage]:
    """What is done to images one by one, in order, by name."""
    kept: dict[str, Stage] = {}
    if recipe.crop_padding:
        kept["crop"] = lambda constants, positions, images: augmentation.random_crop(
            augmentation.example_keys(jax.random.split(constants.key)[0], positions), images, recipe.crop_padding
        )
    if recipe.flip:
        kept["flip"] = lambda constants, positions, images: augmentation.random_flip(
            augmentation.example_keys(jax.random.split(constants.key)[1], positions), images
        )
    kept["normalize"] = lambda constants, positions, images: augmentation.normalize(
        images, constants.mean, constants.std
    )
    if recipe.random_erasing:
        kept["erasing"] = lambda constants, positions, images: augmentation.random_erasing(
            augmentation.example_keys(jax.random.fold_in(constants.key, _ERASING), positions),
            images,
            recipe.random_erasing,
            constants.mean / 255,  # not the mean colour of normalised images, which is 0, but what the study's code has
        )
    return kept


def preparation(recipe: Recipe) -> Callable[[Any, Constants], tuple[jax.Array, jax.Array]]:
    """`prepare(batch, constants)` → the images, and their targets: the labels where these are neither smooth nor mixed.

    The key of the mixing, which is one for the batch, is made of its first position.
    """
    in_order = stages(recipe)

    def prepare(batch: Any, constants: Constants) -> tuple[jax.Array, jax.Array]:
        images, targets = batch["image"], batch["label"]
        for stage in in_order.values():
            images = stage(constants, batch["position"], images)
        if recipe.label_smoothing or recipe.mixing:
            targets = augmentation.smoothed(targets, recipe.num_classes, recipe.label_smoothing)
        if recipe.mixing:
            key = jax.random.fold_in(jax.random.fold_in(constants.key, _MIXING), batch["position"][0])
            images, targets = augmentation.mix(key, images, targets, recipe.mixing)
        return images, targets

    return prepare


def normalization(batch: Any, constants: Constants) -> jax.Array:
    """The images of an evaluation: normalised, and nothing else."""
    return augmentation.normalize(batch["image"], constants.mean, constants.std)


def constants_of(config: Config, dataset: data.Dataset) -> Constants:
    """What every step of a run reads."""
    return Constants(jax.random.key(config.seed), jnp.asarray(dataset.mean), jnp.asarray(dataset.std))
