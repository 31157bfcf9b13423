"""The data sets that TensorFlow Datasets (TFDS) knows how to get, read and split."""

import functools
from dataclasses import dataclass

from experiments.data.dataset import Dataset, channel_moments
from experiments.data.location import Location


@dataclass(frozen=True)
class Entry:
    """What TFDS does not say of a data set.

    Attributes:
      flip: whether a mirrored image shows the same thing.
      crop_padding: pixels that an image may be shifted by.
      advice: another way to get the data, as a sentence.
    """

    flip: bool
    crop_padding: int = 4
    advice: str = ""


_DEBIAN = "On Debian and Ubuntu, `make data-fashion-mnist` prepares it from the package dataset-fashion-mnist."

ENTRIES = {
    "cifar10": Entry(flip=True),
    "cifar100": Entry(flip=True),
    "fashion_mnist": Entry(flip=True, advice=_DEBIAN),
    "mnist": Entry(flip=False),
    "svhn_cropped": Entry(flip=False),
}


@functools.cache  # decoding takes seconds, and a study reads its data before every run
def load(name: str, location: Location) -> Dataset:
    """The data set `name` with TFDS's own training and test parts, prepared where it is not there yet.

    Args:
      name: of `ENTRIES`.
      location: the folders to look in.

    Returns:
      The data set, its examples in the order in which TFDS stored them. Its arrays are shared: they cannot be written.

    Raises:
      ValueError: If the data are neither there nor to be had, or if they are damaged.
    """
    try:
        from experiments.data import preparation, reading  # noqa: PLC0415 - the embedded data set needs no TFDS
    except ImportError as error:
        raise ValueError(f"data set {name!r} needs more ({error}): install sam_optax[experiments].") from error
    entry = ENTRIES[name]
    builder = preparation.prepare(name, location, entry.advice)
    train, test = reading.read(builder, "train"), reading.read(builder, "test")
    mean, std = channel_moments(train.images)
    classes = builder.info.features["label"].num_classes
    return Dataset(train, test, classes, mean, std, entry.crop_padding, entry.flip)
