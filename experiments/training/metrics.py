"""What a run writes down: one JSON object a line."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class JsonLines:
    """A file of records, each on a line of its own, complete on disk when the writer is closed.

    Numbers are written to the seven digits that float32 holds, so that equal runs give equal files.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("x", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, record: dict[str, Any]) -> None:
        """Append one record."""
        self._file.write(json.dumps({name: plain(value) for name, value in record.items()}) + "\n")


def read(path: Path, kind: str) -> Iterator[dict[str, Any]]:
    """The records of one kind, in order."""
    with path.open(encoding="utf-8") as lines:
        records = map(json.loads, lines)
        yield from (record for record in records if record["kind"] == kind)


def plain(value: Any) -> Any:
    """`value` as JSON has it: seven digits of a number, and null where a diverged run has none."""
    if isinstance(value, str | bool | int):
        return value
    return float(f"{float(value):.7g}") if math.isfinite(value) else None
