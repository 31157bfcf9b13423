"""Augmentation of images inside the compiled step: crop, flip, random erasing and normalisation.

Each example has a random key of its own, whatever its batch. A crop shifts an image by up to `padding` pixels, with
zeros at its edge. Random erasing replaces a rectangle by one colour (Zhong et al. 2017, arXiv 1708.04896).
"""

import jax
import jax.numpy as jnp


def example_keys(key: jax.Array, positions: jax.Array) -> jax.Array:
    """The keys of the examples at `positions`, `(batch,)`, of a run with `key`."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)


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


_LEAST_AREA, _LARGEST_AREA = 0.02, 0.4  # of the image's
_FLATTEST = 0.3  # height by width; the steepest is its inverse
_ATTEMPTS = 10  # about one rectangle of 20 does not fit into the image, and the next one is taken


def random_erasing(
    keys: jax.Array, images: jax.Array, probability: float, fill: jax.typing.ArrayLike = 0.0
) -> jax.Array:
    """Each image, with a rectangle erased with `probability`.

    The rectangle has 2% to 40% of the image's area, and a ratio of height to width between 0.3 and 1/0.3, both uniform;
    one that is not smaller than the image in both directions is drawn anew.

    Args:
      keys: a random key an image, `(batch,)`.
      images: `(batch, height, width, channels)`, floating, normalised.
      probability: that a rectangle is erased.
      fill: a value for each channel, `(channels,)`, or one for all; 0 is the mean colour of normalised images. The
        study's code puts the mean of colours between 0 and 1, as it is, into images that are normalised already.

    Returns:
      Images of the same shape and dtype.

    Raises:
      ValueError: If the images are not floating, so not normalised, or if `probability` is none.
    """
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images is of {images.dtype}: give normalised images, floating.")
    if not 0 <= probability <= 1:
        raise ValueError(f"probability is {probability}: give a number from 0 to 1.")

    def erased(key: jax.Array, image: jax.Array) -> jax.Array:
        inside = _rectangle(key, image.shape[0], image.shape[1], probability)
        return jnp.where(inside[..., None], jnp.asarray(fill, image.dtype), image)

    return jax.vmap(erased)(keys, images)


def _rectangle(key: jax.Array, height: int, width: int, probability: float) -> jax.Array:
    """Where it is, bool `(height, width)`; nowhere, where it is not drawn or none fits."""
    lots = jax.random.uniform(key, (2 * _ATTEMPTS + 3,))  # one draw of bits: it is compiled for every batch size
    drawn, down, right = lots[:3]
    areas = height * width * _between(lots[3::2], _LEAST_AREA, _LARGEST_AREA)
    ratios = _between(lots[4::2], _FLATTEST, 1 / _FLATTEST)
    heights, widths = jnp.round(jnp.sqrt(areas * ratios)), jnp.round(jnp.sqrt(areas / ratios))
    fits = (heights < height) & (widths < width)
    first = jnp.argmax(fits)
    exists = fits[first] & (drawn < probability)
    rows = _interval(down, heights[first], height)
    columns = _interval(right, widths[first], width)
    return exists & rows[:, None] & columns[None]


def _between(lots: jax.Array, low: float, high: float) -> jax.Array:
    return low + (high - low) * lots


def _interval(lot: jax.Array, length: jax.Array, side: int) -> jax.Array:
    """Where an interval of `length` pixels is on a side, every place being as likely, bool `(side,)`."""
    start = jnp.floor(lot * (side - length + 1))
    places = jnp.arange(side)
    return (places >= start) & (places < start + length)


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
