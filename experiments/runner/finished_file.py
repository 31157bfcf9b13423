"""The file of finished runs: one line per run, with all that a report needs, so that run folders need not be kept.

Each line is a JSON object. Its `digest` identifies the config, and its `checksum` detects changes of the line.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from experiments.config import Config
from experiments.runner import sharpness_records
from experiments.runner.metrics_summary import Summary
from experiments.runner.provenance import Provenance
from experiments.training import json_files
from experiments.training.atomic_write import refuse_link
from experiments.training.exceptions import UnusableError, printable, reason_of
from experiments.training.json_files import decode, encode
from experiments.training.records import SHARPNESS, Result, SharpnessRecord
from experiments.training.writers import Record, fault_of_metrics, plain

_KEYS = {"name", "digest", "config", "result", "epochs", "samples", "sharpness", "machine", "hours", "checksum"}


@dataclass(frozen=True)
class FinishedRun:
    """A finished run, as a line of the file.

    Attributes:
      name: the name of the run, for example `sam constant, seed 0`.
      config: the settings of the run; those that its method ignores are 0.
      result: the result of the run.
      summary: its epochs and some of its steps.
      sharpness: the measurements of its sharpness.
      machine: the machine and the version that wrote the line.
    """

    name: str
    config: Config
    result: Result
    summary: Summary
    sharpness: list[SharpnessRecord]
    machine: Provenance

    def line(self) -> str:
        """Returns the line of the run, without a line break."""
        settings = self.config.settings
        values: dict[str, Any] = {
            "name": self.name,
            "digest": _digest(settings),
            "config": settings,
            "result": encode(self.result),
            "epochs": [plain(record) for record in self.summary.epochs],
            "samples": [plain(record) for record in self.summary.samples],
            "sharpness": [record.line() for record in self.sharpness],
            "machine": asdict(self.machine),
            "hours": plain(self.result.seconds / 3600),
        }
        return json.dumps(values | {"checksum": _digest(values)})

    @classmethod
    def of(cls, line: bytes) -> Self:
        """Reads a line.

        Raises:
          ValueError: If the line is damaged, or was not written by this program.
        """
        values = json_files.parsed(line)
        if not isinstance(values, dict) or set(values) != _KEYS:
            raise ValueError("it does not have the fields of a finished run")
        if values.pop("checksum") != _digest(values) or values["digest"] != _digest(values["config"]):
            raise ValueError("its checksum is wrong")
        return cls(
            str(values["name"]),
            Config.of(values["config"]).effective,
            decode(values["result"], Result),
            Summary(_epochs(values["epochs"]), list(values["samples"])),
            [decode(record, SHARPNESS[record["kind"]]) for record in values["sharpness"]],
            decode(values["machine"], Provenance),
        )

    def is_same_result(self, result: Result) -> bool:
        """Returns whether a result equals that of this run; the duration does not count."""
        return self.result.is_same(result)


def read(path: Path) -> dict[Config, FinishedRun]:
    """Returns the finished runs in the file by their `effective` config; none if the file does not exist.

    The sharpness of several lines with the same run is merged.

    Raises:
      UnusableError: If the file cannot be read, if a line is damaged or was not written by this program, or if two
        lines have different results of one run. The message has the number of the line.
    """
    found: dict[Config, FinishedRun] = {}
    for number, line in enumerate(_lines(path), start=1):
        try:
            finished = FinishedRun.of(line)
        except (ValueError, TypeError, LookupError) as error:
            raise _refused(path, number, f"is not the record of a finished run ({reason_of(error)})") from error
        same = found.get(finished.config, finished)
        if not same.is_same_result(finished.result):
            raise _refused(path, number, "and an earlier line have different results of one run")
        measured = sharpness_records.united(same.sharpness, finished.sharpness)
        found[finished.config] = replace(finished, sharpness=measured)
    return found


def append(path: Path, finished: FinishedRun) -> None:
    """Appends the line of a run; when this returns, the line is on the disk.

    Raises:
      UnusableError: If the file cannot be written; it is then unchanged.
    """
    _write(path, finished.line().encode() + b"\n")


def check_writable(path: Path) -> None:
    """Checks that lines can be appended; the file is created if it does not exist.

    Raises:
      UnusableError: If the file cannot be written.
    """
    _write(path, b"")


def _write(path: Path, content: bytes) -> None:
    refuse_link(path)
    try:
        with path.open("ab") as file:
            before = file.tell()
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.truncate(path, before)
                raise
    except OSError as error:
        remedy = "free space, make it writable or give another file, and run the command again."
        raise UnusableError(f"finished is {path}, which cannot be written ({reason_of(error)}): {remedy}") from error


def _lines(path: Path) -> Iterable[bytes]:
    if not path.exists():
        return []
    try:
        with json_files.regular_file(path) as file:
            content = file.read()
    except OSError as error:
        message = f"finished is {path}, which cannot be read ({reason_of(error)}): give another file."
        raise UnusableError(message) from error
    lines = content.splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        raise _refused(path, len(lines), "is incomplete, since it has no line break")
    return lines


def _epochs(records: list[Record]) -> list[Record]:
    for number, record in enumerate(records):
        if wrong := fault_of_metrics(record, number):
            raise ValueError(wrong)
    if not records:
        raise ValueError("it has no epochs")
    return list(records)


def _digest(values: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of a JSON object; it depends neither on the order of the keys nor on white space."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _refused(path: Path, number: int, reason: str) -> UnusableError:
    message = f"finished is {path}, of which line {number} {reason}: remove this line, or give another file."
    return UnusableError(printable(message))
