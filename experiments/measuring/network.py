"""A trained network as the loss of its parameters on batches of training examples."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from experiments import data
from experiments.config import Config
from experiments.measuring.settings import Sharpness
from experiments.runner.networks import Shape, evaluated, network, shape_of, stored_batches, with_own_statistics
from experiments.training.step import TrainState
from sam_optax import sharpness

Batch = dict[str, jax.Array]


class Network(NamedTuple):
    """A network in inference mode, and where its sharpness is measured.

    Attributes:
      variables: `params`, and the `model_state` that is no parameter: BatchNorm's statistics. They are an argument,
        too, so that networks of one architecture share what is compiled.
      loss_fn: `loss_fn(variables, batch)` → the mean cross-entropy.
      error_fn: `error_fn(variables, batch)` → the fraction that is classified wrongly.
      batches: of `image`, normalised, and `label`.
    """

    variables: dict[str, Any]
    loss_fn: Callable[..., jax.Array]
    error_fn: Callable[..., jax.Array]
    batches: tuple[Batch, ...]

    @property
    def mask(self) -> dict[str, Any]:
        """What is perturbed: the parameters, and not the model's state."""
        return {name: jax.tree.map(lambda x, is_in=name == "params": is_in, x) for name, x in self.variables.items()}

    @property
    def num_parameters(self) -> int:
        """How many parameters there are."""
        return sum(math.prod(x.shape) for x in jax.tree.leaves(self.variables["params"]))


def trained(config: Config, dataset: data.Dataset, state: TrainState, settings: Sharpness) -> Network:
    """The network of a run in the state that its training left."""
    # copies, since the next training step takes over the buffers of its state
    params, model_state = jax.tree.map(jnp.copy, evaluated(config, dataset, state))
    if settings.reestimate_batchnorm:
        model_state = with_own_statistics(config, dataset, params, model_state, settings.batch_size)
    batches = tuple(stored_batches(dataset, settings.examples, settings.batch_size))
    functions = _functions(_still(shape_of(config, dataset)), settings.normalize_logits)
    return Network({"params": params, "model_state": _statistics(model_state)}, *functions, batches)


def _still(shape: Shape) -> Shape:
    """The same architecture in float32, as a small radius needs it, and without stochastic depth, which needs keys."""
    *what, options = shape
    return *what, tuple((name, value) for name, value in options if name not in ("dtype", "drop_path"))


def _statistics(model_state: Any) -> Any:
    """What of a model's state is a floating number, and no key or count."""
    flat = nnx.to_flat_state(model_state)
    return nnx.from_flat_state([(path, x) for path, x in flat if jnp.issubdtype(x.dtype, jnp.floating)])


@functools.cache
def _functions(shape: Shape, normalize_logits: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Loss and error of a network of this shape in inference mode, the same functions for every run."""
    model = network(shape)
    model.eval()
    graphdef = nnx.graphdef(model)

    def logits_of(variables: dict[str, Any], batch: Batch) -> jax.Array:
        still = nnx.merge(graphdef, variables["params"], variables["model_state"], copy=True)
        logits = still(batch["image"])
        return sharpness.normalize_logits(logits) if normalize_logits else logits

    def loss_fn(variables: dict[str, Any], batch: Batch) -> jax.Array:
        losses = optax.softmax_cross_entropy_with_integer_labels(logits_of(variables, batch), batch["label"])
        return jnp.mean(losses)

    def error_fn(variables: dict[str, Any], batch: Batch) -> jax.Array:
        return jnp.mean(jnp.argmax(logits_of(variables, batch), -1) != batch["label"])

    return loss_fn, error_fn
