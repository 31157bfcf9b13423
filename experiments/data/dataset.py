"""A data set: its examples, label noise, a validation part, and a fingerprint.

A data set says how its images may be moved without changing what they show. Label noise is symmetric. The validation
part is held out of the training examples to choose settings by. A run that resumes has to find the examples that it had
before: the fingerprint identifies them.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from experiments.data.imagenet import Reader, Records


@dataclass(frozen=True)
class Split:
    """Images with their labels, in memory.

    Attributes:
      images: uint8, `(examples, height, width, channels)`.
      labels: int32, `(examples,)`.
    """

    images: np.ndarray
    labels: np.ndarray

    workers = 1  # threads that read: the cores are needed for training

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)`."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    def rows(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Examples as they are evaluated: without augmentation.

        Args:
          index: which, `(rows,)`.

        Returns:
          Images uint8 `(rows, height, width, channels)` and labels int32 `(rows,)`.
        """
        return self.images[index], self.labels[index]

    def training_reader(self) -> Reader:
        """Reads examples as they are trained on, in the graph of a tf.data pipeline; the keys are not used."""
        images, labels = tf.constant(self.images), tf.constant(self.labels)
        return lambda index, keys: (tf.gather(images, index), tf.gather(labels, index))

    def taking(self, index: np.ndarray) -> "Split":
        """A copy of these examples alone."""
        return Split(self.images[index], self.labels[index])

    def with_labels_moved(self, by: np.ndarray, num_classes: int) -> "Split":
        """The same images, label `y` of each replaced by `y + by`, modulo the number of classes."""
        return Split(self.images, ((self.labels + by) % num_classes).astype(np.int32))


Examples = Split | Records
"""Images with their labels, read in any order: in memory (`Split`), or one by one from disk (`Records`)."""


_READ = 16  # records of a data set that stays on disk: to read all of them would take hours


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

    def fingerprint(self) -> str:
        """A digest of the training and the test examples, in their order, and of what is known of their images.

        Of examples in memory all are digested; of records on disk their number, their labels' noise, and some of them.
        """
        digest = hashlib.sha256(repr((self.num_classes, self.crop_padding, self.flip)).encode())
        _add(digest, self.mean, self.std)
        for examples in (self.train, self.test):
            if isinstance(examples, Split):
                _add(digest, examples.images, examples.labels)
            else:
                _add(digest, examples.index, examples.moved_by)
                some = np.linspace(0, len(examples) - 1, min(_READ, len(examples))).astype(np.int64)
                for record in examples.source.__getitems__(examples.index[some].tolist()):
                    digest.update(hashlib.sha256(record).digest())
        return digest.hexdigest()


def _add(digest: Any, *arrays: np.ndarray) -> None:
    for array in arrays:
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(np.ascontiguousarray(array))


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


_LABEL_NOISE = 1  # of this use of the seed


def with_noise(train: Examples, num_classes: int, fraction: float, seed: int) -> Examples:
    """The examples with `round(fraction · n)` wrong labels, each drawn uniformly from the other classes.

    The seed says which, and which label they get: those of a smaller fraction are among those of a larger one, with the
    same wrong labels.

    Args:
      train: n examples.
      num_classes: labels run from 0 to below it.
      fraction: of the labels, at least 0 and below 1.
      seed: of the run.
    """
    draws = np.random.default_rng((seed, _LABEL_NOISE))
    in_order = draws.permutation(len(train))
    moved_by = draws.integers(1, num_classes, len(train), dtype=np.int32)
    moved_by[in_order[round(fraction * len(train)) :]] = 0
    return train.with_labels_moved(moved_by, num_classes)


_VALIDATION = 2  # of this use of the seed


def held_out(train: Examples, fraction: float, seed: int) -> tuple[Examples, Examples]:
    """`round(fraction · n)` of the examples taken out by the seed; both parts in their first order.

    Args:
      train: n examples.
      fraction: to hold out, above 0 and below 1.
      seed: of the run.

    Returns:
      The rest, and what was held out.

    Raises:
      ValueError: If one of them is empty.
    """
    size = round(fraction * len(train))
    if not 0 < size < len(train):
        held = f"validation is {fraction}, which holds out {size} of {len(train)} training examples"
        raise ValueError(f"{held}: give a fraction that leaves some on both sides.")
    in_order = np.random.default_rng((seed, _VALIDATION)).permutation(len(train))
    return train.taking(np.sort(in_order[size:])), train.taking(np.sort(in_order[:size]))
