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
        for name, value in vars(self).items():
            if value is not None and not 1 <= value <= _MOST:
                raise ValueError(f"saving.{name} is {value}: give an integer from 1 to {_MOST}.")

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


@dataclass(frozen=True)
class Saver:
    """Saves a run during training, when it is due.

    Attributes:
      saving: when the run is saved.
      checkpoints: the folder of the saves.
      num_examples: examples an epoch.
      total: updates of the run: after the last one nothing is saved, since the trained state itself follows.
      notes: from a position to what is written next to the state.
    """

    saving: Saving
    checkpoints: Checkpoints
    num_examples: int
    total: int
    notes: Callable[[Progress], Notes]

    def due(self, epoch: int, steps: range) -> list[int]:
        """After which updates of an epoch, whose updates are `steps`, the run is saved."""
        return [step for step in self.saving.due(epoch, steps, self.num_examples) if step < self.total]

    def save(self, state: Any, progress: Progress) -> None:
        """Begin to save; the buffers of `state` may be given away at once.

        Raises:
          UnusableError: If it cannot be saved, or if the save before could not.
        """
        self.checkpoints.save(progress.step, state, encode(self.notes(progress)))
