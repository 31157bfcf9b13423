"""The data sets by name."""

from collections.abc import Callable

from experiments.data import digits
from experiments.data.dataset import Dataset

_LOADERS: dict[str, Callable[[int], Dataset]] = {"digits": digits.load}

NAMES = tuple(_LOADERS)


def load(name: str, seed: int) -> Dataset:
    """The data set `name`; where it has no test part of its own, the seed chooses one.

    Raises:
      ValueError: If there is no such data set, or if its data is not there.
    """
    if name not in _LOADERS:
        raise ValueError(f"dataset is {name!r}: choose one of {', '.join(NAMES)}.")
    return _LOADERS[name](seed)
