"""Operations that replace grey levels: each channel's 256 levels by others, whatever the place of a pixel.

They are equal to Pillow's `ImageOps`, pixel by pixel. Of Keras's layers, the auto-contrast differs by a level and the
equalisation by up to 95, so neither is used here.
"""

import tensorflow as tf

_LEVELS = 256


def auto_contrast(image: tf.Tensor) -> tf.Tensor:
    """Each channel, stretched: its darkest level becomes 0, its lightest 255. Image uint8 `(height, width, 3)`."""
    lowest = tf.cast(tf.reduce_min(image, (0, 1)), tf.float64)
    highest = tf.cast(tf.reduce_max(image, (0, 1)), tf.float64)
    scale = 255 / tf.maximum(highest - lowest, 1)
    levels = tf.range(_LEVELS, dtype=tf.float64)[:, None]
    stretched = tf.clip_by_value(levels * scale - lowest * scale, 0, 255)
    return _replaced(image, tf.where(highest > lowest, stretched, levels))


def equalize(image: tf.Tensor) -> tf.Tensor:
    """Each channel's levels replaced so that all occur about equally often; image uint8 `(height, width, 3)`."""
    channels = image.shape[-1]
    counts = tf.math.bincount(_cells(image), minlength=_LEVELS * channels, maxlength=_LEVELS * channels)
    counts = tf.reshape(counts, (_LEVELS, channels))
    below = tf.cast(image < tf.reduce_max(image, (0, 1)), tf.int32)
    step = tf.reduce_sum(below, (0, 1)) // (_LEVELS - 1)
    darker = tf.cumsum(counts, exclusive=True)
    equal = tf.minimum((step // 2 + darker) // tf.maximum(step, 1), _LEVELS - 1)
    return _replaced(image, tf.where(step > 0, equal, tf.range(_LEVELS)[:, None]))


def invert(image: tf.Tensor) -> tf.Tensor:
    """The negative of an image, uint8 of any shape."""
    return 255 - image


def solarize(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """The negative where a level is at least `magnitude`, a float64 scalar; image uint8 of any shape."""
    return tf.where(tf.cast(image, tf.float64) < magnitude, image, invert(image))


def posterize(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """The first bits of each level: `magnitude` of them, a float64 scalar from 1 to 8; image uint8 of any shape."""
    dropped = tf.cast(8 - magnitude, tf.uint8)
    return tf.bitwise.left_shift(tf.bitwise.right_shift(image, dropped), dropped)


def _cells(image: tf.Tensor) -> tf.Tensor:
    """For each value, where its level and channel stand in a flattened table `(levels, channels)`."""
    channels = image.shape[-1]
    return tf.cast(image, tf.int32) * channels + tf.range(channels)


def _replaced(image: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
    """Each level replaced by what stands in the table `(levels, channels)`, rounded down."""
    return tf.gather(tf.reshape(tf.cast(table, tf.uint8), (-1,)), _cells(image))
