"""Random flip: each image is mirrored with probability one half."""

import jax
import jax.numpy as jnp


def random_flip(keys: jax.Array, images: jax.Array) -> jax.Array:
    """Each image or its mirror image, left and right exchanged.

    Args:
      keys: a random key an image, `(batch,)`.
      images: `(batch, height, width, channels)`.

    Returns:
      Images of the same shape and dtype.
    """
    mirrored = jax.vmap(jax.random.bernoulli)(keys)
    return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
