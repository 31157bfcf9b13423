"""A data set: its examples, label noise, a validation part, and a fingerprint.

A dataset says how its images may be moved without changing what they show. Label noise is symmetric. The validation
part is held out of the training examples to choose settings by. A run that resumes has to find the examples that it had
before, which the fingerprint tells.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import tensorflow as tf

Reader = Callable[[Any, Any], tuple[Any, Any]]
"""`reader(index, keys)` → images uint8 `(rows, height, width, channels)` and labels int32 `(rows,)`, as tensors.

`index` is int64 `(rows,)`. `keys` holds the seed and the position of each row, int64 `(rows, 2)`, for a random crop
that cannot wait for the compiled step since the images differ in size.
"""


class Examples(Protocol):
    """Images with their labels, to be had in any order: in memory (`Split`), or read one by one (`Records`)."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)`."""

    @property
    def workers(self) -> int:
        """The threads that reading is worth."""

    def __len__(self) -> int: ...

    def rows(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Examples as they are evaluated: without augmentation.

        Args:
          index: which, `(rows,)`.

        Returns:
          Images uint8 `(rows, height, width, channels)` and labels int32 `(rows,)`.
        """

    def training_reader(self) -> Reader:
        """What reads examples as they are trained on, in the graph of a tf.data pipeline."""

    def taking(self, index: np.ndarray) -> Self:
        """These examples alone."""

    def with_labels_moved(self, by: np.ndarray, num_classes: int) -> Self:
        """The same images, label `y` of each replaced by `y + by`, modulo the number of classes."""


@dataclass(frozen=True)
class Split:
    """Images with their labels, in memory.

    Attributes:
      images: uint8, `(examples, height, width, channels)`.
      labels: int32, `(examples,)`.
    """

    images: np.ndarray
    labels: np.ndarray

    workers = 1  # since the cores are the training's

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)`."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    def rows(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels, as `Examples.rows`."""
        return self.images[index], self.labels[index]

    def training_reader(self) -> Reader:
        """What gathers images and labels; no lots are drawn, so the keys are not looked at."""
        images, labels = tf.constant(self.images), tf.constant(self.labels)
        return lambda index, keys: (tf.gather(images, index), tf.gather(labels, index))

    def taking(self, index: np.ndarray) -> "Split":
        """A copy of these examples alone."""
        return Split(self.images[index], self.labels[index])

    def with_labels_moved(self, by: np.ndarray, num_classes: int) -> "Split":
        """The same images, as `Examples.with_labels_moved`."""
        return Split(self.images, ((self.labels + by) % num_classes).astype(np.int32))


@dataclass(frozen=True)
class Dataset:
    """A classification problem.

    Attributes:
      train: what the parameters are fitted to.
      test: what the error is reported on.
      num_classes: labels run from 0 to below it.
      mean: of the training images' channels, in units of the stored integers, `(channels,)`.
      std: their standard deviation, likewise.
      crop_padding: pixels that an image may be shifted by.
      flip: whether a mirrored image shows the same thing.
    """

    train: Examples
    test: Examples
    num_classes: int
    mean: np.ndarray
    std: np.ndarray
    crop_padding: int
    flip: bool

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)`."""
        return self.train.image_shape


def channel_moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel of uint8 images, float32, `(channels,)`.

    Exact up to the last rounding, and without a copy of all images in floating point: pixels are counted by value.
    """
    values = np.arange(256.0)
    counts = np.stack([_counts(images[..., channel]) for channel in range(images.shape[-1])])
    mean = counts @ values / counts.sum(1)
    variance = (counts * (values - mean[:, None]) ** 2).sum(1) / counts.sum(1)
    return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)


def _counts(pixels: np.ndarray) -> np.ndarray:
    """How often each of the 256 values occurs, image by image, since `bincount` copies what it counts into int64."""
    return sum((np.bincount(image.ravel(), minlength=256) for image in pixels), np.zeros(256, np.int64))
