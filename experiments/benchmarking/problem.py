"""What the steps are compared on: a network with BatchNorm, its loss, and one batch on the device."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from experiments import models


class Problem(NamedTuple):
    """A loss, where its minimisation starts, and a batch.

    Attributes:
      loss_fn: `loss_fn(params, model_state, images, labels)` → `(loss, model_state)`, in training or inference mode.
      params: the parameters at the start.
      model_state: BatchNorm's statistics at the start.
      batch: `(images, labels)`, float32 `(batch, height, width, channels)` and int32 `(batch,)`.
    """

    loss_fn: Callable[..., Any]
    params: nnx.State
    model_state: nnx.State
    batch: tuple[jax.Array, jax.Array]


def create(
    model: str, num_classes: int, image_shape: tuple[int, int, int], batch_size: int, *, is_training: bool = True
) -> Problem:
    """The cross-entropy of the network `model` on normally distributed images with arbitrary labels."""
    network = models.create(model, num_classes, image_shape, nnx.Rngs(0))
    return of(network, num_classes, image_shape, batch_size, is_training=is_training)


def of(
    network: nnx.Module,
    num_classes: int,
    image_shape: tuple[int, int, int],
    batch_size: int,
    *,
    is_training: bool = True,
) -> Problem:
    """The same of a network that is there."""
    network.train() if is_training else network.eval()
    graphdef, params, model_state = nnx.split(network, nnx.Param, ...)

    def loss_fn(params: nnx.State, model_state: nnx.State, images: jax.Array, labels: jax.Array) -> Any:
        moving = nnx.merge(graphdef, params, model_state, copy=True)
        losses = optax.softmax_cross_entropy_with_integer_labels(moving(images), labels)
        return jnp.mean(losses), nnx.as_pure(nnx.state(moving, nnx.Not(nnx.Param)))

    images = jax.random.normal(jax.random.key(0), (batch_size, *image_shape))
    labels = jax.random.randint(jax.random.key(1), (batch_size,), 0, num_classes)
    return Problem(loss_fn, nnx.as_pure(params), nnx.as_pure(model_state), (images, labels))
