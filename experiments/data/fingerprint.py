"""What tells one data set from another: a run that goes on has to find the examples that it had."""

import hashlib
from typing import Any

import numpy as np

from experiments.data.dataset import Dataset, Examples, Split
from experiments.data.records import Records

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
