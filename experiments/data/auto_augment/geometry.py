"""Operations that move pixels: shear, translation and rotation. What comes in at the edge is grey.

They are equal to Pillow's, pixel by pixel: a shear interpolates by Pillow's cubic, the others take the nearest pixel.
Keras's and TensorFlow's transformations have no cubic form.
"""

import math

import tensorflow as tf

_GREY = 128
_FIXED_POINT = 16  # bits behind the point: Pillow's rotation by the nearest pixel adds integers


def shear_x(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Each row moved to the left by `magnitude` pixels more than the one above.

    Args:
      image: uint8 `(height, width, channels)`.
      magnitude: float64 scalar, the tangent of the angle.
    """
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    columns = _centres(width)[None] + magnitude * _centres(height)[:, None]
    inside = (columns >= 0) & (columns < tf.cast(width, tf.float64))
    return tf.where(inside[..., None], _cubic(image, columns - 0.5), _GREY)


def shear_y(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """Each column moved up by `magnitude` pixels more than the one to its left; arguments as `shear_x`."""
    return _exchanged(shear_x(_exchanged(image), magnitude))


def translate_x(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """The image moved to the left.

    Args:
      image: uint8 `(height, width, channels)`.
      magnitude: float64 scalar, as a fraction of the width; the shift is rounded to whole pixels.
    """
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    shift = tf.floor(magnitude * tf.cast(width, tf.float64) + 0.5)
    columns = tf.range(width)[None] + tf.cast(shift, tf.int32)
    return _nearest(image, tf.range(height)[:, None], columns)


def translate_y(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """The image moved up, by a fraction of its height; arguments as `translate_x`."""
    return _exchanged(translate_x(_exchanged(image), magnitude))


def rotate(image: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """The image turned anticlockwise about its centre.

    Args:
      image: uint8 `(height, width, channels)`.
      magnitude: float64 scalar, in degrees.
    """
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    angle = magnitude * (math.pi / 180)
    cos, sin = tf.cos(angle), tf.sin(angle)
    x, y = tf.cast(width, tf.float64) / 2, tf.cast(height, tf.float64) / 2
    left, top = x - cos * x + sin * y, y - sin * x - cos * y  # where the corner comes from
    down, right = tf.range(height, dtype=tf.int64)[:, None], tf.range(width, dtype=tf.int64)[None]
    columns = _fixed(left + (cos - sin) / 2) + right * _fixed(cos) - down * _fixed(sin)
    rows = _fixed(top + (sin + cos) / 2) + right * _fixed(sin) + down * _fixed(cos)
    return _nearest(image, *(tf.cast(each // 2**_FIXED_POINT, tf.int32) for each in (rows, columns)))


def _centres(side: tf.Tensor) -> tf.Tensor:
    """0.5, 1.5, …, made of integers: TensorFlow rearranges sums of floats, and rounds otherwise than Pillow."""
    return tf.cast(2 * tf.range(side) + 1, tf.float64) / 2


def _exchanged(image: tf.Tensor) -> tf.Tensor:
    """Rows and columns exchanged."""
    return tf.transpose(image, (1, 0, 2))


def _fixed(value: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.floor(value * 2**_FIXED_POINT + 0.5), tf.int64)


def _nearest(image: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """The pixels at integer rows and columns, which are broadcast; grey where there is none."""
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    flat = tf.reshape(image, (height * width, image.shape[-1]))
    pixels = tf.gather(flat, tf.where(inside, rows * width + columns, 0))
    return tf.where(inside[..., None], pixels, _GREY)


def _cubic(image: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Each row at real columns, float64 `(height, width)`, by cubic convolution of four pixels, with a = −1.

    As Pillow does, it repeats the pixels at the edge, and rounds towards zero.
    """
    last = tf.shape(image)[1] - 1
    first = tf.floor(columns)
    along = (columns - first)[..., None]
    places = (tf.clip_by_value(tf.cast(first, tf.int32) + offset, 0, last) for offset in (-1, 0, 1, 2))
    a, b, c, d = (tf.cast(tf.gather(image, place, batch_dims=1), tf.float64) for place in places)
    values = b + along * (c - a + along * (2 * (a - b) + c - d + along * (b - a + d - c)))
    return tf.cast(tf.clip_by_value(values, 0, 255), tf.uint8)
