"""What is read where a step measured nothing: states hold zeros and a flag, readers get a number of their choice."""

from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def fill(values: Any, measured: Any, unmeasured: Any) -> Any:
    """`values` where `measured`, else `unmeasured`.

    Concrete values are filled in on the host: a compiled function that returned NaN would raise an error under
    `jax.debug_nans(True)`.

    Args:
      values: a pytree of floating scalars or arrays.
      measured: whether they were measured, a bool or an array of bools of their shape.
      unmeasured: a real number.

    Returns:
      A tree like `values`.

    Raises:
      ValueError: If `unmeasured` is not a real number.
    """
    if not isinstance(unmeasured, Real | Tracer) and not (hasattr(unmeasured, "dtype") and np.shape(unmeasured) == ()):
        raise ValueError(f"unmeasured is {unmeasured!r}: give a number, NaN for instance.")

    def other(x: Any) -> Any:
        return unmeasured if isinstance(unmeasured, Tracer) else np.asarray(unmeasured, jnp.result_type(x))

    if is_traced((values, measured, unmeasured)):
        return jax.tree.map(lambda x: jnp.where(measured, x, other(x)), values)
    if np.all(measured):
        return values
    return jax.tree.map(lambda x: jax.device_put(np.where(measured, x, other(x))), values)


def is_traced(tree: Any) -> bool:
    """Whether a leaf of `tree` is a value inside a transformed function, which has no number yet."""
    return any(isinstance(x, Tracer) for x in jax.tree.leaves(tree))
