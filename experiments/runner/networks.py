"""The network of a run, and the parameters and statistics that it is evaluated with.

Networks of one architecture share their compiled functions.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments import augmentation, data, models
from experiments.config import Config
from experiments.training.methods import METHODS
from experiments.training.optimizer import weight_average
from experiments.training.step import TrainState

Shape = tuple[str, int, tuple[int, int, int], tuple[tuple[str, Any], ...]]
"""Model, number of classes, image shape, and the model's options."""


def shape_of(config: Config, dataset: data.Dataset) -> Shape:
    """The architecture of a run."""
    return config.network.model, dataset.num_classes, dataset.image_shape, config.network.options


def network(shape: Shape, seed: int = 0) -> nnx.Module:
    """A network of this architecture, initialised by the seed."""
    name, num_classes, image_shape, options = shape
    return models.create(name, num_classes, image_shape, nnx.Rngs(seed), **dict(options))


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
    if not config.descent.ema:
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
def _reestimation(shape: Shape) -> Callable[[Any, Any, Iterable[jax.Array]], Any]:
    """The function that takes the statistics of a network anew.

    Args:
      shape: the architecture.

    Returns:
      `reestimate(params, model_state, batches)` → the model's state with BatchNorm's statistics as means over all
      batches of images, weighted by size; leaves that are not floating stay as they are.
    """
    model = network(shape)
    model.train()
    for _, module in nnx.iter_modules(model):
        if isinstance(module, nnx.BatchNorm):
            module.momentum = 0.0  # of the past, so that the statistics are the batch's own
    graphdef = nnx.graphdef(model)

    @jax.jit
    def state_after(params: Any, model_state: Any, images: jax.Array) -> Any:
        moving = nnx.merge(graphdef, params, model_state, copy=True)
        moving(images)
        return nnx.as_pure(nnx.state(moving, nnx.Not(nnx.Param)))

    def reestimate(params: Any, model_state: Any, batches: Iterable[jax.Array]) -> Any:
        if not any(map(_is_statistic, jax.tree.leaves(model_state))):
            return model_state
        total, examples = jax.tree.map(jnp.zeros_like, model_state), 0
        for images in batches:
            state = state_after(params, model_state, images)
            added = functools.partial(_added, len(images))
            total, examples = jax.tree.map(added, total, state), examples + len(images)
        return jax.tree.map(lambda x, before: x / examples if _is_statistic(x) else before, total, model_state)

    return reestimate


def _added(size: int, total: jax.Array, value: jax.Array) -> jax.Array:
    return total + size * value if _is_statistic(value) else total


def _is_statistic(x: jax.Array) -> bool:
    """Whether a leaf is none of the keys and counts of a network with random draws."""
    return jnp.issubdtype(x.dtype, jnp.floating)
