"""The loss of a batch, compiled once for a function and its shapes, whoever calls."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sam_optax import trees
from sam_optax.typing import Params, Updates


def check(name: str, function: Any) -> None:
    """Raise `ValueError` unless `function` can be called, and compiled once: it is told apart by its hash."""
    try:
        hash(function)
        is_function = callable(function)
    except TypeError:
        is_function = False
    if not is_function:
        raise ValueError(
            f"{name} is of type {type(function).__name__}: give a function from parameters and a batch to a scalar. (A "
            "module that can be called is none: its parameters go through params.)"
        )


@functools.partial(jax.jit, static_argnums=0)
def value(loss_fn: Callable[..., Any], params: Params, batch: Any) -> jax.Array:
    """The loss, in the accumulator's dtype.

    Raises:
      ValueError: If it is no scalar.
    """
    return _scalar(loss_fn(params, batch))


@functools.partial(jax.jit, static_argnums=0)
def value_and_grad(loss_fn: Callable[..., Any], params: Params, batch: Any) -> tuple[jax.Array, Updates]:
    """The loss, in the accumulator's dtype, and its gradient.

    Raises:
      ValueError: If the loss is no scalar.
    """
    return jax.value_and_grad(lambda w: _scalar(loss_fn(w, batch)))(params)


def _scalar(loss: Any) -> jax.Array:
    is_number = isinstance(loss, jax.Array | np.ndarray | np.generic | float)
    if not is_number or jnp.shape(loss) != ():
        what = f"of shape {jnp.shape(loss)}" if is_number else f"a {type(loss).__name__}"
        raise ValueError(f"The loss of a batch is {what}: give a function that returns its scalar mean, and no more.")
    return jnp.asarray(loss, trees.accumulator_dtype(loss))
