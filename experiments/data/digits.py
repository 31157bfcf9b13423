"""The embedded data set: 1,797 real 8x8 scans of handwritten digits, in scikit-learn's wheel.

The scans stand in the order of their 13 writers. The split keeps them in it, on a ring: 512 training images in a
row, then 285 that nobody sees, then 1,000 test images. So most of the test is the hands of other people, which leaves
plain SGD an error of five to seven per cent, where a shuffled split of the same sizes leaves it half of that and
little to compare. 512 is a whole number of batches of every size up to 512. The seed turns the ring by the golden
section, so that the parts of successive seeds overlap as little as they can.
"""

import numpy as np

from experiments.data.dataset import Dataset, Split, channel_moments

TRAIN, TEST = 512, 1000
_ROTATION = 1111  # 1,797 times the golden section, rounded


def load(seed: int) -> Dataset:
    """The split of `seed`."""
    try:
        from sklearn.datasets import load_digits  # noqa: PLC0415 - only this data set needs scikit-learn
    except ModuleNotFoundError as error:
        raise ValueError(
            "data set 'digits' is not there: it comes with scikit-learn, so install the extra, sam_optax[experiments]."
        ) from error
    images, labels = load_digits(return_X_y=True)
    images, labels = images.astype(np.uint8).reshape(-1, 8, 8, 1), labels.astype(np.int32)
    ring = np.roll(np.arange(len(labels)), -seed * _ROTATION % len(labels))
    train = Split(images[ring[:TRAIN]], labels[ring[:TRAIN]])
    test = Split(images[ring[-TEST:]], labels[ring[-TEST:]])
    mean, std = channel_moments(train.images)
    return Dataset(train, test, num_classes=10, mean=mean, std=std, crop_padding=1, flip=False)
