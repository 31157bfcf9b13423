"""The loss of a batch, compiled once for each function and its shapes."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sam_optax import trees
from sam_optax.typing import Params, Updates


def check(name: str, function: Any) -> None:
    """Raise `ValueError` unless `function` is a hashable function; a compiled function is found by this hash."""
    check_function(name, function, "from parameters and a batch to a scalar")


def check_function(name: str, function: Any, meaning: str) -> None:
    """Raise `ValueError` unless `function` is a hashable function; `meaning` describes it in the message."""
    try:
        hash(function)
        is_function = callable(function)
    except TypeError:
        is_function = False
    if not is_function:
        raise ValueError(
            f"{name} is of type {type(function).__name__}: give a function {meaning}. (It must be hashable. An Equinox "
            "module, for instance, is not: pass its parameters through params.)"
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
