"""Label smoothing: a part of each label is spread over all classes (Szegedy et al. 2015, arXiv 1512.00567)."""

import jax
import jax.numpy as jnp


def smoothed(labels: jax.Array, num_classes: int, smoothing: float) -> jax.Array:
    """The distribution over classes that stands for each label: `(1 − smoothing)` of it, and `smoothing` of all alike.

    The cross-entropy with it is `(1 − smoothing) · CE(label) + smoothing · mean of −log p`, as in the study's code.

    Args:
      labels: integers from 0 to below `num_classes`, of any shape.
      num_classes: of the problem.
      smoothing: the part that is spread, at least 0 and below 1.

    Returns:
      float32, the labels' shape and then `(num_classes,)`.

    Raises:
      ValueError: If `labels` are no integers, or if `smoothing` is no such part.
    """
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"labels is of {labels.dtype}: give integers.")
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing is {smoothing}: give a number of at least 0 and below 1.")
    return (1 - smoothing) * jax.nn.one_hot(labels, num_classes) + smoothing / num_classes
