"""Writers of metrics: JSON lines, which the report reads, and TensorBoard's event files."""

import json
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from experiments.training.atomic_write import refuse_link
from experiments.training.json_files import DamagedError, fault, parsed, regular_file
from experiments.training.records import EpochRecord, StepRecord

Record = dict[str, Any]
_AGAIN = "remove the folder of the run, or start the run again in another folder."
_OF_KIND: dict[str, type] = {"epoch": EpochRecord, "step": StepRecord}


class Writer(Protocol):
    """Stores the records of a run, which it receives one after another.

    A record of `kind` `step` is written for each update. It holds its `step` (counted from 0), its `epoch` (a float),
    the batch size, the hyperparameters and the metrics. A record of `kind` `epoch` is written after each epoch. It
    holds the number of epochs and updates so far, and the mean training and test metrics. All values but `kind` are
    numbers.
    """

    def write(self, record: Record) -> None:
        """Writes one record."""
        ...

    def close(self) -> None:
        """Stores all records durably; no record is written afterwards."""
        ...


class JsonLines:
    """A file of records, one per line, complete on disk when the writer is closed.

    Numbers are written with seven digits, the precision of float32, so that equal runs give equal files.

    Args:
      path: the path of the file; the file must not exist unless `kept_bytes` is given.
      kept_bytes: the number of bytes to keep of an existing file, to which records are then appended; None: a new file.
    """

    def __init__(self, path: Path, kept_bytes: int | None = None) -> None:
        refuse_link(path)
        self._file = path.open("x" if kept_bytes is None else "a", encoding="utf-8")
        if kept_bytes is not None:
            self._file.truncate(kept_bytes)

    def write(self, record: Record) -> None:
        """Appends one record."""
        self._file.write(json.dumps(plain(record)) + "\n")

    def length(self) -> int:
        """Flushes the file to disk and returns its length in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Flushes the file to disk and closes it."""
        with self._file:
            self.length()


def read(path: Path, *kinds: str) -> Iterator[Record]:
    """Yields the records of the given kinds, in order.

    Raises:
      DamagedError: If a line is not a record, or if a record of these kinds does not have the form that runs write.
      OSError: If the file does not exist or cannot be read.
    """
    found = dict.fromkeys(kinds, 0)
    with regular_file(path) as lines:
        for number, line in enumerate(lines, start=1):
            record = None
            with suppress(ValueError):
                record = parsed(line)
            if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
                raise DamagedError(path, f"line {number} is not a record", _AGAIN)
            kind = record["kind"]
            if kind not in found:
                continue
            if wrong := fault_of_metrics(record, found[kind]):
                raise DamagedError(path, f"line {number}: {wrong}", _AGAIN)
            found[kind] += 1
            yield record


def column(records: Sequence[Record], name: str) -> np.ndarray:
    """Returns a field of all records as an array; NaN if it is null or missing."""
    values: list[Any] = [record.get(name) for record in records]
    return np.asarray([np.nan if value is None else value for value in values], np.float64)


def fault_of_metrics(record: Record, number: int) -> str | None:
    """Describes what is wrong with a record of `metrics.jsonl`; None if nothing is.

    Records of kinds that the program does not write are not checked.

    Args:
      record: the record.
      number: the index of the record among those of its kind, from 0.
    """
    kind = record["kind"]
    if kind not in _OF_KIND:
        return None
    expected = number + (kind == "epoch")  # steps are counted from 0, epochs from 1
    wrong = fault(record, _OF_KIND[kind])
    is_missed = not wrong and record[kind] != expected
    return f"{kind} is {record[kind]}, expected {expected}: lines are missing" if is_missed else wrong


def plain(value: Any) -> Any:
    """Returns `value` in the form written to JSON: floats with seven digits, and None for those that are not finite."""
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    if getattr(value, "ndim", 0):
        return plain(value.tolist())
    if value is None or isinstance(value, str | bool | int):
        return value
    return float(f"{float(value):.7g}") if math.isfinite(value) else None


