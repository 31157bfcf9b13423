"""The data sets of TensorFlow Datasets (TFDS): location, sizes, splits, and what TFDS does not say of them.

The sizes serve planning and timing before any data are there.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.data import imagenet
from experiments.data.dataset import Dataset, Split, channel_moments


@dataclass(frozen=True)
class Location:
    """The folders of TensorFlow Datasets (TFDS); the embedded digits need none.

    Attributes:
      data_dir: TFDS's folder of prepared data; left out, TFDS_DATA_DIR or ~/tensorflow_datasets.
      manual_dir: The folder with archives fetched by hand, each data set's in it or in a folder of the set's name;
        left out, downloads/manual within data_dir.
    """

    data_dir: Path | None = None
    manual_dir: Path | None = None


_SHIFT = 4  # pixels that an image in memory may be shifted by


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


@dataclass(frozen=True)
class Entry:
    """What TFDS does not say of a data set, and its size, which is needed before the data are there.

    Attributes:
      size: how large it is.
      flip: whether a mirrored image shows the same thing.
      test: the part that errors are reported on.
      in_memory: whether all images fit there, and have one size; the others are read one by one, and cut to one size
        as they are read, in training at random: so nothing is left to shift.
      advice: another way to get the data, as a sentence.
    """

    size: Size
    flip: bool = True
    test: str = "test"
    in_memory: bool = True
    advice: str = ""


_DEBIAN = "On Debian and Ubuntu, `make data-fashion-mnist` prepares it from the package dataset-fashion-mnist."
_REGISTER = "They are given to those who register at https://image-net.org/download-images."

ENTRIES = {
    "cifar10": Entry(Size(50_000, 10, (32, 32, 3))),
    "cifar100": Entry(Size(50_000, 100, (32, 32, 3))),
    "fashion_mnist": Entry(Size(60_000, 10, (28, 28, 1)), advice=_DEBIAN),
    "mnist": Entry(Size(60_000, 10, (28, 28, 1)), flip=False),
    "svhn_cropped": Entry(Size(73_257, 10, (32, 32, 3)), flip=False),
    "tiny_imagenet": Entry(Size(100_000, 200, (64, 64, 3)), test="validation"),
    "imagenet2012": Entry(Size(1_281_167, 1000, (224, 224, 3)), test="validation", in_memory=False, advice=_REGISTER),
}

SIZES = {"digits": Size(512, 10, (8, 8, 1))} | {name: entry.size for name, entry in ENTRIES.items()}


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
    return Dataset(part, part, num_classes, 127.5 * channels, 73.9 * channels, _SHIFT, flip=True)


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
    read, file_format = (preparation.read, None) if entry.in_memory else (preparation.opened, preparation.BY_INDEX)
    builder: Any = preparation.prepare(name, location, entry.advice, file_format)
    train, test = read(builder, "train"), read(builder, entry.test)
    mean, std = channel_moments(train.images) if isinstance(train, Split) else (imagenet.MEAN, imagenet.STD)
    return Dataset(train, test, entry.size.num_classes, mean, std, _SHIFT if entry.in_memory else 0, entry.flip)
