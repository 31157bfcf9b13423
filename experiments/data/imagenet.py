"""How ImageNet's photographs, each of a size of its own, become images of one size."""

from typing import Any

import numpy as np
import tensorflow as tf

IMAGE_SHAPE = (224, 224, 3)
MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
STD = np.array([0.229, 0.224, 0.225], np.float32) * 255
"""Of the training images' red, green and blue channel: the values that published networks are trained with."""

_SIDE = 224
_SHORT_SIDE = 256  # of a photograph of which the centre is cut out
_AREA, _ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)
_ATTEMPTS = 100
_CROP = 1  # folded into the key, which is the transform's, too


def training_image(jpeg: Any, key: Any) -> Any:
    """A random part of a photograph, as Szegedy et al. (2015, arXiv 1409.4842) cut it: resized to 224 x 224.

    Its area is 8% to 100% of the photograph's, its aspect ratio 3:4 to 4:3. Where no such part is found in 100
    attempts, it is the whole.

    Args:
      jpeg: the file's bytes, a string tensor.
      key: int64 `(2,)`, the seed and the position: all that the part depends on.

    Returns:
      uint8 `(224, 224, 3)`.
    """
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.io.extract_jpeg_shape(jpeg),
        tf.zeros((1, 0, 4)),
        seed=tf.random.experimental.stateless_fold_in(key, _CROP),
        min_object_covered=0.0,
        aspect_ratio_range=_ASPECT,
        area_range=_AREA,
        max_attempts=_ATTEMPTS,
        use_image_if_no_bounding_boxes=True,
    )
    window = tf.concat([begin[:2], size[:2]], axis=0)
    part = tf.io.decode_and_crop_jpeg(jpeg, window, channels=3, dct_method="INTEGER_ACCURATE")
    return _resized(part, (_SIDE, _SIDE))


def evaluation_image(jpeg: Any) -> Any:
    """The centre of a photograph: its short side resized to 256 pixels, and 224 x 224 cut out.

    Args:
      jpeg: the file's bytes, a string tensor.

    Returns:
      uint8 `(224, 224, 3)`.
    """
    photograph = tf.io.decode_jpeg(jpeg, channels=3, dct_method="INTEGER_ACCURATE")
    size = tf.shape(photograph)[:2]
    resized = _resized(photograph, size * _SHORT_SIDE // tf.reduce_min(size))
    top, left = tf.unstack((tf.shape(resized)[:2] - _SIDE) // 2)
    return tf.ensure_shape(resized[top : top + _SIDE, left : left + _SIDE], IMAGE_SHAPE)


def _resized(image: Any, size: Any) -> Any:
    """Bilinear, with the smoothing that a smaller image needs."""
    resized = tf.image.resize(image, size, antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
