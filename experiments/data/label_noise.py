"""Symmetric label noise: a fraction of the training labels is wrong, on purpose."""

import numpy as np

from experiments.data.dataset import Examples

_NAME = 1  # of this use of the seed


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
    lots = np.random.default_rng((seed, _NAME))
    in_order = lots.permutation(len(train))
    moved_by = lots.integers(1, num_classes, len(train), dtype=np.int32)
    moved_by[in_order[round(fraction * len(train)) :]] = 0
    return train.with_labels_moved(moved_by, num_classes)
