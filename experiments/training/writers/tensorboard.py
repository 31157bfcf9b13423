"""Records as TensorBoard's event files."""

import math
import os
import socket
import time
from pathlib import Path
from typing import Any

from experiments.training.writers.writer import Record


class TensorBoard:
    """A folder that `tensorboard --logdir` shows: a curve a number, `step/loss` or `epoch/test_error`, over updates.

    What was written is on disk after `flush`, at the end of each epoch, and when the writer is closed. tensorboardX
    gives the format alone: its `SummaryWriter` writes from a thread, whose queue cannot be waited for, and which waits
    for ever where the disk is full.

    Args:
      folder: of the event files, of which each writer adds one.
      go_on_at: the update from which on earlier files of the folder count no longer.
    """

    def __init__(self, folder: Path, go_on_at: int | None = None) -> None:
        from tensorboardX.proto import event_pb2, summary_pb2  # noqa: PLC0415 - only those who ask for it wait for it
        from tensorboardX.record_writer import RecordWriter  # noqa: PLC0415

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        folder.mkdir(parents=True, exist_ok=True)
        begun = "" if go_on_at is None else f"{go_on_at:010d}"  # they are read in the order of their names
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{begun}.{os.getpid()}"
        self._file = RecordWriter(str(folder / name))
        self._add(file_version="brain.Event:2")
        if go_on_at is not None:
            started = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._add(step=go_on_at, session_log=started)

    def write(self, record: Record) -> None:
        """Add a point to each curve, but where a diverged run has none."""
        points = [
            self._summary.Value(tag=f"{record['kind']}/{name}", simple_value=float(value))
            for name, value in record.items()
            if name not in ("kind", "step") and value is not None and math.isfinite(value)
        ]
        self._add(step=int(record["step"]), summary=self._summary(value=points))
        if record["kind"] == "epoch":
            self.flush()

    def flush(self) -> None:
        """Bring what was taken to the disk."""
        self._file.flush()

    def close(self) -> None:
        """Write out what is left."""
        try:
            self.flush()
        finally:
            self._file.close()

    def _add(self, **what: Any) -> None:
        self._file.write(self._event(wall_time=time.time(), **what).SerializeToString())
