"""What a data set is: images, labels, and how its images may be moved without changing what they show."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Split:
    """Images with their labels.

    Attributes:
      images: uint8, `(examples, height, width, channels)`.
      labels: int32, `(examples,)`.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


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

    train: Split
    test: Split
    num_classes: int
    mean: np.ndarray
    std: np.ndarray
    crop_padding: int
    flip: bool

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)`."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels


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
