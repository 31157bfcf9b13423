"""When a run saves a checkpoint."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from experiments.training.checkpoint import Checkpoints
from experiments.training.json_files import encode
from experiments.training.progress import Progress
from experiments.training.records import Notes

_EXAMPLES = 10_000
_MOST = 2**31 - 1


@dataclass(frozen=True)
class Saving:
    """How a run is saved on its way.

    Attributes:
      every: Every how many updates; left out, at the end of each epoch, of small data sets at the first end after
        another 10,000 examples.
      keep: How many saves are kept, the last ones.
    """

    every: int | None = None
    keep: int = 2

    def __post_init__(self) -> None:
        for name in ("every", "keep"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"saving.{name} is {value}: give an integer of at least 1.")
            if value is not None and value > _MOST:
                raise ValueError(f"saving.{name} is {value}: give an integer of at most {_MOST}.")

    def due(self, epoch: int, steps: range, num_examples: int) -> list[int]:
        """After which updates of an epoch a run is saved: a function of the position, so that all processes agree.

        Args:
          epoch: the number of the epoch, from 0.
          steps: its updates.
          num_examples: examples an epoch.

        Returns:
          The numbers of updates made, in order.
        """
        if self.every is None:
            is_due = (epoch + 1) * num_examples // _EXAMPLES > epoch * num_examples // _EXAMPLES
            return [steps.stop] if is_due else []
        first = (steps.start // self.every + 1) * self.every
        return list(range(first, steps.stop + 1, self.every))


class Saver:
    """Saves a run on its way, when it is due."""

    def __init__(
        self,
        saving: Saving,
        checkpoints: Checkpoints,
        *,
        num_examples: int,
        total: int,
        notes: Callable[[Progress], Notes],
    ) -> None:
        """Around the folder of the saves.

        Args:
          saving: when.
          checkpoints: where.
          num_examples: examples an epoch.
          total: updates of the run: after the last one nothing is saved, since the trained state itself follows.
          notes: what is written beside the state, of a position.
        """
        self._saving, self._checkpoints, self._notes = saving, checkpoints, notes
        self._num_examples, self._total = num_examples, total

    def due(self, epoch: int, steps: range) -> list[int]:
        """After which updates of an epoch, whose updates are `steps`, the run is saved."""
        due = self._saving.due(epoch, steps, self._num_examples)
        return [step for step in due if step < self._total]

    def save(self, state: Any, progress: Progress) -> None:
        """Begin to save; the buffers of `state` may be given away at once.

        Raises:
          UnusableError: If it cannot be saved, or if the save before could not.
        """
        self._checkpoints.save(progress.step, state, encode(self._notes(progress)))
