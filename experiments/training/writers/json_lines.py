"""Records as JSON, an object a line: what the report reads."""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.training.endings import UnusableError
from experiments.training.writers.writer import Record

_AGAIN = "Remove the folder of its run, or start the run again in another one."


class JsonLines:
    """A file of records, each on a line of its own, complete on disk when the writer is closed.

    Numbers are written to the seven digits that float32 holds, so that equal runs give equal files.

    Args:
      path: the file, which is new.
      go_on_at: instead of a new file, one that may be there: what it has beyond so many bytes is cut off.
    """

    def __init__(self, path: Path, go_on_at: int | None = None) -> None:
        self._file = path.open("x" if go_on_at is None else "a", encoding="utf-8")
        if go_on_at is not None:
            self._file.truncate(go_on_at)

    def write(self, record: Record) -> None:
        """Append one record."""
        self._file.write(json.dumps({name: plain(value) for name, value in record.items()}) + "\n")

    def length(self) -> int:
        """How many bytes the file has, all of them on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Write out what is left."""
        try:
            self.length()
        finally:
            self._file.close()


def read(path: Path, kind: str) -> Iterator[Record]:
    """The records of one kind, in order.

    Raises:
      UnusableError: If a line is no record.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            record = _parsed(line, f"{path} is damaged: line {number} is no record. {_AGAIN}")
            if record["kind"] == kind:
                yield record


def _parsed(line: bytes, otherwise: str) -> Record:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict) or "kind" not in record:
        raise UnusableError(otherwise)
    return record


def plain(value: Any) -> Any:
    """`value` as JSON has it: seven digits of a number, and null where a diverged run has none."""
    if isinstance(value, str | bool | int):
        return value
    return float(f"{float(value):.7g}") if math.isfinite(value) else None
