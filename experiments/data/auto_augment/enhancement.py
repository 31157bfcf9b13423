"""Operations that go from a poorer image towards the image, or beyond it: contrast, colour, brightness and sharpness.

They are equal to Pillow's `ImageEnhance`, pixel by pixel. TensorFlow's `tf.image` has other definitions of these words.
In each, `magnitude` is a float64 scalar and 1 + `magnitude` the factor: at 0 it gives the image back, at −1 the poorer
image. Images are uint8 `(height, width, 3)`.
"""

import tensorflow as tf

_LUMA = (19595, 38470, 7471)  # of 65,536 parts: red, green and blue
_NEIGHBOURS = tuple((row, column) for row in range(3) for column in range(3))


def contrast(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Away from the image's mean grey."""
    grey = _grey(image)
    size = tf.size(grey)
    return _away_from((2 * tf.reduce_sum(grey) + size) // (2 * size), image, magnitude)


def color(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Away from the image without colours."""
    return _away_from(_grey(image), image, magnitude)


def brightness(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Away from black."""
    return _away_from(tf.constant(0), image, magnitude)


def sharpness(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Away from the smoothed image, in which a pixel has five times the weight of each neighbour.

    The outermost pixels stay as they are.
    """
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    pixels = tf.cast(image, tf.int32)
    padded = tf.pad(pixels, ((1, 1), (1, 1), (0, 0)))
    around = tf.add_n([padded[row : row + height, column : column + width] for row, column in _NEIGHBOURS])
    smooth = (2 * (around + 4 * pixels) + 13) // 26  # the nearest integer to a 13th
    down, right = tf.range(height)[:, None, None], tf.range(width)[None, :, None]
    is_edge = (down == 0) | (down == height - 1) | (right == 0) | (right == width - 1)
    return _away_from(tf.where(is_edge, pixels, smooth), image, magnitude)


def _grey(image: tf.Tensor) -> tf.Tensor:
    """The luma, int32 `(height, width, 1)`."""
    return (tf.reduce_sum(tf.cast(image, tf.int32) * _LUMA, -1, keepdims=True) + 2**15) // 2**16


def _away_from(poorer: tf.Tensor, image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """`poorer + (1 + magnitude) · (image − poorer)` in float32, clipped and rounded towards zero as Pillow does."""
    start = tf.cast(poorer, tf.float32)
    moved = start + tf.cast(1 + magnitude, tf.float32) * (tf.cast(image, tf.float32) - start)
    return tf.cast(tf.clip_by_value(moved, 0, 255), tf.uint8)
