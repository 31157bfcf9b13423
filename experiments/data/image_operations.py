"""The operations of AutoAugment on images: geometry, tone and enhancement, in TensorFlow.

They are equal to Pillow's, pixel by pixel.

- Geometry: shear, translation and rotation. New pixels at the edge are grey. A shear interpolates by Pillow's cubic,
  the others take the nearest pixel. Keras's and TensorFlow's transformations have no cubic form.
- Tone: each channel's 256 levels are replaced by others, wherever the pixel is (`ImageOps`). Of Keras's layers, the
  auto-contrast differs by a level and the equalisation by up to 95, so neither is used here.
- Enhancement: contrast, colour, brightness and sharpness, away from a poorer image (`ImageEnhance`). `tf.image` defines
  these words otherwise. `magnitude` is a float64 scalar and 1 + `magnitude` the factor: at 0 it gives the image back,
  at −1 the poorer image. Images are uint8 `(height, width, 3)`.
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
