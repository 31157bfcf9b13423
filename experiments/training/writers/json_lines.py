"""Records as JSON, an object a line: what the report reads."""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.training.records import DamagedError, parsed, regular_file
from experiments.training.schemas import fault_of_metrics
from experiments.training.whole_file import refuse_link
from experiments.training.writers.writer import Record

_AGAIN = "remove the folder of its run, or start the run again in another one."


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
      DamagedError: If a line is not a record, or if one of the kind is not as runs write it.
      OSError: If there is no file.
    """
    found = 0
    with regular_file(path) as lines:
        for number, line in enumerate(lines, start=1):
            record = _parsed(line, path, number)
            if record["kind"] != kind:
                continue
            if wrong := fault_of_metrics(record, found):
                raise DamagedError(path, f"line {number}: {wrong}", _AGAIN)
            found += 1
            yield record


def _parsed(line: bytes, path: Path, number: int) -> Record:
    try:
        record = parsed(line)
    except ValueError:
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        raise DamagedError(path, f"line {number} is not a record", _AGAIN)
    return record


def plain(value: Any) -> Any:
    """`value` as JSON has it: seven digits of a number, and null where a diverged run has none."""
    if isinstance(value, str | bool | int):
        return value
    return float(f"{float(value):.7g}") if math.isfinite(value) else None
