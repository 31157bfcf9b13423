"""One pair of the policy, drawn for an image and applied to it."""

import numpy as np
import tensorflow as tf

from experiments.data.auto_augment.operations import OPERATIONS
from experiments.data.auto_augment.policy import MAGNITUDES, POLICY, SIGNED

_STREAM = 1805  # keeps these lots apart from others that are drawn with the key: of an epoch's order, of a crop
_NAMES = tuple(OPERATIONS)
_OPERATION = np.array([[_NAMES.index(choice.operation) for choice in pair] for pair in POLICY], np.int32)
_PROBABILITY = np.array([[choice.probability for choice in pair] for pair in POLICY], np.float32)
_MAGNITUDE = np.array([[MAGNITUDES[choice.operation][choice.level] for choice in pair] for pair in POLICY])
_IS_SIGNED = np.array([[choice.operation in SIGNED for choice in pair] for pair in POLICY])


def auto_augment(image: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """One of the policy's 25 pairs, each as likely, of which each operation is done with its probability.

    Args:
      image: uint8 `(height, width, 3)`; height and width may be unknown to the graph.
      key: int64 `(2,)`, of which the result is a pure function: the seed and the position.

    Returns:
      An image of the same shape and dtype.

    Raises:
      ValueError: If the image is not in colour.
    """
    if image.dtype != tf.uint8 or image.shape.rank != 3 or image.shape[-1] != 3:
        raise ValueError(
            f"image is {image.dtype.name} of shape {image.shape}: AutoAugment's policy is for colours, give uint8 of "
            "shape (height, width, 3), or leave auto_augment out."
        )
    lots = tf.random.stateless_uniform((5,), tf.random.fold_in(key, _STREAM))
    pair = tf.cast(lots[0] * len(POLICY), tf.int32)
    for place, own in enumerate((lots[1:3], lots[3:5])):
        image = tf.ensure_shape(_applied(image, pair, place, own), image.shape)
    return image


def _applied(image: tf.Tensor, pair: tf.Tensor, place: int, lots: tf.Tensor) -> tf.Tensor:
    """The operation at `place` of the pair, by the first lot's decision, with the second lot's sign."""

    def chosen(table: np.ndarray) -> tf.Tensor:
        return tf.constant(table[:, place])[pair]

    magnitude = tf.where(chosen(_IS_SIGNED) & (lots[1] < 0.5), -chosen(_MAGNITUDE), chosen(_MAGNITUDE))
    branches = [lambda operation=operation: operation(image, magnitude) for operation in OPERATIONS.values()]
    index = tf.where(lots[0] < chosen(_PROBABILITY), chosen(_OPERATION), len(branches))
    return tf.switch_case(index, [*branches, lambda: image])
