"""A data set: its examples, label noise, a validation split, and a fingerprint.

A data set states which shifts and flips preserve the class of an image. Label noise is symmetric. The validation split
is held out of the training examples, to choose hyperparameters. A run that resumes must use the same examples as
before; the fingerprint identifies them.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from etils import epy

from experiments.data.imagenet import Reader, Records

with epy.lazy_imports():  # TensorFlow takes seconds to import, and no help text or refused setting needs it
    import tensorflow as tf


class Size(NamedTuple):
    """The size of a data set.

    Attributes:
      train: the number of training examples.
      num_classes: the number of classes; labels are in `[0, num_classes)`.
      image_shape: `(height, width, channels)` of the network's input.
    """

    train: int
    num_classes: int
    image_shape: tuple[int, int, int]


@dataclass(frozen=True)
class Split:
    """Images and labels in memory.

    Attributes:
      images: uint8, `(examples, height, width, channels)`.
      labels: int32, `(examples,)`.
    """

    images: np.ndarray
    labels: np.ndarray

    workers = 1  # reading threads; the cores are needed for training

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)`."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    def rows(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns examples for evaluation, without augmentation.

        Args:
          index: the indices of the examples, `(rows,)`.

        Returns:
          Images uint8 `(rows, height, width, channels)` and labels int32 `(rows,)`.
        """
        return self.images[index], self.labels[index]

    def training_reader(self) -> Reader:
        """Returns a function that reads training examples in the graph of a tf.data pipeline; it ignores the keys."""
        images, labels = tf.constant(self.images), tf.constant(self.labels)
        return lambda index, keys: (tf.gather(images, index), tf.gather(labels, index))

    def taking(self, index: np.ndarray) -> "Split":
        """Returns a copy of the examples at `index`."""
        return Split(self.images[index], self.labels[index])

    def with_labels_moved(self, by: np.ndarray, num_classes: int) -> "Split":
        """Returns the same images, with each label `y` replaced by `y + by`, modulo the number of classes."""
        return Split(self.images, ((self.labels + by) % num_classes).astype(np.int32))


Examples = Split | Records
"""Images and labels that are read in any order: in memory (`Split`), or one by one from disk (`Records`)."""


_READ = 16  # the number of records on disk that are hashed; reading all of them would take hours


@dataclass(frozen=True)
class Dataset:
    """A classification problem.

    Attributes:
      train: the examples that the parameters are fitted to.
      test: the examples that the error is reported on.
      num_classes: the number of classes; labels are in `[0, num_classes)`.
      mean: the mean of each channel of the training images, in units of the stored integers, `(channels,)`.
      std: the standard deviation of each channel, in the same units, `(channels,)`.
      crop_padding: the largest shift of an image in pixels.
      flip: whether a mirrored image belongs to the same class.
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
        """Returns a digest of the training and test examples, in order, and of the attributes of the data set.

        All examples in memory are hashed. For records on disk, the digest covers their indices, their label noise, and
        some of the records.
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
    """Computes the mean and the standard deviation of each channel of uint8 images, float32, `(channels,)`.

    Pixels are counted by value, so the result is exact up to the final rounding, and no floating-point copy of the
    images is made.
    """
    values = np.arange(256.0)
    counts = np.stack([_counts(images[..., channel]) for channel in range(images.shape[-1])])
    mean = counts @ values / counts.sum(1)
    variance = (counts * (values - mean[:, None]) ** 2).sum(1) / counts.sum(1)
    return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)


def _counts(pixels: np.ndarray) -> np.ndarray:
    """Counts each of the 256 values, one image at a time because `bincount` copies its argument into int64."""
    return sum((np.bincount(image.ravel(), minlength=256) for image in pixels), np.zeros(256, np.int64))


_LABEL_NOISE = 1  # separates this use of the seed from others


def with_noise(train: Examples, num_classes: int, fraction: float, seed: int) -> Examples:
    """Returns the examples with `round(fraction · n)` wrong labels, each drawn uniformly from the other classes.

    The seed determines which labels are wrong and what they become. The wrong labels of a smaller fraction are a subset
    of those of a larger one.

    Args:
      train: n examples.
      num_classes: the number of classes; labels are in `[0, num_classes)`.
      fraction: the fraction of wrong labels, at least 0 and below 1.
      seed: the seed of the run.
    """
    draws = np.random.default_rng((seed, _LABEL_NOISE))
    in_order = draws.permutation(len(train))
    moved_by = draws.integers(1, num_classes, len(train), dtype=np.int32)
    moved_by[in_order[round(fraction * len(train)) :]] = 0
    return train.with_labels_moved(moved_by, num_classes)


_VALIDATION = 2  # separates this use of the seed from others


def held_out(train: Examples, fraction: float, seed: int) -> tuple[Examples, Examples]:
    """Holds out `round(fraction · n)` examples, chosen by the seed; both parts keep the original order.

    Args:
      train: n examples.
      fraction: the fraction to hold out, above 0 and below 1.
      seed: the seed of the run.

    Returns:
      The remaining examples, and the held-out examples.

    Raises:
      ValueError: If one of the two parts is empty.
    """
    size = round(fraction * len(train))
    if not 0 < size < len(train):
        held = f"validation is {fraction}, which holds out {size} of {len(train)} training examples"
        raise ValueError(f"{held}: give a fraction that leaves examples in both parts.")
    in_order = np.random.default_rng((seed, _VALIDATION)).permutation(len(train))
    return train.taking(np.sort(in_order[size:])), train.taking(np.sort(in_order[:size]))
