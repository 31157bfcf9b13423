"""How large the data sets are, for what is planned or timed before any data are there."""

from typing import NamedTuple

import numpy as np

from experiments.data.dataset import Dataset, Split


class Size(NamedTuple):
    """How large a data set is.

    Attributes:
      train: how many training examples it has.
      num_classes: labels run from 0 to below it.
      image_shape: `(height, width, channels)`, as the network gets them.
    """

    train: int
    num_classes: int
    image_shape: tuple[int, int, int]


SIZES = {
    "digits": Size(512, 10, (8, 8, 1)),
    "cifar10": Size(50_000, 10, (32, 32, 3)),
    "cifar100": Size(50_000, 100, (32, 32, 3)),
    "fashion_mnist": Size(60_000, 10, (28, 28, 1)),
    "mnist": Size(60_000, 10, (28, 28, 1)),
    "svhn_cropped": Size(73_257, 10, (32, 32, 3)),
    "tiny_imagenet": Size(100_000, 200, (64, 64, 3)),
    "imagenet2012": Size(1_281_167, 1000, (224, 224, 3)),
}


def made_up(name: str, examples: int, seed: int = 0) -> Dataset:
    """A data set of noise, of the shapes of a real one, shifted and mirrored: its steps take about as long.

    Args:
      name: of `SIZES`.
      examples: how many it has, to train on and to test on.
      seed: of the noise.
    """
    _, num_classes, image_shape = SIZES[name]
    bits = np.random.default_rng(seed)
    images = bits.integers(0, 256, (examples, *image_shape)).astype(np.uint8)
    part = Split(images, bits.integers(0, num_classes, examples).astype(np.int32))
    channels = np.ones(image_shape[-1], np.float32)
    return Dataset(part, part, num_classes, 127.5 * channels, 73.9 * channels, crop_padding=4, flip=True)
