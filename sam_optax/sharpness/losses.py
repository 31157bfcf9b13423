"""The loss of a batch, compiled once for each function and shape, and means over batches of different sizes.

The module also has the normalisation of logits, which makes a loss independent of their scale.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sam_optax import trees
from sam_optax.typing import Params, Updates

_SHORTEST_LOGITS = 1e-10


def check(name: str, function: Any) -> None:
    """Raises `ValueError` unless `function` is a hashable function; a compiled function is found by this hash."""
    check_function(name, function, "from parameters and a batch to a scalar")


def check_function(name: str, function: Any, meaning: str) -> None:
    """Raises `ValueError` unless `function` is a hashable function; `meaning` describes it in the message."""
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
      ValueError: If it is not a real scalar.
    """
    return scalar(loss_fn(params, batch))


@functools.partial(jax.jit, static_argnums=0)
def value_and_grad(loss_fn: Callable[..., Any], params: Params, batch: Any) -> tuple[jax.Array, Updates]:
    """The loss, in the accumulator's dtype, and its gradient.

    Raises:
      ValueError: If the loss is not a real scalar.
    """
    return jax.value_and_grad(lambda w: scalar(loss_fn(w, batch)))(params)


def scalar(loss: Any) -> jax.Array:
    """The loss in the accumulator's dtype; raises `ValueError` if it is not a real scalar."""
    is_number = isinstance(loss, jax.Array | np.ndarray | np.generic | float)
    if not is_number or jnp.shape(loss) != ():
        what = f"of shape {jnp.shape(loss)}" if is_number else f"a {type(loss).__name__}"
        raise ValueError(f"The loss of a batch is {what}: give a function that returns its scalar mean, and no more.")
    if jnp.iscomplexobj(loss):
        raise ValueError(f"The loss of a batch has the dtype {jnp.result_type(loss)}: give a function to real numbers.")
    return jnp.asarray(loss, trees.accumulator_dtype(loss))


def collect_batches(batches: Iterable[Any]) -> tuple[Any, ...]:
    """All batches in a tuple, so that a measure may go through them several times.

    Args:
      batches: pytrees of arrays, whose leading axis counts the examples.

    Raises:
      ValueError: If there is no batch, if the leaves of one do not share a leading axis, or if the examples of two
        batches differ in structure or shapes.
    """
    if isinstance(batches, Mapping) or hasattr(batches, "shape") or not isinstance(batches, Iterable):
        raise ValueError(f"batches is one batch, of type {type(batches).__name__}: give a list of batches, [batch].")
    collected = tuple(jax.device_put(batch) for batch in batches)  # once, not at every evaluation
    if not collected:
        raise ValueError("batches is empty: give at least one batch. (An iterator can be gone through once only.)")
    for batch in collected:
        batch_size(batch)
    kinds = [(jax.tree.structure(batch), [jnp.shape(x)[1:] for x in jax.tree.leaves(batch)]) for batch in collected]
    different = [batch for batch, kind in zip(collected, kinds, strict=True) if kind != kinds[0]]
    if different:
        first, second = (jax.tree.map(lambda x: jnp.shape(x)[1:], batch) for batch in (collected[0], different[0]))
        raise ValueError(
            f"batches has examples of shapes {first} and {second}: give batches of one kind. (A single batch "
            "of images and labels goes into a list, [(images, labels)].)"
        )
    return collected


def batch_size(batch: Any) -> int:
    """The number of examples in a batch: the length of the leading axis that all its leaves share.

    Raises:
      ValueError: If there is no such axis.
    """
    lengths = [jnp.shape(x)[0] if jnp.ndim(x) else 0 for x in jax.tree.leaves(batch)]
    if len(set(lengths)) != 1 or lengths[0] == 0:
        named = dict(zip(trees.leaf_paths(batch), lengths, strict=True))
        raise ValueError(
            f"batches has a batch whose leaves have leading axes {named}, 0 for none: give batches that are pytrees "
            "of arrays, with the examples along one leading axis. (A single batch goes into a list, [batch].)"
        )
    return lengths[0]


def weighted_mean(values: Sequence[jax.Array], collected: Sequence[Any]) -> jax.Array:
    """The mean over all examples of one value for each batch, weighted by the number of its examples."""
    stacked = jnp.stack([jnp.asarray(value) for value in values])
    weights = jnp.asarray([batch_size(batch) for batch in collected], trees.accumulator_dtype(stacked))
    return jnp.sum(stacked * weights.reshape(-1, *[1] * (stacked.ndim - 1)), axis=0) / jnp.sum(weights)


def normalize_logits(logits: jax.Array) -> jax.Array:
    """Centred logits of length 1, `(z − mean z) / max(‖z − mean z‖, 1e-10)`, example by example.

    Sharpness depends on the scale of the logits, which grows during training without changing any prediction. A loss of
    normalised logits does not depend on that scale: call this function in `loss_fn`. From "A modern look at the
    relationship between sharpness and generalization" (Andriushchenko et al., 2023, https://arxiv.org/abs/2302.07011).

    Args:
      logits: `(batch, classes)`.

    Returns:
      Logits of the same shape and dtype.

    Example:
      >>> import jax.numpy as jnp
      >>> from sam_optax import sharpness
      >>> print(sharpness.normalize_logits(jnp.array([[3.0, 9.0, 6.0]])).round(2))
      [[-0.71  0.71  0.  ]]
    """
    wide = jnp.asarray(logits, jnp.promote_types(jnp.result_type(logits), jnp.float32))
    centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
    squares = jnp.sum(jnp.square(centred), axis=-1, keepdims=True)
    # The maximum is taken of the square, since the root has no gradient at zero.
    length = jnp.sqrt(jnp.maximum(squares, _SHORTEST_LOGITS**2))
    return (centred / length).astype(jnp.result_type(logits))
