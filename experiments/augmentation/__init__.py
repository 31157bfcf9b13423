"""Augmentation inside the compiled step, in JAX; its random bits depend only on the seed and the position.

Images: crop, flip, random erasing and normalisation. Each example has its own random key, which does not depend on its
batch. A crop shifts an image by up to `padding` pixels and fills with zeros. Random erasing replaces a rectangle by one
colour (Zhong et al. 2017, arXiv 1708.04896).

Targets: label smoothing, and Mixup and CutMix, which mix images and their targets. Label smoothing distributes a part
of each label over all classes (Szegedy et al. 2015, arXiv 1512.00567). Mixup (Zhang et al. 2017, arXiv 1710.09412)
averages two images with a weight λ that is uniform between 0 and 1, which is Beta(1, 1). CutMix (Yun et al. 2019, arXiv
1905.04899) replaces a rectangle of 1 − λ of an image's area by the same rectangle of the other image. Both are
implemented as a weight for each pixel.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def example_keys(key: jax.Array, positions: jax.Array) -> jax.Array:
    """Returns the keys of the examples at `positions`, `(batch,)`, in a run with `key`."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)


def random_crop(keys: jax.Array, images: jax.Array, padding: int) -> jax.Array:
    """Pads each image with a border of `padding` zeros, and crops it to the original size at random.

    Args:
      keys: a random key per image, `(batch,)`.
      images: `(batch, height, width, channels)`.
      padding: the width of the border in pixels.

    Returns:
      Images of the same shape and dtype.
    """
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))

    def crop(key: jax.Array, image: jax.Array) -> jax.Array:
        # one draw of random bits instead of the several of randint: this is compiled for every batch size
        row, column = (jax.random.uniform(key, (2,)) * (2 * padding + 1)).astype(jnp.int32)
        return jax.lax.dynamic_slice(image, (row, column, jnp.int32(0)), images.shape[1:])

    return jax.vmap(crop)(keys, padded)


def random_flip(keys: jax.Array, images: jax.Array) -> jax.Array:
    """Flips each image horizontally with probability 1/2.

    Args:
      keys: a random key per image, `(batch,)`.
      images: `(batch, height, width, channels)`.

    Returns:
      Images of the same shape and dtype.
    """
    mirrored = jax.vmap(jax.random.bernoulli)(keys)
    return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


_LEAST_AREA, _LARGEST_AREA = 0.02, 0.4  # fractions of the image's area
_FLATTEST = 0.3  # the smallest ratio of height to width; the largest ratio is its inverse
_ATTEMPTS = 10  # about one rectangle in 20 does not fit into the image; the first one that fits is used


def random_erasing(keys: jax.Array, images: jax.Array, probability: float, fill: ArrayLike = 0.0) -> jax.Array:
    """Erases a rectangle of each image with probability `probability`.

    The area of the rectangle is 2% to 40% of the image's area, and its ratio of height to width is 0.3 to 1/0.3; both
    are uniform. A rectangle that is not smaller than the image in both directions is drawn again, up to ten times.

    Args:
      keys: a random key per image, `(batch,)`.
      images: `(batch, height, width, channels)`, floating-point, normalised.
      probability: the probability that a rectangle is erased.
      fill: one value per channel, `(channels,)`, or one value for all; 0 is the mean colour of normalised images. The
        study's code fills images that are already normalised with the mean of colours in [0, 1], without normalising
        it.

    Returns:
      Images of the same shape and dtype.

    Raises:
      ValueError: If the images are not floating-point, and so not normalised, or if `probability` is not in [0, 1].
    """
    _check(images, probability)
    inside = jax.vmap(lambda key: _rectangle(key, images.shape[1], images.shape[2], probability))(keys)
    return jnp.where(inside[..., None], jnp.asarray(fill, images.dtype), images)


def _check(images: jax.Array, probability: float) -> None:
    """Raises an error if the images are not floating-point, or if the probability is not in [0, 1]."""
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images is of {images.dtype}: give normalised images, floating.")
    if not 0 <= probability <= 1:
        raise ValueError(f"probability is {probability}: give a number from 0 to 1.")


def _rectangle(key: jax.Array, height: int, width: int, probability: float) -> jax.Array:
    """Returns the mask of the rectangle, bool `(height, width)`; all False if none is drawn or none fits."""
    draws = jax.random.uniform(key, (2 * _ATTEMPTS + 3,))  # one draw of bits: this is compiled for every batch size
    drawn, down, right = draws[:3]
    areas = height * width * (_LEAST_AREA + (_LARGEST_AREA - _LEAST_AREA) * draws[3::2])
    ratios = _FLATTEST + (1 / _FLATTEST - _FLATTEST) * draws[4::2]
    heights, widths = jnp.round(jnp.sqrt(areas * ratios)), jnp.round(jnp.sqrt(areas / ratios))
    fits = (heights < height) & (widths < width)
    first = jnp.argmax(fits)
    exists = fits[first] & (drawn < probability)
    rows = _interval(down, heights[first], height)
    columns = _interval(right, widths[first], width)
    return exists & rows[:, None] & columns[None]


