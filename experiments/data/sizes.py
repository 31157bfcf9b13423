"""The sizes of data sets, and noise with the shapes of a data set."""

import numpy as np

from experiments.data.catalogue import SHIFT, SIZES
from experiments.data.dataset import Dataset, Size, Split
from experiments.data.user_images import UserImageSettings, count_train, is_user_images, load_user_images


def size_of(name: str, user_images: UserImageSettings = UserImageSettings()) -> Size:
    """Returns the size of a data set. Data of one's own are read for this.

    Args:
      name: a key of `SIZES`, or the name of a file or folder of one's own.
      user_images: how data of one's own are read.

    Raises:
      ValueError: If data of one's own cannot be read.
    """
    if not is_user_images(name):
        return SIZES[name]
    dataset = load_user_images(name, user_images)
    return Size(len(dataset.train), dataset.num_classes, dataset.image_shape)


def stored_examples(name: str) -> int:
    """Returns the number of training examples that a data set stores. The images are not read.

    Raises:
      ValueError: If data of one's own cannot be read.
    """
    return count_train(name) if is_user_images(name) else SIZES[name].train


def synthetic(name: str, examples: int, seed: int = 0, user_images: UserImageSettings = UserImageSettings()) -> Dataset:
    """Returns a data set of noise with the shapes of a real one, for timing.

    Its images are shifted and mirrored, so a step takes about as long as on the real data.

    Args:
      name: a key of `SIZES`, or the name of a file or folder of one's own.
      examples: the number of training examples, and of test examples.
      seed: the seed of the noise.
      user_images: how data of one's own are read.

    Raises:
      ValueError: If data of one's own cannot be read.
    """
    _, num_classes, image_shape = size_of(name, user_images)
    bits = np.random.default_rng(seed)
    images = bits.integers(0, 256, (examples, *image_shape)).astype(np.uint8)
    part = Split(images, bits.integers(0, num_classes, examples).astype(np.int32))
    channels = np.ones(image_shape[-1], np.float32)
    return Dataset(part, part, num_classes, 127.5 * channels, 73.9 * channels, SHIFT, flip=True)
