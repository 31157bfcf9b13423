"""The operations by name, each as a function of an image and a magnitude."""

from collections.abc import Callable

import tensorflow as tf

from experiments.data.auto_augment import enhancement, geometry, tone

Operation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""`operation(image, magnitude)` → an image of the same shape: uint8 `(height, width, 3)`; the magnitude is float64."""


def _without_magnitude(operation: Callable[[tf.Tensor], tf.Tensor]) -> Operation:
    return lambda image, magnitude: operation(image)


OPERATIONS: dict[str, Operation] = {
    "shear_x": geometry.shear_x,
    "shear_y": geometry.shear_y,
    "translate_x": geometry.translate_x,
    "translate_y": geometry.translate_y,
    "rotate": geometry.rotate,
    "auto_contrast": _without_magnitude(tone.auto_contrast),
    "invert": _without_magnitude(tone.invert),
    "equalize": _without_magnitude(tone.equalize),
    "solarize": tone.solarize,
    "posterize": tone.posterize,
    "contrast": enhancement.contrast,
    "color": enhancement.color,
    "brightness": enhancement.brightness,
    "sharpness": enhancement.sharpness,
}
