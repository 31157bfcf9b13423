"""The data sets by name: those of TensorFlow Datasets (TFDS), the embedded digits, and images of one's own.

The sizes are listed here so that runs can be planned and timed before any data are prepared.

The digits are 1,797 real 8x8 scans in scikit-learn's wheel, ordered by writer. They are shuffled once, always with the
same permutation, and arranged in a ring: 512 consecutive training images, then 285 unused images, then 1,000 test
images. With 512 training images, plain SGD has an error of about 5% at a constant batch size of 128 after the 25 epochs
of the demo, so there is room for improvement. Also, 512 is a multiple of each batch size of the study. At that error,
1,000 test images give a binomial standard deviation of 0.7 percentage points. The seed rotates the ring by a multiple
of the golden section, so that the splits of successive seeds overlap as little as possible.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from experiments.data import imagenet
from experiments.data.dataset import Dataset, Examples, Size, Split, channel_moments, held_out, with_noise
from experiments.data.location import Location
from experiments.data.prepared_arrays import read_prepared_arrays
from experiments.data.user_images import FORMS, UserImageSettings, is_user_images, load_user_images

SHIFT = 4
"""The largest shift in pixels of an image in memory."""


@dataclass(frozen=True)
class Entry:
    """Properties of a data set that TFDS does not provide, and its size, which is needed before the data are prepared.

    Attributes:
      size: the size of the data set.
      flip: whether a mirrored image belongs to the same class.
      test: the split that errors are reported on.
      in_memory: whether all images fit into memory and have equal sizes. Images of other data sets are read one by one
        and cropped to one size when they are read, at random in training, so they are not shifted again.
      advice: a sentence on how else to obtain the data.
    """

    size: Size
    flip: bool = True
    test: str = "test"
    in_memory: bool = True
    advice: str = ""


_DEBIAN = "On Debian and Ubuntu, `make data-fashion-mnist` prepares it from the package dataset-fashion-mnist."
_CIFAR = "`make data-{} FROM=...` prepares it from its archive or its unpacked folder."
_REGISTER = "They are available after registration at https://image-net.org/download-images."

ENTRIES = {
    "cifar10": Entry(Size(50_000, 10, (32, 32, 3)), advice=_CIFAR.format("cifar10")),
    "cifar100": Entry(Size(50_000, 100, (32, 32, 3)), advice=_CIFAR.format("cifar100")),
    "fashion_mnist": Entry(Size(60_000, 10, (28, 28, 1)), advice=_DEBIAN),
    "mnist": Entry(Size(60_000, 10, (28, 28, 1)), flip=False),
    "svhn_cropped": Entry(Size(73_257, 10, (32, 32, 3)), flip=False),
    "tiny_imagenet": Entry(Size(100_000, 200, (64, 64, 3)), test="validation"),
    "imagenet2012": Entry(Size(1_281_167, 1000, (224, 224, 3)), test="validation", in_memory=False, advice=_REGISTER),
}

SIZES = {"digits": Size(512, 10, (8, 8, 1))} | {name: entry.size for name, entry in ENTRIES.items()}


@functools.cache  # decoding takes seconds, and a study loads its data before every run
def load_prepared(name: str, location: Location, *, only_tfds: bool = False) -> Dataset:
    """Loads the data set `name` with the training and test splits of TFDS, and prepares it first if necessary.

    A data set in memory is read from NumPy arrays if they exist in the folder of prepared data.

    Args:
      name: a key of `ENTRIES`.
      location: the folders to look in.
      only_tfds: whether NumPy arrays are ignored.

    Returns:
      The data set, with examples in the order in which TFDS stores them. Its arrays are shared and read-only.

    Raises:
      ValueError: If the data do not exist and cannot be prepared, or if they are damaged.
    """
    entry = ENTRIES[name]
    has_arrays = entry.in_memory and not only_tfds
    parts = read_prepared_arrays(location.folder, name, entry.size) if has_arrays else None
    train, test = (parts["train"], parts["test"]) if parts else _read_tfds(name, location, entry)
    mean, std = channel_moments(train.images) if isinstance(train, Split) else (imagenet.MEAN, imagenet.STD)
    return Dataset(train, test, entry.size.num_classes, mean, std, SHIFT if entry.in_memory else 0, entry.flip)


def _read_tfds(name: str, location: Location, entry: Entry) -> tuple[Examples, Examples]:
    """Returns the training and the test examples that TFDS prepares."""
    try:
        from experiments.data import preparation  # noqa: PLC0415 - the other data need no TFDS
    except ImportError as error:
        needed = f"data set {name!r} needs a package ({error}): install sam_optax[experiments]"
        copied = f", or copy {name}.npz from another machine into {location.folder}" if entry.in_memory else ""
        raise ValueError(f"{needed}{copied}.") from error
    read, file_format = (preparation.read, None) if entry.in_memory else (preparation.opened, preparation.BY_INDEX)
    builder: Any = preparation.prepare(name, location, entry.advice, file_format)
    return read(builder, "train"), read(builder, entry.test)


TRAIN, TEST = 512, 1000
_ROTATION = 1111  # 1,797 · 0.618 (the golden section), rounded


def load_digits(seed: int) -> Dataset:
    """Returns the digits, split into training and test examples by `seed`."""
    images, labels = _scans()
    turned = np.roll(np.arange(len(labels)), -seed * _ROTATION % len(labels))
    train = Split(images[turned[:TRAIN]], labels[turned[:TRAIN]])
    test = Split(images[turned[-TEST:]], labels[turned[-TEST:]])
    mean, std = channel_moments(train.images)
    return Dataset(train, test, num_classes=10, mean=mean, std=std, crop_padding=1, flip=False)


@functools.cache
def _scans() -> tuple[np.ndarray, np.ndarray]:
    """Returns all images and labels, in the order of the ring."""
    try:
        from sklearn.datasets import load_digits  # noqa: PLC0415 - only this data set needs scikit-learn
    except ImportError as error:
        raise ValueError(f"data set 'digits' needs scikit-learn ({error}): install sam_optax[experiments].") from error
    images, labels = map(np.asarray, load_digits(return_X_y=True))
    ring = np.random.default_rng(0).permutation(len(labels))
    return images[ring].astype(np.uint8).reshape(-1, 8, 8, 1), labels[ring].astype(np.int32)


_EMBEDDED: dict[str, Callable[[int], Dataset]] = {"digits": load_digits}

SPLIT_BY_SEED = tuple(_EMBEDDED)
NAMES = (*_EMBEDDED, *ENTRIES)


def load(
    name: str,
    seed: int,
    location: Location = Location(),
    user_images: UserImageSettings = UserImageSettings(),
    *,
    split: int | None = None,
    train_examples: int | None = None,
    validation: float = 0.0,
    label_noise: float = 0.0,
) -> Dataset:
    """Loads the data set `name`. If it has no fixed test split, the seed chooses one.

    Args:
      name: an element of `NAMES`, or the name of a file or folder of one's own.
      seed: the seed of the run.
      location: the folders where data sets that are not embedded are, or will be prepared.
      user_images: how data of one's own are read.
      split: the seed that chooses the test split of a data set without a fixed one; the default is `seed`.
      train_examples: the number of training examples that the run uses, the first ones; the default is all. A data set
        with fewer examples is used as a whole.
      validation: the fraction of these training examples that is held out, chosen by the seed. The held-out examples
        replace the test split, which is not used at all. Their labels are not corrupted.
      label_noise: the fraction of the remaining training labels that are wrong. Each wrong label is drawn from the
        other classes with equal probabilities, by the seed (symmetric noise). Test labels are not corrupted.

    Returns:
      The data set. Its mean and standard deviation are those of the remaining training images; for ImageNet they are
      the published values.

    Raises:
      ValueError: If the name is unknown, if the data do not exist and cannot be prepared, if a number is out of range,
        or if `validation` leaves no example to train on or holds out none.
    """
    if train_examples is not None and train_examples < 1:
        raise ValueError(f"train_examples is {train_examples}: give an integer of at least 1, or omit it.")
    for fraction, value in (("validation", validation), ("label_noise", label_noise)):
        if not 0 <= value < 1:
            raise ValueError(f"{fraction} is {value}: give a number of at least 0 and below 1.")
    stored = (name, seed if split is None else split, location, user_images)
    if not (train_examples or validation or label_noise):
        return _stored(*stored)
    return _parted(stored, seed, train_examples, validation, label_noise)


@functools.lru_cache(maxsize=2)  # images are copied, and a study loads its data several times per run
def _parted(
    stored: tuple[str, int, Location, UserImageSettings],
    seed: int,
    train_examples: int | None,
    validation: float,
    label_noise: float,
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


def _stored(name: str, seed: int, location: Location, user_images: UserImageSettings) -> Dataset:
    if name in _EMBEDDED:
        return _EMBEDDED[name](seed)
    if name in ENTRIES:
        return load_prepared(name, location)
    if is_user_images(name):
        return load_user_images(name, user_images)
    raise ValueError(f"dataset is {name!r}: choose one of {', '.join((*NAMES, *FORMS))}.")
