"""Augmentation inside the compiled step: JAX, in bits that depend on seed and position alone.

Images: crop, flip, random erasing and normalisation. Each example has a random key of its own, whatever its batch. A
crop shifts an image by up to `padding` pixels, with zeros at its edge. Random erasing replaces a rectangle by one
colour (Zhong et al. 2017, arXiv 1708.04896).

Targets: label smoothing, and Mixup and CutMix, which mix images and their targets. Label smoothing spreads a part of
each label over all classes (Szegedy et al. 2015, arXiv 1512.00567). Mixup (Zhang et al. 2017, arXiv 1710.09412) takes
the average of two images, with a weight λ that is uniform between 0 and 1, which is Beta(1, 1). CutMix (Yun et al.
2019, arXiv 1905.04899) puts a rectangle of 1 − λ of the area into an image, from the same place of the other. Both come
down to a weight for each pixel.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


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
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))

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


def random_erasing(keys: jax.Array, images: jax.Array, probability: float, fill: ArrayLike = 0.0) -> jax.Array:
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
    _check(images, probability)
    inside = jax.vmap(lambda key: _rectangle(key, images.shape[1], images.shape[2], probability))(keys)
    return jnp.where(inside[..., None], jnp.asarray(fill, images.dtype), images)


def _check(images: jax.Array, probability: float) -> None:
    """Refuse images that are not normalised, and a number that is no probability."""
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images is of {images.dtype}: give normalised images, floating.")
    if not 0 <= probability <= 1:
        raise ValueError(f"probability is {probability}: give a number from 0 to 1.")


def _rectangle(key: jax.Array, height: int, width: int, probability: float) -> jax.Array:
    """Where it is, bool `(height, width)`; nowhere, where it is not drawn or none fits."""
    draws = jax.random.uniform(key, (2 * _ATTEMPTS + 3,))  # one draw of bits: it is compiled for every batch size
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
    """Where an interval of `length` pixels is on a side, every place being as likely, bool `(side,)`."""
    start = jnp.floor(draw * (side - length + 1))
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


def mix(key: jax.Array, images: jax.Array, targets: jax.Array, probability: float) -> tuple[jax.Array, jax.Array]:
    """The batch with mixup or CutMix, each with half of `probability`, or as it is.

    As in the study's code, there is one random draw for the batch: whether it is mixed, by which of the two, λ and the
    rectangle's place hold for all of its images, and the partners are a permutation, in which an image may meet itself.
    So the result depends on the key and on what the batch holds, and a change of the batch size changes it: that cannot
    be otherwise where the partner is of the batch.

    The cross-entropy is linear in the target, so the loss is the two labels' losses weighted by λ and 1 − λ, which
    the study's code adds up, smoothed labels included. CutMix's λ is the part of the area that stayed.

    Args:
      key: a random key for the batch.
      images: `(batch, height, width, channels)`, floating, normalised.
      targets: a distribution over the classes for each, `(batch, classes)`, floating: see `smoothed`.
      probability: that the batch is mixed.

    Returns:
      Images and targets of the same shapes and dtypes.

    Raises:
      ValueError: If the images or the targets are not floating, or if `probability` is none.
    """
    _check(images, probability)
    if targets.ndim != 2 or not jnp.issubdtype(targets.dtype, jnp.floating):
        raise ValueError(f"targets is of {targets.dtype}, shape {targets.shape}: give what `smoothed` makes of labels.")
    for_weights, for_partners = jax.random.split(key)
    weights = _weights(for_weights, images.shape[1], images.shape[2], probability)
    partner = jax.random.permutation(for_partners, len(images))

    def mixed(weight: jax.Array, values: jax.Array) -> jax.Array:
        return (weight * values + (1 - weight) * values[partner]).astype(values.dtype)

    return mixed(weights[..., None], images), mixed(weights.mean(), targets)


def _weights(key: jax.Array, height: int, width: int, probability: float) -> jax.Array:
    """Each pixel's weight in the mixture with its image's partner, float32 `(height, width)`."""
    draw, own, down, right = jax.random.uniform(key, (4,))
    cut = _cut(down, own, height)[:, None] & _cut(right, own, width)[None]
    mixed = jnp.where(draw < probability / 2, ~cut, own)  # CutMix or mixup
    return jnp.where(draw < probability, mixed, 1.0)


def _cut(draw: jax.Array, own: jax.Array, side: int) -> jax.Array:
    """Where the rectangle is on a side: about a pixel that is drawn, and cut off at the edge; bool `(side,)`."""
    half = jnp.floor(side * jnp.sqrt(1 - own)) // 2
    centre = jnp.floor(side * draw)
    places = jnp.arange(side)
    return (places >= centre - half) & (places < centre + half)
