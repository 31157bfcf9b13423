"""Records as TensorBoard's event files."""

import math
from pathlib import Path

from experiments.training.writers.writer import Record


class TensorBoard:
    """A folder that `tensorboard --logdir` shows: a curve a number, `step/loss` or `epoch/test_error`, over updates."""

    def __init__(self, folder: Path) -> None:
        from tensorboardX import SummaryWriter  # noqa: PLC0415 - only those who ask for it wait for its import

        self._events = SummaryWriter(str(folder))

    def write(self, record: Record) -> None:
        """Add a point to each curve, but where a diverged run has none."""
        for name, value in record.items():
            if name not in ("kind", "step") and math.isfinite(value):
                self._events.add_scalar(f"{record['kind']}/{name}", float(value), record["step"])

    def close(self) -> None:
        """Write out what is left."""
        self._events.close()