def _interval(draw: jax.Array, length: jax.Array, side: int) -> jax.Array:
    """Returns the mask of an interval of `length` pixels at a uniformly random place on a side, bool `(side,)`."""
    start = jnp.floor(draw * (side - length + 1))
    places = jnp.arange(side)
    return (places >= start) & (places < start + length)


def normalize(images: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    """Computes `(images − mean) / std` in float32.

    Args:
      images: the stored integers, `(batch, height, width, channels)`.
      mean: the mean of each channel in the same units, `(channels,)`.
      std: the standard deviation of each channel in the same units, `(channels,)`.

    Returns:
      float32 images of the same shape.
    """
    return (images.astype(jnp.float32) - mean) / std


def smoothed(labels: jax.Array, num_classes: int, smoothing: float) -> jax.Array:
    """Returns smoothed targets: `(1 − smoothing)` of the one-hot label plus `smoothing` of the uniform distribution.

    The cross-entropy with it is `(1 − smoothing) · CE(label) + smoothing · mean of −log p`, as in the study's code.

    Args:
      labels: integers in `[0, num_classes)`, of any shape.
      num_classes: the number of classes.
      smoothing: the part that is distributed over all classes, at least 0 and below 1.

    Returns:
      Distributions over the classes, float32, of shape `(*labels.shape, num_classes)`.

    Raises:
      ValueError: If `labels` are not integers, or if `smoothing` is not in [0, 1).
    """
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"labels is of {labels.dtype}: give integers.")
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing is {smoothing}: give a number of at least 0 and below 1.")
    return (1 - smoothing) * jax.nn.one_hot(labels, num_classes) + smoothing / num_classes


def mix(key: jax.Array, images: jax.Array, targets: jax.Array, probability: float) -> tuple[jax.Array, jax.Array]:
    """Applies Mixup or CutMix to the batch, each with half of `probability`; otherwise returns it unchanged.

    As in the study's code, there is one random draw per batch: whether it is mixed, by which of the two methods, λ, and
    the place of the rectangle are the same for all of its images. The partners are a permutation of the batch, in which
    an image may be its own partner. So the result depends on the key and on the examples of the batch, and it changes
    with the batch size. This is unavoidable, because the partners come from the same batch.

    The cross-entropy is linear in the target, so the loss is the sum of the losses of the two labels, weighted by λ and
    1 − λ, as in the study's code, also for smoothed labels. For CutMix, λ is the part of the area that is kept.

    Args:
      key: a random key for the batch.
      images: `(batch, height, width, channels)`, floating-point, normalised.
      targets: a distribution over the classes per image, `(batch, classes)`, floating-point; see `smoothed`.
      probability: the probability that the batch is mixed.

    Returns:
      Images and targets of the same shapes and dtypes.

    Raises:
      ValueError: If the images or the targets are not floating-point, or if `probability` is not in [0, 1].
    """
    _check(images, probability)
    if targets.ndim != 2 or not jnp.issubdtype(targets.dtype, jnp.floating):
        raise ValueError(f"targets is of {targets.dtype}, shape {targets.shape}: give the output of `smoothed`.")
    for_weights, for_partners = jax.random.split(key)
    weights = _weights(for_weights, images.shape[1], images.shape[2], probability)
    partner = jax.random.permutation(for_partners, len(images))

    def mixed(weight: jax.Array, values: jax.Array) -> jax.Array:
        return (weight * values + (1 - weight) * values[partner]).astype(values.dtype)

    return mixed(weights[..., None], images), mixed(weights.mean(), targets)


def _weights(key: jax.Array, height: int, width: int, probability: float) -> jax.Array:
    """Returns the weight of each pixel in the mixture with the partner image, float32 `(height, width)`."""
    draw, own, down, right = jax.random.uniform(key, (4,))
    cut = _cut(down, own, height)[:, None] & _cut(right, own, width)[None]
    mixed = jnp.where(draw < probability / 2, ~cut, own)  # CutMix or Mixup
    return jnp.where(draw < probability, mixed, 1.0)


def _cut(draw: jax.Array, own: jax.Array, side: int) -> jax.Array:
    """Returns the mask of the rectangle on a side, bool `(side,)`: centred at a random pixel, clipped at the edge."""
    half = jnp.floor(side * jnp.sqrt(1 - own)) // 2
    centre = jnp.floor(side * draw)
    places = jnp.arange(side)
    return (places >= centre - half) & (places < centre + half)
