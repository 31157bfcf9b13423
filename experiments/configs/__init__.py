"""The paper's rows, and the studies on data that this machine has: a file each."""

import importlib
import pkgutil

from experiments.config import check_choice
from experiments.configs.row import Published, Row

_SHARED = ("recipes", "row")

NAMES = tuple(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _SHARED)


def load(name: str) -> Row:
    """The row of one of `NAMES`.

    Raises:
      ValueError: If there is no such row.
    """
    check_choice("config", name, NAMES)
    return importlib.import_module(f"{__name__}.{name}").ROW


__all__ = ["NAMES", "Published", "Row", "load"]
