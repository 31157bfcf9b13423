"""A selection of a study's runs: some by name, or one of several parts of about equal cost."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from experiments.config.checks import MOST_RUNS
from experiments.studying.cell import Cell


@dataclass(frozen=True)
class Selection:
    """Which runs of a study are done.

    Attributes:
      only: Runs whose folder has one of these names, in which * stands for anything: 'sam-*-0'; left out, all.
      part: One of several parts of about equal cost, for the jobs of a cluster: 2/8 is the second of eight.
    """

    only: tuple[str, ...] = ()
    part: str = "1/1"

    def __post_init__(self) -> None:
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", self.part)
        if not found or not 1 <= int(found[1]) <= int(found[2]) <= MOST_RUNS:
            raise ValueError(f"part is {self.part!r}: give one of several, as 2/8, of at most {MOST_RUNS}.")

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left out."""
        return self == Selection()

    def of(self, cells: list[Cell], cost: Callable[[Cell], float]) -> list[Cell]:
        """The runs that are selected, in their order.

        Runs go to the parts one by one, the dearest first, each to the part that has the least to do: the same on every
        machine, whatever was run already.

        Args:
          cells: all runs of the study.
          cost: of a run, in any unit.

        Raises:
          ValueError: If there are none.
        """
        named = [cell for cell in cells if not self.only or any(fnmatchcase(cell.folder.name, x) for x in self.only)]
        if not named:
            raise ValueError(f"only is {self.only}: no run has such a name, they are called {_examples(cells)}.")
        index, parts = map(int, self.part.split("/"))
        loads, mine = [0.0] * parts, set()
        for cell in sorted(named, key=cost, reverse=True):
            least = loads.index(min(loads))
            loads[least] += cost(cell)
            if least == index - 1:
                mine.add(cell.folder)
        return [cell for cell in named if cell.folder in mine]


def _examples(cells: list[Cell]) -> str:
    return ", ".join(cell.folder.name for cell in cells[:3]) + ", ..."
