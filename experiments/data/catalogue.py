"""The data sets by name: those of TensorFlow Datasets (TFDS), and the embedded digits.

The sizes serve planning and timing before any data are there. The digits are 1,797 real 8x8 scans in scikit-learn's
wheel, in the order of their writers, so they are shuffled once, always alike, and laid on a ring: 512 training images
in a row, then 285 that nobody sees, then 1,000 test images. 512 was chosen because it gives plain SGD, at a constant
batch of 128 and after the demo's 25 epochs, an error of about 5%, so that there is something to compare, and because it
is a whole number of batches of each size of the study; 1,000 test images give a binomial deviation of 0.7 points there.
The seed turns the ring by the golden section, so that successive seeds share as little as they can.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.data import imagenet
from experiments.data.dataset import Dataset, Split, channel_moments, held_out, with_noise


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
def load_prepared(name: str, location: Location) -> Dataset:
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


TRAIN, TEST = 512, 1000
_ROTATION = 1111  # 1,797 times the golden section, rounded


def load_digits(seed: int) -> Dataset:
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
        raise ValueError(f"data set 'digits' needs scikit-learn ({error}): install sam_optax[experiments].") from error
    images, labels = load_digits(return_X_y=True)
    ring = np.random.default_rng(0).permutation(len(labels))
    return images[ring].astype(np.uint8).reshape(-1, 8, 8, 1), labels[ring].astype(np.int32)


_EMBEDDED: dict[str, Callable[[int], Dataset]] = {"digits": load_digits}

SPLIT_BY_SEED = tuple(_EMBEDDED)
NAMES = (*_EMBEDDED, *ENTRIES)


def load(
    name: str,
    seed: int,
    location: Location = Location(),
    *,
    split: int | None = None,
    train_examples: int | None = None,
    validation: float = 0.0,
    label_noise: float = 0.0,
) -> Dataset:
    """The data set `name`; where it has no test part of its own, the seed chooses one.

    Args:
      name: of `NAMES`.
      seed: of the run.
      location: where data sets that are not embedded are, or will be.
      split: of a data set whose test part a seed chooses, that of this seed; left out, of `seed`.
      train_examples: how many of the training examples are there for the run, the first ones; all, where there are
        fewer.
      validation: the fraction of those that is held out, by the seed. It takes the place of the test part, which is
        left out altogether; its labels are right.
      label_noise: the fraction of the labels left to train on that are wrong: each drawn by the seed from the other
        classes, all equally likely (symmetric noise). The test part stays right.

    Returns:
      The data set. Mean and standard deviation are those of the images left to train on; of ImageNet the published
      ones.

    Raises:
      ValueError: If there is no such data set, if its data are neither there nor to be had, or if a number is none that
        leaves examples.
    """
    if train_examples is not None and train_examples < 1:
        raise ValueError(f"train_examples is {train_examples}: give an integer of at least 1, or leave it out.")
    for fraction, value in (("validation", validation), ("label_noise", label_noise)):
        if not 0 <= value < 1:
            raise ValueError(f"{fraction} is {value}: give a number of at least 0 and below 1.")
    stored = (name, seed if split is None else split, location)
    if not (train_examples or validation or label_noise):
        return _stored(*stored)
    return _parted(stored, seed, train_examples, validation, label_noise)


@functools.lru_cache(maxsize=2)  # images are copied, and a study looks at its data several times a run
def _parted(
    stored: tuple[str, int, Location], seed: int, train_examples: int | None, validation: float, label_noise: float
) -> Dataset:
    dataset = _stored(*stored)
    train, test = dataset.train, dataset.test
    if train_examples is not None and train_examples < len(train):
        train = train.taking(np.arange(train_examples))
    if validation:
        train, test = held_out(train, validation, seed)
    if train is not dataset.train and isinstance(train, Split):
        mean, std = channel_moments(train.images)
        dataset = replace(dataset, mean=mean, std=std)
    if label_noise:
        train = with_noise(train, dataset.num_classes, label_noise, seed)
    return dataset if train is dataset.train else replace(dataset, train=train, test=test)


def _stored(name: str, seed: int, location: Location) -> Dataset:
    if name in _EMBEDDED:
        return _EMBEDDED[name](seed)
    if name in ENTRIES:
        return load_prepared(name, location)
    raise ValueError(f"dataset is {name!r}: choose one of {', '.join(NAMES)}.")
