"""The network of a run, and the parameters and statistics that it is evaluated with.

Networks of one architecture share their compiled functions.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments import augmentation, data, models
from experiments.config import Config
from experiments.training.batch_norm import reestimation
from experiments.training.methods import METHODS
from experiments.training.optimizer import weight_average
from experiments.training.step import TrainState

Shape = tuple[str, int, tuple[int, int, int], tuple[tuple[str, Any], ...]]
"""Model, number of classes, image shape, and the model's options."""


def shape_of(config: Config, dataset: data.Dataset) -> Shape:
    """The architecture of a run."""
    return config.model, dataset.num_classes, dataset.image_shape, config.model_options


def network(shape: Shape, seed: int = 0) -> nnx.Module:
    """A network of this architecture, initialised by the seed."""
    *what, options = shape
    return models.create(*what, nnx.Rngs(seed), **dict(options))


_BATCH = 500


def evaluated(config: Config, dataset: data.Dataset, state: TrainState) -> tuple[Any, Any]:
    """The parameters and the model's state that a run is judged by.

    BatchNorm's running statistics belong to the last parameters: those of an average are taken anew, over the training
    images as they are stored.

    Args:
      config: of the run.
      dataset: its data.
      state: of its training.

    Returns:
      `(params, model_state)`.
    """
    if not config.ema:
        return METHODS[config.method].evaluated(state.opt_state, state.params), state.model_state
    params = weight_average(state.opt_state)
    return params, with_own_statistics(config, dataset, params, state.model_state)


def with_own_statistics(
    config: Config, dataset: data.Dataset, params: Any, model_state: Any, batch_size: int = _BATCH
) -> Any:
    """The model's state with BatchNorm's statistics at these parameters, of the training images as they are stored."""
    images = (batch["image"] for batch in stored_batches(dataset, len(dataset.train), batch_size))
    return _reestimation(shape_of(config, dataset))(params, model_state, images)


def stored_batches(dataset: data.Dataset, examples: int, batch_size: int) -> Iterator[dict[str, jax.Array]]:
    """The first training examples as they are stored, normalised: `image` and `label`; the last batch may be short."""
    examples = min(examples, len(dataset.train))
    mean, std = jnp.asarray(dataset.mean), jnp.asarray(dataset.std)
    for start in range(0, examples, batch_size):
        images, labels = dataset.train.rows(np.arange(start, min(start + batch_size, examples)))
        yield {"image": augmentation.normalize(jnp.asarray(images), mean, std), "label": jnp.asarray(labels)}


@functools.cache
def _reestimation(shape: Shape) -> Callable[..., Any]:
    return reestimation(network(shape))
