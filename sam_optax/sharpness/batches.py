"""The batches that a measure goes through, and means over them that weigh each by its size."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from sam_optax import trees


def collect(batches: Iterable[Any]) -> tuple[Any, ...]:
    """All batches, which a measure may go through several times.

    Args:
      batches: pytrees of arrays, whose leading axis counts the examples.

    Raises:
      ValueError: If there is none, or one whose leaves do not share a leading axis, or if they are not alike otherwise.
    """
    if isinstance(batches, Mapping) or hasattr(batches, "shape"):
        raise ValueError(f"batches is one batch, of type {type(batches).__name__}: give a list of batches, [batch].")
    collected = tuple(jax.device_put(batch) for batch in batches)  # once, and not at every evaluation
    if not collected:
        raise ValueError("batches is empty: give at least one batch. (An iterator can be gone through once only.)")
    for batch in collected:
        size(batch)
    kinds = [jax.tree.map(lambda x: jnp.shape(x)[1:], batch) for batch in collected]
    if any(kind != kinds[0] for kind in kinds):
        different = next(kind for kind in kinds if kind != kinds[0])
        raise ValueError(
            f"batches has examples of shapes {kinds[0]} and {different}: give batches of one kind. (A single batch "
            "of images and labels goes into a list, [(images, labels)].)"
        )
    return collected


def size(batch: Any) -> int:
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


def mean(values: Sequence[jax.Array], collected: Sequence[Any]) -> jax.Array:
    """The mean of one value a batch over all examples: each batch weighs as many as it has."""
    stacked = jnp.stack([jnp.asarray(value) for value in values])
    weights = jnp.asarray([size(batch) for batch in collected], trees.accumulator_dtype(stacked))
    return jnp.sum(stacked * weights.reshape(-1, *[1] * (stacked.ndim - 1)), axis=0) / jnp.sum(weights)
