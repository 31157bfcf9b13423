"""The data sets by name, and the embedded digits: 1,797 real 8x8 scans in scikit-learn's wheel.

The scans are in the order of their writers, so they are shuffled once, always alike, and laid on a ring: 512
training images in a row, then 285 that nobody sees, then 1,000 test images. 512 was chosen because it gives plain SGD,
at a constant batch of 128 and after the demo's 25 epochs, an error of about 5%, so that there is something to compare,
and because it is a whole number of batches of each size of the study; 1,000 test images give a binomial deviation of
0.7 points there. The seed turns the ring by the golden section, so that successive seeds share as little as they can.
"""

import functools
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from experiments.data import catalogue
from experiments.data.catalogue import Location
from experiments.data.dataset import Dataset, Split, channel_moments, held_out, with_noise

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
NAMES = (*_EMBEDDED, *catalogue.ENTRIES)


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
    if name in catalogue.ENTRIES:
        return catalogue.load(name, location)
    raise ValueError(f"dataset is {name!r}: choose one of {', '.join(NAMES)}.")
