"""The file in the folder of a run that holds its sharpness measurements."""

import json
from collections.abc import Iterable
from pathlib import Path

from experiments.training import json_files
from experiments.training.atomic_write import write_whole
from experiments.training.exceptions import UnusableError, go_on_hint, reason_of
from experiments.training.json_files import DamagedError
from experiments.training.records import SHARPNESS, SharpnessRecord
from experiments.training.writers import plain

_AGAIN = "remove it, and measure again."
_SET = (
    *("kind", "epoch", "rho", "norm", "adaptive", "steps", "restarts", "samples"),
    *("examples", "measured_batch_size", "normalize_logits", "reestimate_batchnorm"),
)
"""The settings of a measurement: two records with equal settings are the same measurement, made twice."""


def read(run: Path) -> list[SharpnessRecord]:
    """Returns all records in the run's folder; the list is empty if nothing was measured.

    Raises:
      UnusableError: If the file is damaged, or was made by another version.
    """
    path = _path(run)
    if not path.exists():
        return []
    try:
        lines = [json_files.parsed(line) for line in json_files.text_of(path).splitlines()]
    except DamagedError:
        raise
    except (OSError, ValueError) as error:
        raise DamagedError(path, reason_of(error), _AGAIN) from error
    found = []
    for number, line in enumerate(lines, start=1):
        kind = SHARPNESS.get(str(line.get("kind")), SharpnessRecord) if isinstance(line, dict) else SharpnessRecord
        try:
            found.append(json_files.decode(line, kind))
        except ValueError as error:
            raise DamagedError(path, f"line {number}: {error}", _AGAIN) from error
    return found


def add(run: Path, measured: Iterable[SharpnessRecord]) -> None:
    """Adds records; earlier records with the same settings are replaced.

    Raises:
      UnusableError: If the file is damaged or cannot be written; the file is then unchanged.
    """
    # numbers are rounded to the digits that the file stores
    written = [json_files.decode(plain(record.line()), type(record)) for record in measured]
    try:
        write_whole(_path(run), "".join(json.dumps(record.line()) + "\n" for record in united(read(run), written)))
    except OSError as error:
        raise UnusableError(f"{_path(run)} cannot be written: {reason_of(error)}. {go_on_hint(run)}") from error


def united(before: Iterable[SharpnessRecord], after: Iterable[SharpnessRecord]) -> list[SharpnessRecord]:
    """Merges two lists of records; of two with equal settings the later one is kept, at the end."""
    kept: dict[tuple[object, ...], SharpnessRecord] = {}
    for record in (*before, *after):
        identity = tuple(str(getattr(record, name, None)) for name in _SET)  # the radii of a curve are a list
        kept.pop(identity, None)
        kept[identity] = record
    return list(kept.values())


def _path(run: Path) -> Path:
    return run / "sharpness.jsonl"
