"""Augmentation of targets: label smoothing, and Mixup and CutMix, which mix images and their targets.

Label smoothing spreads a part of each label over all classes (Szegedy et al. 2015, arXiv 1512.00567). Mixup (Zhang et
al. 2017, arXiv 1710.09412) takes the average of two images, with a weight λ that is uniform between 0 and 1, which is
Beta(1, 1). CutMix (Yun et al. 2019, arXiv 1905.04899) puts a rectangle of 1 − λ of the area into an image, from the
same place of the other. Both come down to a weight for each pixel.
"""

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


def mix(key: jax.Array, images: jax.Array, targets: jax.Array, probability: float) -> tuple[jax.Array, jax.Array]:
    """The batch with mixup or CutMix, each with half of `probability`, or as it is.

    As in the study's code, there is one lot for the batch: whether it is mixed, by which of the two, λ and the
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
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images is of {images.dtype}: give normalised images, floating.")
    if targets.ndim != 2 or not jnp.issubdtype(targets.dtype, jnp.floating):
        raise ValueError(
            f"targets is of {targets.dtype} and shape {targets.shape}: give what `smoothed` makes of labels."
        )
    if not 0 <= probability <= 1:
        raise ValueError(f"probability is {probability}: give a number from 0 to 1.")
    for_weights, for_partners = jax.random.split(key)
    weights = _weights(for_weights, images.shape[1], images.shape[2], probability)
    partner = jax.random.permutation(for_partners, len(images))
    return _weighted(weights[..., None], images, partner), _weighted(weights.mean(), targets, partner)


def _weights(key: jax.Array, height: int, width: int, probability: float) -> jax.Array:
    """Each pixel's weight in the mixture with its image's partner, float32 `(height, width)`."""
    lot, own, down, right = jax.random.uniform(key, (4,))
    cut = _interval(down, own, height)[:, None] & _interval(right, own, width)[None]
    mixed = jnp.where(lot < probability / 2, ~cut, own)  # CutMix or mixup
    return jnp.where(lot < probability, mixed, 1.0)


def _interval(lot: jax.Array, own: jax.Array, side: int) -> jax.Array:
    """Where the rectangle is on a side: about a pixel that is drawn, and cut off at the edge; bool `(side,)`."""
    half = jnp.floor(side * jnp.sqrt(1 - own)) // 2
    centre = jnp.floor(side * lot)
    places = jnp.arange(side)
    return (places >= centre - half) & (places < centre + half)


def _weighted(weight: jax.Array, values: jax.Array, partner: jax.Array) -> jax.Array:
    return (weight * values + (1 - weight) * values[partner]).astype(values.dtype)
