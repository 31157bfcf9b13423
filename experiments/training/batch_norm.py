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
        states, sizes = zip(*((state_after(params, model_state, x), len(x)) for x in batches), strict=True)
        return jax.tree.map(functools.partial(_mean, sizes), model_state, *states)

    return reestimate


def _mean(sizes: tuple[int, ...], before: jax.Array, *values: jax.Array) -> jax.Array:
    if not jnp.issubdtype(before.dtype, jnp.floating):
        return before
    return sum((size * value for size, value in zip(sizes, values, strict=True)), jnp.zeros_like(before)) / sum(sizes)
