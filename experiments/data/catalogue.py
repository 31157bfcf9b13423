"""The data sets that TensorFlow Datasets (TFDS) gets, reads and splits, and what it does not say of them."""

import functools
from dataclasses import dataclass
from typing import Any

from experiments.data.dataset import Dataset, channel_moments
from experiments.data.location import Location


@dataclass(frozen=True)
class Entry:
    """What TFDS does not say of a data set.

    Attributes:
      flip: whether a mirrored image shows the same thing.
      crop_padding: pixels that an image may be shifted by.
      test: the part that errors are reported on.
      in_memory: whether all images fit there, and have one size; the others are read one by one, and cut to one size
        as they are read, in training at random: so nothing is left to shift.
      advice: another way to get the data, as a sentence.
    """

    flip: bool
    crop_padding: int = 4
    test: str = "test"
    in_memory: bool = True
    advice: str = ""


_DEBIAN = "On Debian and Ubuntu, `make data-fashion-mnist` prepares it from the package dataset-fashion-mnist."
_REGISTER = "They are given to those who register at https://image-net.org/download-images."

ENTRIES = {
    "cifar10": Entry(flip=True),
    "cifar100": Entry(flip=True),
    "fashion_mnist": Entry(flip=True, advice=_DEBIAN),
    "mnist": Entry(flip=False),
    "svhn_cropped": Entry(flip=False),
    "tiny_imagenet": Entry(flip=True, test="validation"),
    "imagenet2012": Entry(flip=True, crop_padding=0, test="validation", in_memory=False, advice=_REGISTER),
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
        from experiments.data import preparation  # noqa: PLC0415 - the embedded data set needs no TFDS
    except ImportError as error:
        raise ValueError(f"data set {name!r} needs more ({error}): install sam_optax[experiments].") from error
    entry = ENTRIES[name]
    if entry.in_memory:
        return _in_memory(preparation.prepare(name, location, entry.advice), entry)
    return _on_disk(preparation.prepare(name, location, entry.advice, preparation.BY_INDEX), entry)


def _in_memory(builder: Any, entry: Entry) -> Dataset:
    from experiments.data import reading  # noqa: PLC0415 - likewise

    train, test = reading.read(builder, "train"), reading.read(builder, entry.test)
    mean, std = channel_moments(train.images)
    return Dataset(train, test, _classes(builder), mean, std, entry.crop_padding, entry.flip)


def _on_disk(builder: Any, entry: Entry) -> Dataset:
    from experiments.data import imagenet, reading  # noqa: PLC0415 - likewise

    train, test = reading.opened(builder, "train"), reading.opened(builder, entry.test)
    return Dataset(train, test, _classes(builder), imagenet.MEAN, imagenet.STD, entry.crop_padding, entry.flip)


def _classes(builder: Any) -> int:
    return builder.info.features["label"].num_classes
