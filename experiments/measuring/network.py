"""A trained network as the loss of its parameters on batches of training examples."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from experiments import augmentation, data, models
from experiments.config import Config
from experiments.measuring.settings import Sharpness
from experiments.training.methods import METHODS
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
    shape = (config.model, dataset.num_classes, dataset.image_shape)
    params = METHODS[config.method].evaluated(state.opt_state, state.params)
    # copies, since the next training step takes over the buffers of its state
    variables = jax.tree.map(jnp.copy, {"params": params, "model_state": state.model_state})
    if settings.reestimate_batchnorm:
        everything = _batches(dataset, len(dataset.train), settings.batch_size)
        variables["model_state"] = _reestimated(shape, variables, everything)
    batches = tuple(_batches(dataset, settings.examples, settings.batch_size))
    return Network(variables, *_functions(shape, settings.normalize_logits), batches)


def hessian_of_params(loss_fn: Callable[..., Any], variables: Any, batch: Batch, vector: Any) -> Any:
    """The product with the Hessian by the parameters alone; rows and columns of the model's state are zero."""

    def of_params(params: Any, batch: Batch) -> jax.Array:
        return loss_fn(variables | {"params": params}, batch)

    product = sharpness.hessian(of_params, variables["params"], batch, vector["params"])
    return jax.tree.map(jnp.zeros_like, variables) | {"params": product}


def _batches(dataset: data.Dataset, examples: int, batch_size: int) -> Iterator[Batch]:
    """The first training examples without augmentation, in the order in which they are stored."""
    examples = min(examples, len(dataset.train))
    mean, std = jnp.asarray(dataset.mean), jnp.asarray(dataset.std)
    for start in range(0, examples, batch_size):
        part = slice(start, min(start + batch_size, examples))
        images = augmentation.normalize(jnp.asarray(dataset.train.images[part]), mean, std)
        yield {"image": images, "label": jnp.asarray(dataset.train.labels[part])}


@functools.cache
def _functions(shape: tuple[Any, ...], normalize_logits: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Loss and error of a network of this shape in inference mode, the same functions for every run."""
    model = models.create(*shape, nnx.Rngs(0))
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


def _reestimated(shape: tuple[Any, ...], variables: dict[str, Any], batches: Iterator[Batch]) -> Any:
    """BatchNorm's statistics as means over all batches, weighted by size, at the parameters as they are."""
    forget = _forgetful(shape)
    total, examples = jax.tree.map(jnp.zeros_like, variables["model_state"]), 0
    for batch in batches:
        size = len(batch["label"])
        state = forget(variables, batch["image"])
        total, examples = jax.tree.map(lambda x, y, n=size: x + n * y, total, state), examples + size
    return jax.tree.map(lambda x: x / examples, total)


@functools.cache
def _forgetful(shape: tuple[Any, ...]) -> Callable[..., Any]:
    """The model's state after a batch in training mode, of which BatchNorm keeps the batch's own statistics alone."""
    model = models.create(*shape, nnx.Rngs(0))
    model.train()
    for _, module in nnx.iter_modules(model):
        if isinstance(module, nnx.BatchNorm):
            module.momentum = 0.0
    graphdef = nnx.graphdef(model)

    def state_after(variables: dict[str, Any], images: jax.Array) -> Any:
        moving = nnx.merge(graphdef, variables["params"], variables["model_state"], copy=True)
        moving(images)
        return nnx.as_pure(nnx.state(moving, nnx.Not(nnx.Param)))

    return jax.jit(state_after)
