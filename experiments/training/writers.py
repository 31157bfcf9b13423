"""Writers of metrics: JSON lines, which the report reads, and TensorBoard's event files."""

import json
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from experiments.training.atomic_write import refuse_link
from experiments.training.json_files import DamagedError, fault, parsed, regular_file
from experiments.training.records import EpochRecord, StepRecord

Record = dict[str, Any]
_AGAIN = "remove the folder of its run, or start the run again in another one."
_OF_KIND: dict[str, type] = {"epoch": EpochRecord, "step": StepRecord}


class Writer(Protocol):
    """Takes the records of a run, one after another, and keeps them somewhere.

    A record of `kind` `step` comes after each update and holds its `step` (counted from 0), its `epoch` (a float), the
    batch size, the hyperparameters and what was measured; one of `kind` `epoch` comes after each epoch and holds the
    number of epochs and updates so far, and the mean training and test figures. All other values are numbers.
    """

    def write(self, record: Record) -> None:
        """Take one record."""
        ...

    def close(self) -> None:
        """Keep safe what was taken; no record comes after."""
        ...


class JsonLines:
    """A file of records, each on a line of its own, complete on disk when the writer is closed.

    Numbers are written to the seven digits that float32 holds, so that equal runs give equal files.

    Args:
      path: the file, which is new.
      go_on_at: instead of a new file, one that may be there: what it has beyond so many bytes is cut off.
    """

    def __init__(self, path: Path, go_on_at: int | None = None) -> None:
        refuse_link(path)
        self._file = path.open("x" if go_on_at is None else "a", encoding="utf-8")
        if go_on_at is not None:
            self._file.truncate(go_on_at)

    def write(self, record: Record) -> None:
        """Append one record."""
        self._file.write(json.dumps(plain(record)) + "\n")

    def length(self) -> int:
        """How many bytes the file has, all of them on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Write out what is left."""
        with self._file:
            self.length()


def read(path: Path, *kinds: str) -> Iterator[Record]:
    """The records of some kinds, in order.

    Raises:
      DamagedError: If a line is not a record, or if one of the kinds is not as runs write it.
      OSError: If there is no file.
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
    """A field of all records, NaN where it is null or left out."""
    values: list[Any] = [record.get(name) for record in records]
    return np.asarray([np.nan if value is None else value for value in values], np.float64)


def fault_of_metrics(record: Record, number: int) -> str | None:
    """What is wrong with a record of `metrics.jsonl`, the one of its kind with this number, from 0.

    Records of other kinds are not of a run.
    """
    kind = record["kind"]
    if kind not in _OF_KIND:
        return None
    expected = number + (kind == "epoch")  # steps are counted from 0, epochs from 1
    wrong = fault(record, _OF_KIND[kind])
    is_missed = not wrong and record[kind] != expected
    return f"{kind} is {record[kind]}, expected {expected}: lines are missing" if is_missed else wrong


def plain(value: Any) -> Any:
    """`value` as JSON has it: seven digits of each number, and null where a diverged run has none."""
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

        # the classes are made at run time, where pyright does not see them
        self._event: Any = event_pb2.Event  # pyright: ignore[reportAttributeAccessIssue]
        self._summary: Any = summary_pb2.Summary  # pyright: ignore[reportAttributeAccessIssue]
        session: Any = event_pb2.SessionLog  # pyright: ignore[reportAttributeAccessIssue]
        folder.mkdir(parents=True, exist_ok=True)
        begun = "" if go_on_at is None else f"{go_on_at:010d}"  # they are read in the order of their names
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{begun}.{os.getpid()}"
        self._file = RecordWriter(str(folder / name))
        self._add(file_version="brain.Event:2")
        if go_on_at is not None:
            self._add(step=go_on_at, session_log=session(status=session.START))

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
        with closing(self._file):
            self.flush()

    def _add(self, **what: Any) -> None:
        self._file.write(self._event(wall_time=time.time(), **what).SerializeToString())


def own_writers(output: Path, go_on_at: tuple[int, int] | None, *, tensorboard: bool) -> list[Any]:
    """The file of the metrics, and TensorBoard's files where they are asked for, in the folder of a run.

    Args:
      output: the folder.
      go_on_at: how long the file of the metrics was, and the update, where the run goes on; None: the files are new.
      tensorboard: whether TensorBoard's files are asked for.
    """
    length, step = go_on_at or (None, None)
    metrics = JsonLines(output / "metrics.jsonl", length)
    if not tensorboard:
        return [metrics]
    board = TensorBoard(output / "tensorboard", step)
    # where the run goes on, the record of an epoch that ended at this update was cut off, too, and is added again
    for record in read(output / "metrics.jsonl", "epoch"):
        if record["step"] == step:
            board.write(record)
    return [metrics, board]


def length_of(own: list[Any]) -> int:
    """How long the file of the metrics is, when all that was written is on disk; 0 where no file is written."""
    for board in own[1:]:
        board.flush()
    return own[0].length() if own else 0
