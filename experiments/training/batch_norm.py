"""BatchNorm's statistics, taken anew: those of a run belong to the parameters that it went through."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


def reestimation(model: nnx.Module) -> Callable[[Any, Any, Iterable[jax.Array]], Any]:
    """The function that takes the statistics of a network anew.

    Args:
      model: gives the architecture; its variables are not read.

    Returns:
      `reestimate(params, model_state, batches)` → the model's state with BatchNorm's statistics as means over all
      batches of images, weighted by size; what is no floating number stays as it is.
    """
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
            total = jax.tree.map(functools.partial(_added, len(images)), total, state)
            examples += len(images)
        return jax.tree.map(lambda x, before: x / examples if _is_statistic(x) else before, total, model_state)

    return reestimate


def _added(size: int, total: jax.Array, value: jax.Array) -> jax.Array:
    return total + size * value if _is_statistic(value) else total


def _is_statistic(x: jax.Array) -> bool:
    """And no key or count of a network that draws lots."""
    return jnp.issubdtype(x.dtype, jnp.floating)
