"""Examples that stay on disk and are read one by one, in any order: what ImageNet needs."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from experiments.data import imagenet
from experiments.data.dataset import Reader

_FEATURES = {"image": tf.io.FixedLenFeature((), tf.string), "label": tf.io.FixedLenFeature((), tf.int64)}


class Source(Protocol):
    """Serialised examples by index, such as TFDS's data source of `array_record` files."""

    def __len__(self) -> int: ...

    def __getitems__(self, keys: list[int]) -> Sequence[bytes]:
        """Several at once."""


@dataclass(frozen=True)
class Records:
    """JPEG photographs with their labels, decoded and cut as they are read.

    Attributes:
      source: the serialised examples, of which each has the features `image` and `label`.
      index: which of them are meant, int64 `(examples,)`.
      moved_by: what is added to each label, modulo the number of classes, int32 `(examples,)`.
      num_classes: labels run from 0 to below it.
    """

    source: Source
    index: np.ndarray
    moved_by: np.ndarray
    num_classes: int

    @classmethod
    def of(cls, source: Source, num_classes: int) -> "Records":
        """All examples of a source."""
        return cls(source, np.arange(len(source)), np.zeros(len(source), np.int32), num_classes)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)` of what is read."""
        return imagenet.IMAGE_SHAPE

    @property
    def workers(self) -> int:
        """The threads that decoding is worth: all."""
        return os.cpu_count() or 1

    def rows(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The centres of photographs, and their labels, as `Examples.rows`."""
        images, labels = _centres(tf.constant(self._serialised(index)))
        return images.numpy(), (labels.numpy() + self.moved_by[index]) % self.num_classes

    def training_reader(self) -> Reader:
        """What reads photographs and cuts a random part out of each."""
        moved_by = tf.constant(self.moved_by)

        def read(index: Any, keys: Any) -> tuple[Any, Any]:
            serialised = tf.numpy_function(self._serialised, [index], tf.string)
            jpegs, labels = _parsed(tf.ensure_shape(serialised, (None,)))
            parts = tf.map_fn(lambda each: imagenet.training_image(*each), (jpegs, keys), fn_output_signature=_IMAGE)
            return parts, (labels + tf.gather(moved_by, index)) % self.num_classes

        return read

    def taking(self, index: np.ndarray) -> "Records":
        """These examples alone."""
        return replace(self, index=self.index[index], moved_by=self.moved_by[index])

    def with_labels_moved(self, by: np.ndarray, num_classes: int) -> "Records":
        """The same photographs, as `Examples.with_labels_moved`."""
        return replace(self, moved_by=((self.moved_by + by) % num_classes).astype(np.int32))

    def _serialised(self, index: np.ndarray) -> np.ndarray:
        return np.array(self.source.__getitems__(self.index[index].tolist()), dtype=object)


_IMAGE = tf.TensorSpec(imagenet.IMAGE_SHAPE, tf.uint8)


def _parsed(serialised: Any) -> tuple[Any, Any]:
    parsed = tf.io.parse_example(serialised, _FEATURES)
    return parsed["image"], tf.cast(parsed["label"], tf.int32)


@tf.function(input_signature=[tf.TensorSpec((None,), tf.string)])
def _centres(serialised: Any) -> tuple[Any, Any]:
    jpegs, labels = _parsed(serialised)
    return tf.map_fn(imagenet.evaluation_image, jpegs, fn_output_signature=_IMAGE), labels
