"""The file beside a run that holds what was measured of its sharpness."""

import json
from collections.abc import Iterable
from pathlib import Path

from experiments.training.endings import UnusableError, go_on_hint, reason_of
from experiments.training.whole_file import write_whole
from experiments.training.writers import Record, plain

_SHARED = (
    "epoch",
    "step",
    "examples",
    "measured_batch_size",
    "normalize_logits",
    "reestimate_batchnorm",
    "parameters",
)
_BALL = ("norm", "adaptive")
_ASCENT = (*_BALL, "steps", "restarts")
_FIELDS = {
    "worst_case": ("rho", *_ASCENT, "sharpness", "first_order", "loss"),
    "curve": ("rho", *_ASCENT, "sharpness", "first_order", "slope", "error", "loss"),
    "average_case": ("rho", *_BALL, "samples", "sharpness", "standard_error", "loss"),
    "surrogate_gap": ("rho", "gap", "loss"),
    "top_eigenvalue": ("eigenvalue",),
    "trace": ("samples", "value", "standard_error"),
    "landscape": ("coordinates", "loss"),
}
"""What the record of each measure holds beside what all hold."""

_SET = (
    "kind",
    "epoch",
    *_ASCENT,
    "samples",
    "examples",
    "measured_batch_size",
    "normalize_logits",
    "reestimate_batchnorm",
)
"""What is set before a measurement, with the radius: two records that agree in it are one, measured twice."""


def read(run: Path) -> list[Record]:
    """All records of the run's folder; none where nothing was measured.

    Raises:
      UnusableError: If the file is damaged, or was made by another version.
    """
    path = _path(run)
    if not path.is_file():
        return []
    try:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        complete = all({*_SHARED, *_FIELDS[record["kind"]]} <= record.keys() for record in records)
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        complete = False
    if not complete:
        raise UnusableError(f"{path} is damaged, or was made by another version: remove it, and measure again.")
    return records


def add(run: Path, records: Iterable[Record]) -> None:
    """Add records; those that were measured before, with the same settings, are replaced.

    Raises:
      UnusableError: If the file is damaged, or cannot be written; it is as it was then.
    """
    written = [{name: _plain(value) for name, value in record.items()} for record in records]
    text = "".join(json.dumps(record) + "\n" for record in united(read(run), written))
    try:
        write_whole(_path(run), text)
    except OSError as error:
        raise UnusableError(f"{_path(run)} cannot be written: {reason_of(error)}. {go_on_hint(run)}") from error


def united(before: Iterable[Record], after: Iterable[Record]) -> list[Record]:
    """Both; of two that were measured with the same settings the later one, which stands behind the others."""
    kept: dict[tuple[object, ...], Record] = {}
    for record in (*before, *after):
        kept.pop(_identity(record), None)
        kept[_identity(record)] = record
    return list(kept.values())


def _identity(record: Record) -> tuple[object, ...]:
    return (str(record.get("rho")), *(record.get(name) for name in _SET))


def _plain(value: object) -> object:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return None if value is None else plain(value)  # null is what is not finite


def _path(run: Path) -> Path:
    return run / "sharpness.jsonl"
