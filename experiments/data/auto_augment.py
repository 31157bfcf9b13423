"""AutoAugment with its policy for CIFAR-10: Pillow operations that a tf.data pipeline calls.

The policy has 25 pairs of operations (Cubuk et al. 2019, arXiv 1805.09501, appendix). The pairs and the meaning of a
level are those of the study's code, https://github.com/iiduka-researches/GSAM_batch_inc, which takes them from
https://github.com/DeepVoltaire/AutoAugment. There the factor of an enhancement is 1 ± 0.1 · level, and a translation
shifts the image by up to 150/331 of its side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from etils import epy
from PIL import Image, ImageChops, ImageEnhance, ImageOps

with epy.lazy_imports():  # TensorFlow takes seconds to import, and no help text or refused setting needs it
    import tensorflow as tf


class Choice(NamedTuple):
    """One operation of a pair.

    Attributes:
      operation: the name of the operation.
      probability: the probability that it is applied.
      level: its strength, from 0 to 9.
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

MAGNITUDES: dict[str, np.ndarray] = {
    **dict.fromkeys(("shear_x", "shear_y"), np.linspace(0, 0.3, 10)),  # pixels of shift per row or column
    **dict.fromkeys(("translate_x", "translate_y"), np.linspace(0, 150 / 331, 10)),  # a fraction of the image's side
    "rotate": np.linspace(0, 30, 10),  # degrees
    "solarize": np.linspace(256, 0, 10),  # values from this threshold up are inverted
    "posterize": np.round(np.linspace(8, 4, 10)),  # the number of bits that are kept
    **dict.fromkeys(("contrast", "color", "brightness", "sharpness"), np.linspace(0, 0.9, 10)),  # the factor minus 1
    **dict.fromkeys(("auto_contrast", "invert", "equalize"), np.zeros(10)),  # these have no magnitude
}
"""The magnitude of each level, 0 to 9, for each operation."""

SIGNED = frozenset({"shear_x", "shear_y", "translate_x", "translate_y", "contrast", "color", "brightness", "sharpness"})
"""The operations whose magnitude has a random sign, with probability 1/2. A rotation is always counterclockwise."""

_GREY = (128, 128, 128)  # the colour of new pixels at an edge


def _affine(image: Image.Image, matrix: tuple[float, ...], resample: Image.Resampling) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample, fillcolor=_GREY)


_CUBIC, _NEAREST = Image.Resampling.BICUBIC, Image.Resampling.NEAREST

OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "shear_x": lambda image, magnitude: _affine(image, (1, magnitude, 0, 0, 1, 0), _CUBIC),
    "shear_y": lambda image, magnitude: _affine(image, (1, 0, 0, magnitude, 1, 0), _CUBIC),
    "translate_x": lambda image, magnitude: _affine(image, (1, 0, magnitude * image.width, 0, 1, 0), _NEAREST),
    "translate_y": lambda image, magnitude: _affine(image, (1, 0, 0, 0, 1, magnitude * image.height), _NEAREST),
    "rotate": lambda image, magnitude: image.rotate(magnitude, fillcolor=_GREY),
    "auto_contrast": lambda image, _: ImageOps.autocontrast(image),
    "invert": lambda image, _: ImageChops.invert(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
    "solarize": lambda image, magnitude: ImageOps.solarize(image, math.ceil(magnitude)),
    "posterize": lambda image, magnitude: ImageOps.posterize(image, int(magnitude)),
    "contrast": lambda image, magnitude: ImageEnhance.Contrast(image).enhance(1 + magnitude),
    "color": lambda image, magnitude: ImageEnhance.Color(image).enhance(1 + magnitude),
    "brightness": lambda image, magnitude: ImageEnhance.Brightness(image).enhance(1 + magnitude),
    "sharpness": lambda image, magnitude: ImageEnhance.Sharpness(image).enhance(1 + magnitude),
}
"""`operation(image, magnitude)` → an RGB image of the same size; the factor of an enhancement is 1 + `magnitude`."""

_STREAM = 1805  # separates these random draws from the others that use the key: the order of an epoch, a crop


def auto_augment(image: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """Applies one of the policy's 25 pairs, chosen uniformly; each operation of the pair runs with its probability.

    Args:
      image: uint8 `(height, width, 3)`; height and width may be unknown to the graph.
      key: int64 `(2,)`, the seed and the position. The result depends only on the image and the key.

    Returns:
      An image of the same shape and dtype.

    Raises:
      ValueError: If the image is not a uint8 image with three channels.
    """
    if image.dtype != tf.uint8 or image.shape.rank != 3 or image.shape[-1] != 3:
        given = f"image is {image.dtype.name} of shape {image.shape}: AutoAugment's policy needs colour images"
        raise ValueError(f"{given}, give uint8 of shape (height, width, 3), or omit auto_augment.")
    # TensorFlow's stubs declare the folded key as an int.
    draws = tf.random.stateless_uniform((5,), tf.random.fold_in(key, _STREAM))  # pyright: ignore[reportArgumentType]
    return tf.ensure_shape(tf.numpy_function(_augmented, [image, draws], tf.uint8, stateful=False), image.shape)


def _augmented(pixels: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Applies the policy with five uniform float32 draws.

    The first chooses the pair. Then each operation has two: one decides whether it runs, one decides its sign.
    """
    image = Image.fromarray(pixels)
    pair = POLICY[int(draws[0] * np.float32(len(POLICY)))]
    for choice, (decision, sign) in zip(pair, draws[1:].reshape(2, 2), strict=True):
        if decision < np.float32(choice.probability):
            magnitude = float(MAGNITUDES[choice.operation][choice.level])
            negative = choice.operation in SIGNED and sign < 0.5
            image = OPERATIONS[choice.operation](image, -magnitude if negative else magnitude)
    return np.asarray(image)
