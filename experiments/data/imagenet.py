"""ImageNet: photographs of any size that stay on disk, are read in any order, and are cropped to one size."""

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from etils import epy

with epy.lazy_imports():  # TensorFlow takes seconds to import, and no help text or refused setting needs it
    import tensorflow as tf

Reader = Callable[[Any, Any], tuple[Any, Any]]
"""`reader(index, keys)` → images uint8 `(rows, height, width, channels)` and labels int32 `(rows,)`, as tensors.

`index` is int64 `(rows,)`. `keys` holds the seed and the position of each row, int64 `(rows, 2)`, for the random crop.
The compiled step cannot crop the images, because they differ in size.
"""

_SIDE = 224
IMAGE_SHAPE = (_SIDE, _SIDE, 3)
MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
STD = np.array([0.229, 0.224, 0.225], np.float32) * 255
"""Mean and standard deviation of the red, green and blue channels: the values that published networks are trained with.
"""

_CROP = 1  # folded into the key, because the transform uses the same key


def training_image(jpeg: Any, key: Any) -> Any:
    """Crops a random part of a photograph, after Szegedy et al. (2015, arXiv 1409.4842), and resizes it to 224 x 224.

    The area of the part is 8% to 100% of the photograph's area, and its aspect ratio is 3:4 to 4:3. If no such part is
    found in 100 attempts, the whole photograph is used.

    Args:
      jpeg: the bytes of the file, a string tensor.
      key: int64 `(2,)`, the seed and the position; the crop depends only on these and on the photograph's size.

    Returns:
      uint8 `(224, 224, 3)`.
    """
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.io.extract_jpeg_shape(jpeg),
        tf.zeros((1, 0, 4)),
        seed=tf.random.fold_in(key, _CROP),
        min_object_covered=0.0,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(0.08, 1.0),
        max_attempts=100,
        use_image_if_no_bounding_boxes=True,
    )
    window = tf.concat([begin[:2], size[:2]], axis=0)
    part = tf.io.decode_and_crop_jpeg(jpeg, window, channels=3, dct_method="INTEGER_ACCURATE")
    return _resized(part, (_SIDE, _SIDE))


def evaluation_image(jpeg: Any) -> Any:
    """Resizes the short side of a photograph to 256 pixels, and crops the central 224 x 224 pixels.

    Args:
      jpeg: the bytes of the file, a string tensor.

    Returns:
      uint8 `(224, 224, 3)`.
    """
    photograph = tf.io.decode_jpeg(jpeg, channels=3, dct_method="INTEGER_ACCURATE")
    size = tf.shape(photograph)[:2]
    resized = _resized(photograph, size * 256 // tf.reduce_min(size))
    top, left = tf.unstack((tf.shape(resized)[:2] - _SIDE) // 2)
    return tf.ensure_shape(resized[top : top + _SIDE, left : left + _SIDE], IMAGE_SHAPE)


def _resized(image: Any, size: Any) -> Any:
    """Resizes bilinearly, with antialiasing, and rounds to uint8."""
    resized = tf.image.resize(image, size, antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)


class Source(Protocol):
    """Serialised examples by index, such as TFDS's data source of `array_record` files."""

    def __len__(self) -> int: ...

    def __getitems__(self, keys: list[int]) -> Sequence[bytes]:
        """Returns the examples at several indices."""
        ...


@dataclass(frozen=True)
class Records:
    """JPEG photographs and their labels; a photograph is decoded and cropped when it is read.

    Attributes:
      source: the serialised examples; each has the features `image` and `label`.
      index: the indices of the examples in `source`, int64 `(examples,)`.
      moved_by: the number that is added to each label, modulo the number of classes, int32 `(examples,)`.
      num_classes: the number of classes; labels are in `[0, num_classes)`.
    """

    source: Source
    index: np.ndarray
    moved_by: np.ndarray
    num_classes: int

    image_shape = IMAGE_SHAPE  # after cropping
    workers = os.cpu_count() or 1  # reading threads; decoding needs all cores

    @classmethod
    def of(cls, source: Source, num_classes: int) -> "Records":
        """Returns all examples of a source."""
        return cls(source, np.arange(len(source)), np.zeros(len(source), np.int32), num_classes)

    def __len__(self) -> int:
        return len(self.index)

    def rows(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the central crops of photographs and their labels, in the format of `Split.rows`."""
        images, labels = _centres()(tf.constant(self._serialised(index)))
        return images.numpy(), (labels.numpy() + self.moved_by[index]) % self.num_classes

    def training_reader(self) -> Reader:
        """Returns a function that reads photographs and crops a random part of each."""
        moved_by = tf.constant(self.moved_by)

        def read(index: Any, keys: Any) -> tuple[Any, Any]:
            serialised = tf.numpy_function(self._serialised, [index], tf.string)
            jpegs, labels = _parsed(tf.ensure_shape(serialised, (None,)))
            parts = tf.map_fn(lambda each: training_image(*each), (jpegs, keys), fn_output_signature=_image())
            return parts, (labels + tf.gather(moved_by, index)) % self.num_classes

        return read

    def taking(self, index: np.ndarray) -> "Records":
        """Returns the examples at `index`."""
        return replace(self, index=self.index[index], moved_by=self.moved_by[index])

    def with_labels_moved(self, by: np.ndarray, num_classes: int) -> "Records":
        """Returns the same photographs with other labels, as `Split.with_labels_moved` does."""
        return replace(self, moved_by=((self.moved_by + by) % num_classes).astype(np.int32))

    def _serialised(self, index: np.ndarray) -> np.ndarray:
        return np.array(self.source.__getitems__(self.index[index].tolist()), dtype=object)


def _image() -> Any:
    return tf.TensorSpec(IMAGE_SHAPE, tf.uint8)


def _parsed(serialised: Any) -> tuple[Any, Any]:
    features = {"image": tf.io.FixedLenFeature((), tf.string), "label": tf.io.FixedLenFeature((), tf.int64)}
    parsed = tf.io.parse_example(serialised, features)
    return parsed["image"], tf.cast(parsed["label"], tf.int32)


@functools.cache
def _centres() -> Any:
    """Returns the compiled function from serialised examples to the centres of their photographs and their labels."""

    def centres(serialised: Any) -> tuple[Any, Any]:
        jpegs, labels = _parsed(serialised)
        return tf.map_fn(evaluation_image, jpegs, fn_output_signature=_image()), labels

    return tf.function(centres, input_signature=[tf.TensorSpec((None,), tf.string)])
