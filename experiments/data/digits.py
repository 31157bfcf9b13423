"""The embedded data set: 1,797 real 8x8 scans of handwritten digits, in scikit-learn's wheel.

The scans stand in the order of their writers, so they are shuffled once, always alike, and laid on a ring: 512
training images in a row, then 285 that nobody sees, then 1,000 test images. 512 was chosen because it leaves plain SGD,
at a constant batch of 128 and after the demo's 25 epochs, an error of about 5%, so that there is something to compare,
and because it is a whole number of batches of each size of the study; 1,000 test images give a binomial deviation of
0.7 points there. The seed turns the ring by the golden section, so that successive seeds share as little as they can.
"""

import functools

import numpy as np

from experiments.data.dataset import Dataset, Split, channel_moments

TRAIN, TEST = 512, 1000
_ROTATION = 1111  # 1,797 times the golden section, rounded


def load(seed: int) -> Dataset:
    """The split of `seed`."""
    images, labels = _scans()
    turned = np.roll(np.arange(len(labels)), -seed * _ROTATION % len(labels))
    train = Split(images[turned[:TRAIN]], labels[turned[:TRAIN]])
    test = Split(images[turned[-TEST:]], labels[turned[-TEST:]])
    mean, std = channel_moments(train.images)
    return Dataset(train, test, num_classes=10, mean=mean, std=std, crop_padding=1, flip=False)


@functools.cache
def _scans() -> tuple[np.ndarray, np.ndarray]:
    """All images and labels, in the order of the ring."""
    try:
        from sklearn.datasets import load_digits  # noqa: PLC0415 - only this data set needs scikit-learn
    except ImportError as error:
        raise ValueError(
            f"data set 'digits' is not there ({error}): it is in scikit-learn, install sam_optax[experiments]."
        ) from error
    images, labels = load_digits(return_X_y=True)
    ring = np.random.default_rng(0).permutation(len(labels))
    return images[ring].astype(np.uint8).reshape(-1, 8, 8, 1), labels[ring].astype(np.int32)
