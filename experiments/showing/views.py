"""A batch after each step of the recipe, from the stored images to what the network sees."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import data
from experiments.config import Config
from experiments.runner import image_pipeline

_NORMALIZE = "normalize"  # it is undone for the eye


class View(NamedTuple):
    """A batch after one step.

    Attributes:
      step: its name.
      images: uint8 `(batch, height, width, channels)`.
      targets: labels, `(batch,)`, or distributions over the classes, `(batch, classes)`.
    """

    step: str
    images: np.ndarray
    targets: np.ndarray


def views(config: Config, dataset: data.Dataset, batch: int) -> list[View]:
    """What each step makes of one batch of a run, in order; normalisation is undone.

    Args:
      config: of the run.
      dataset: its data.
      batch: which one, counted from 0.

    Raises:
      ValueError: If the run has no such batch.
    """
    total = config.plan.total_steps(config.epoch_size(len(dataset.train)))
    if not 0 <= batch < total:
        raise ValueError(f"batch is {batch}: the run has {total}, give an integer from 0 to {total - 1}.")
    read = _batch(config, dataset, batch)
    shown = [View("as read", read["image"], read["label"])]
    if (transform := image_pipeline.transform_of(config, dataset)) is not None:
        read = _batch(config, dataset, batch, transform)
        shown += [View("crop, flip, auto_augment", read["image"], read["label"])]
    return shown + _in_the_step(config, dataset, read)


def _batch(
    config: Config, dataset: data.Dataset, batch: int, transform: image_pipeline.Transform | None = None
) -> dict[str, np.ndarray]:
    stream = data.training_batches(
        dataset.train, config.plan, config.seed, batch, passes=config.passes, transform=transform
    )
    return next(stream)


def _in_the_step(config: Config, dataset: data.Dataset, read: dict[str, np.ndarray]) -> list[View]:
    """What happens inside the compiled step."""
    ours, constants = image_pipeline.recipe_of(config, dataset), image_pipeline.constants_of(config, dataset)
    images, shown = jnp.asarray(read["image"]), []
    for name, stage in image_pipeline.stages(ours).items():
        images = stage(constants, read["position"], images)
        if name != _NORMALIZE:
            shown.append(View(name, _for_the_eye(images, dataset), read["label"]))
    images, targets, _ = image_pipeline.preparation(ours)(read, constants)
    last = "mixing" if ours.mixing else "to the network"
    return [*shown, View(last, _for_the_eye(images, dataset), np.asarray(targets))]


def _for_the_eye(images: jax.Array, dataset: data.Dataset) -> np.ndarray:
    if images.dtype == np.uint8:
        return np.asarray(images)
    return np.clip(np.round(np.asarray(images, np.float32) * dataset.std + dataset.mean), 0, 255).astype(np.uint8)