class TensorBoard:
    """Writes an event file for `tensorboard --logdir`, with one curve over updates per metric, such as `step/loss`.

    The records are on disk after `flush`, at the end of each epoch, and when the writer is closed. Only the file format
    is taken from tensorboardX. Its `SummaryWriter` writes from a background thread: there is no function that waits
    until its queue is written, and the thread blocks forever if the disk is full.

    Args:
      folder: the folder of the event files, to which each writer adds one.
      resume_step: the update at which the run resumes; TensorBoard discards the points of earlier files from it on.
    """

    def __init__(self, folder: Path, resume_step: int | None = None) -> None:
        from tensorboardX.proto import event_pb2, summary_pb2  # noqa: PLC0415 - imported only if used
        from tensorboardX.record_writer import RecordWriter  # noqa: PLC0415

        # the classes are made at run time, so pyright does not see them
        self._event: Any = event_pb2.Event  # pyright: ignore[reportAttributeAccessIssue]
        self._summary: Any = summary_pb2.Summary  # pyright: ignore[reportAttributeAccessIssue]
        session: Any = event_pb2.SessionLog  # pyright: ignore[reportAttributeAccessIssue]
        folder.mkdir(parents=True, exist_ok=True)
        begun = "" if resume_step is None else f"{resume_step:010d}"  # files are read in the order of their names
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{begun}.{os.getpid()}"
        self._file = RecordWriter(str(folder / name))
        self._add(file_version="brain.Event:2")
        if resume_step is not None:
            self._add(step=resume_step, session_log=session(status=session.START))

    def write(self, record: Record) -> None:
        """Adds a point to each curve whose value is finite."""
        points = [
            self._summary.Value(tag=f"{record['kind']}/{name}", simple_value=float(value))
            for name, value in record.items()
            if name not in ("kind", "step") and value is not None and math.isfinite(value)
        ]
        self._add(step=int(record["step"]), summary=self._summary(value=points))
        if record["kind"] == "epoch":
            self.flush()

    def flush(self) -> None:
        """Writes the buffered records to disk."""
        self._file.flush()

    def close(self) -> None:
        """Writes the buffered records to disk and closes the file."""
        with closing(self._file):
            self.flush()

    def _add(self, **what: Any) -> None:
        self._file.write(self._event(wall_time=time.time(), **what).SerializeToString())


@dataclass(frozen=True)
class RunWriters:
    """The writers of the files in the folder of a run.

    Attributes:
      metrics: writes `metrics.jsonl`.
      tensorboard: writes TensorBoard's event files; None if they are not requested.
    """

    metrics: JsonLines
    tensorboard: TensorBoard | None = None

    @classmethod
    def create(cls, output: Path, resume_at: tuple[int, int] | None, *, tensorboard: bool) -> Self:
        """Opens the files.

        Args:
          output: the folder of the run.
          resume_at: the length of `metrics.jsonl` in bytes and the update from which the run resumes; None: new files.
          tensorboard: whether TensorBoard's event files are written.
        """
        kept_bytes, resume_step = resume_at or (None, None)
        metrics = JsonLines(output / "metrics.jsonl", kept_bytes)
        if not tensorboard:
            return cls(metrics)
        board = TensorBoard(output / "tensorboard", resume_step)
        # TensorBoard also discards the record of an epoch that ended at this update, so it is repeated
        for record in read(output / "metrics.jsonl", "epoch"):
            if record["step"] == resume_step:
                board.write(record)
        return cls(metrics, board)

    @property
    def writers(self) -> list[Any]:
        """All writers."""
        return [self.metrics, *([self.tensorboard] if self.tensorboard else [])]

    def flush(self) -> int:
        """Writes the buffered records to disk and returns the length of `metrics.jsonl` in bytes."""
        if self.tensorboard is not None:
            self.tensorboard.flush()
        return self.metrics.length()
