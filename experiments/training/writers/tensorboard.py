"""Records as TensorBoard's event files."""

import math
from pathlib import Path

from experiments.training.writers.writer import Record


class TensorBoard:
    """A folder that `tensorboard --logdir` shows: a curve a number, `step/loss` or `epoch/test_error`, over updates.

    Args:
      folder: of the event files, of which each writer adds one.
      go_on_at: the update from which on earlier files of the folder count no longer.
    """

    def __init__(self, folder: Path, go_on_at: int | None = None) -> None:
        from tensorboardX import SummaryWriter  # noqa: PLC0415 - only those who ask for it wait for its import

        suffix = "" if go_on_at is None else f".{go_on_at}"  # files are named by the second in which they are made
        self._events = SummaryWriter(str(folder), purge_step=go_on_at, filename_suffix=suffix)

    def write(self, record: Record) -> None:
        """Add a point to each curve, but where a diverged run has none."""
        for name, value in record.items():
            if name not in ("kind", "step") and value is not None and math.isfinite(value):
                self._events.add_scalar(f"{record['kind']}/{name}", float(value), record["step"])

    def flush(self) -> None:
        """Bring what was taken to the disk."""
        self._events.flush()

    def close(self) -> None:
        """Write out what is left."""
        self._events.close()
