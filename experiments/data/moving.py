"""Shift and mirror in a tf.data pipeline, for what has to come behind them there; else the compiled step does both."""

import tensorflow as tf

_STREAM = 32  # keeps these lots apart from others that are drawn with the key


def moved(image: tf.Tensor, key: tf.Tensor, padding: int, *, flip: bool) -> tf.Tensor:
    """The image, mirrored with probability one half, and a crop of its size out of it with a border of zeros.

    Args:
      image: uint8 `(height, width, channels)`.
      key: int64 `(2,)`, of which the result is a pure function: the seed and the position.
      padding: the border's width, in pixels.
      flip: whether it may be mirrored.

    Returns:
      An image of the same shape and dtype.
    """
    lots = tf.random.stateless_uniform((3,), tf.random.fold_in(key, _STREAM))
    if flip:
        image = tf.cond(lots[0] < 0.5, lambda: image[:, ::-1], lambda: image)
    if not padding:
        return image
    row, column = tf.unstack(tf.cast(lots[1:] * (2 * padding + 1), tf.int32))
    height, width, channels = image.shape
    padded = tf.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    return tf.ensure_shape(padded[row : row + height, column : column + width], (height, width, channels))
