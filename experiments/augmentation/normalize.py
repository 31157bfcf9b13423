"""Normalisation: each channel with mean 0 and standard deviation 1 over the training set."""

import jax
import jax.numpy as jnp


def normalize(images: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    """`(images − mean) / std` in float32.

    Args:
      images: `(batch, height, width, channels)`, of stored integers.
      mean: a channel's mean in the same units, `(channels,)`.
      std: its standard deviation, likewise.

    Returns:
      float32 images of the same shape.
    """
    return (images.astype(jnp.float32) - mean) / std
