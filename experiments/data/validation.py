"""A validation part, held out of the training examples: what settings are chosen by, and not by the test set."""

import numpy as np

from experiments.data.dataset import Examples

_NAME = 2  # of this use of the seed


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
    in_order = np.random.default_rng((seed, _NAME)).permutation(len(train))
    return train.taking(np.sort(in_order[size:])), train.taking(np.sort(in_order[:size]))
