"""AutoAugment with its policy for CIFAR-10, in the graph of a tf.data pipeline.

The policy has 25 pairs of operations (Cubuk et al. 2019, arXiv 1805.09501, appendix). The pairs and the meaning of a
level are those that the study's code uses, https://github.com/iiduka-researches/GSAM_batch_inc, which has them from
https://github.com/DeepVoltaire/AutoAugment. There an enhancement's factor is 1 ± 0.1 · level, and a translation moves
by up to 150/331 of the image's side.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from experiments.data import image_operations

__all__ = ["auto_augment"]


class Choice(NamedTuple):
    """One operation of a pair.

    Attributes:
      operation: its name.
      probability: with which it is done.
      level: how strongly, from 0 to 9.
    """

    operation: str
    probability: float
    level: int


POLICY: tuple[tuple[Choice, Choice], ...] = (
    (Choice("invert", 0.1, 7), Choice("contrast", 0.2, 6)),
    (Choice("rotate", 0.7, 2), Choice("translate_x", 0.3, 9)),
    (Choice("sharpness", 0.8, 1), Choice("sharpness", 0.9, 3)),
    (Choice("shear_y", 0.5, 8), Choice("translate_y", 0.7, 9)),
    (Choice("auto_contrast", 0.5, 8), Choice("equalize", 0.9, 2)),
    (Choice("shear_y", 0.2, 7), Choice("posterize", 0.3, 7)),
    (Choice("color", 0.4, 3), Choice("brightness", 0.6, 7)),
    (Choice("sharpness", 0.3, 9), Choice("brightness", 0.7, 9)),
    (Choice("equalize", 0.6, 5), Choice("equalize", 0.5, 1)),
    (Choice("contrast", 0.6, 7), Choice("sharpness", 0.6, 5)),
    (Choice("color", 0.7, 7), Choice("translate_x", 0.5, 8)),
    (Choice("equalize", 0.3, 7), Choice("auto_contrast", 0.4, 8)),
    (Choice("translate_y", 0.4, 3), Choice("sharpness", 0.2, 6)),
    (Choice("brightness", 0.9, 6), Choice("color", 0.2, 8)),
    (Choice("solarize", 0.5, 2), Choice("invert", 0.0, 3)),
    (Choice("equalize", 0.2, 0), Choice("auto_contrast", 0.6, 0)),
    (Choice("equalize", 0.2, 8), Choice("equalize", 0.6, 4)),
    (Choice("color", 0.9, 9), Choice("equalize", 0.6, 6)),
    (Choice("auto_contrast", 0.8, 4), Choice("solarize", 0.2, 8)),
    (Choice("brightness", 0.1, 3), Choice("color", 0.7, 0)),
    (Choice("solarize", 0.4, 5), Choice("auto_contrast", 0.9, 3)),
    (Choice("translate_y", 0.9, 9), Choice("translate_y", 0.7, 9)),
    (Choice("auto_contrast", 0.9, 2), Choice("solarize", 0.8, 3)),
    (Choice("equalize", 0.8, 8), Choice("invert", 0.1, 3)),
    (Choice("translate_y", 0.7, 9), Choice("auto_contrast", 0.9, 1)),
)

_UNREAD = np.zeros(10)
_ENHANCEMENT = np.linspace(0, 0.9, 10)

MAGNITUDES: dict[str, np.ndarray] = {
    "shear_x": np.linspace(0, 0.3, 10),  # pixels to the side for one down
    "shear_y": np.linspace(0, 0.3, 10),
    "translate_x": np.linspace(0, 150 / 331, 10),  # of the image's side
    "translate_y": np.linspace(0, 150 / 331, 10),
    "rotate": np.linspace(0, 30, 10),  # degrees
    "auto_contrast": _UNREAD,
    "invert": _UNREAD,
    "equalize": _UNREAD,
    "solarize": np.linspace(256, 0, 10),  # the grey level from which on pixels are inverted
    "posterize": np.round(np.linspace(8, 4, 10)),  # bits that are kept
    "contrast": _ENHANCEMENT,  # what the factor differs from 1 by
    "color": _ENHANCEMENT,
    "brightness": _ENHANCEMENT,
    "sharpness": _ENHANCEMENT,
}
"""What a level means, for each operation."""

SIGNED = frozenset({"shear_x", "shear_y", "translate_x", "translate_y", "contrast", "color", "brightness", "sharpness"})
"""The operations whose magnitude is taken with either sign, equally often. A rotation is always anticlockwise."""


Operation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""`operation(image, magnitude)` → an image of the same shape: uint8 `(height, width, 3)`; the magnitude is float64."""


def _without_magnitude(operation: Callable[[tf.Tensor], tf.Tensor]) -> Operation:
    return lambda image, magnitude: operation(image)


OPERATIONS: dict[str, Operation] = {
    "shear_x": image_operations.shear_x,
    "shear_y": image_operations.shear_y,
    "translate_x": image_operations.translate_x,
    "translate_y": image_operations.translate_y,
    "rotate": image_operations.rotate,
    "auto_contrast": _without_magnitude(image_operations.auto_contrast),
    "invert": _without_magnitude(image_operations.invert),
    "equalize": _without_magnitude(image_operations.equalize),
    "solarize": image_operations.solarize,
    "posterize": image_operations.posterize,
    "contrast": image_operations.contrast,
    "color": image_operations.color,
    "brightness": image_operations.brightness,
    "sharpness": image_operations.sharpness,
}


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
