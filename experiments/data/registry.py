"""The data sets by name."""

from collections.abc import Callable

from experiments.data import catalogue, digits
from experiments.data.dataset import Dataset
from experiments.data.location import Location

_EMBEDDED: dict[str, Callable[[int], Dataset]] = {"digits": digits.load}

NAMES = (*_EMBEDDED, *catalogue.ENTRIES)


def load(name: str, seed: int, location: Location = Location()) -> Dataset:
    """The data set `name`; where it has no test part of its own, the seed chooses one.

    Args:
      name: of `NAMES`.
      seed: of the run.
      location: where data sets that are not embedded are, or will be.

    Raises:
      ValueError: If there is no such data set, or if its data are neither there nor to be had.
    """
    if name in _EMBEDDED:
        return _EMBEDDED[name](seed)
    if name in catalogue.ENTRIES:
        return catalogue.load(name, location)
    raise ValueError(f"dataset is {name!r}: choose one of {', '.join(NAMES)}.")
