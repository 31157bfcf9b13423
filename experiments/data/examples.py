"""The examples of a run: with label noise, without a validation part, and their fingerprint.

Label noise is symmetric. The validation part is held out of the training examples to choose settings by. A run that
resumes has to find the examples that it had before: the fingerprint identifies them.
"""

import hashlib
from typing import Any

import numpy as np

from experiments.data.dataset import Dataset, Examples, Split
from experiments.data.imagenet import Records

_LABEL_NOISE = 1  # of this use of the seed


def with_noise(train: Examples, num_classes: int, fraction: float, seed: int) -> Examples:
    """The examples with `round(fraction · n)` wrong labels, each drawn uniformly from the other classes.

    The seed says which, and which label they get: those of a smaller fraction are among those of a larger one, with the
    same wrong labels.

    Args:
      train: n examples.
      num_classes: labels run from 0 to below it.
      fraction: of the labels, at least 0 and below 1.
      seed: of the run.
    """
    lots = np.random.default_rng((seed, _LABEL_NOISE))
    in_order = lots.permutation(len(train))
    moved_by = lots.integers(1, num_classes, len(train), dtype=np.int32)
    moved_by[in_order[round(fraction * len(train)) :]] = 0
    return train.with_labels_moved(moved_by, num_classes)


_VALIDATION = 2  # of this use of the seed


def held_out(train: Examples, fraction: float, seed: int) -> tuple[Examples, Examples]:
    """`round(fraction · n)` of the examples taken out by the seed; both parts in their first order.

    Args:
      train: n examples.
      fraction: to hold out, above 0 and below 1.
      seed: of the run.

    Returns:
      The rest, and what was held out.

    Raises:
      ValueError: If one of them is empty.
    """
    size = round(fraction * len(train))
    if not 0 < size < len(train):
        raise ValueError(
            f"validation is {fraction}, which holds out {size} of {len(train)} training examples: give a fraction that "
            "leaves some on both sides."
        )
    in_order = np.random.default_rng((seed, _VALIDATION)).permutation(len(train))
    return train.taking(np.sort(in_order[size:])), train.taking(np.sort(in_order[:size]))


_READ = 16  # records of a data set that stays on disk: to read all of them would take hours


def fingerprint(dataset: Dataset) -> str:
    """A digest of the training and the test examples, in their order, and of what is known of their images.

    Of examples in memory all are digested; of records on disk their number, their labels' noise, and some of them.
    """
    digest = hashlib.sha256(repr((dataset.num_classes, dataset.crop_padding, dataset.flip)).encode())
    for array in (dataset.mean, dataset.std):
        _add(digest, array)
    for examples in (dataset.train, dataset.test):
        _add_examples(digest, examples)
    return digest.hexdigest()


def _add_examples(digest: Any, examples: Examples) -> None:
    if isinstance(examples, Split):
        _add(digest, examples.images)
        _add(digest, examples.labels)
    elif isinstance(examples, Records):
        some = np.linspace(0, len(examples) - 1, min(_READ, len(examples))).astype(np.int64)
        _add(digest, examples.index)
        _add(digest, examples.moved_by)
        for record in examples.source.__getitems__(examples.index[some].tolist()):
            digest.update(hashlib.sha256(record).digest())
    else:
        raise TypeError(f"{type(examples).__name__} has no fingerprint: give one to it here.")


def _add(digest: Any, array: np.ndarray) -> None:
    digest.update(repr((array.shape, array.dtype.str)).encode())
    digest.update(np.ascontiguousarray(array))
