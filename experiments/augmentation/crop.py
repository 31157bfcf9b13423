"""Random crop: each image is shifted by up to `padding` pixels, zeros coming in at its edge."""

import jax
import jax.numpy as jnp


def random_crop(keys: jax.Array, images: jax.Array, padding: int) -> jax.Array:
    """A crop of the original size out of each image with a border of `padding` zeros.

    Args:
      keys: a random key an image, `(batch,)`.
      images: `(batch, height, width, channels)`.
      padding: the border's width, in pixels.

    Returns:
      Images of the same shape and dtype.
    """
    border = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = jnp.pad(images, border)

    def crop(key: jax.Array, image: jax.Array) -> jax.Array:
        # one draw of bits, where randint makes several: it is compiled for every batch size
        row, column = (jax.random.uniform(key, (2,)) * (2 * padding + 1)).astype(jnp.int32)
        return jax.lax.dynamic_slice(image, (row, column, jnp.int32(0)), images.shape[1:])

    return jax.vmap(crop)(keys, padded)
