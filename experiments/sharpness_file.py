"""The file beside a run that holds what was measured of its sharpness."""

import json
from collections.abc import Iterable
from pathlib import Path

from experiments.training.writers import Record, plain

_SET = (
    "kind",
    "epoch",
    "rho",
    "norm",
    "adaptive",
    "steps",
    "restarts",
    "samples",
    "examples",
    "measured_batch_size",
    "normalize_logits",
    "reestimate_batchnorm",
)
"""What is set before a measurement: two records that agree in it are one, measured twice."""


def read(run: Path) -> list[Record]:
    """All records of the run's folder; none where nothing was measured.

    Raises:
      ValueError: If the file is damaged.
    """
    path = _path(run)
    if not path.is_file():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise ValueError(f"{path} is damaged: remove it, and measure again.") from error


def add(run: Path, records: Iterable[Record]) -> None:
    """Add records; those that were measured before, with the same settings, are replaced."""
    kept = {_identity(record): record for record in read(run)}
    for record in records:
        readable = {name: _plain(value) for name, value in record.items()}
        kept[_identity(readable)] = readable
    new = _path(run).with_suffix(".new")
    new.write_text("".join(json.dumps(record) + "\n" for record in kept.values()), encoding="utf-8")
    new.replace(_path(run))  # at once, so that a program that is stopped leaves the old file


def _identity(record: Record) -> tuple[object, ...]:
    return tuple(str(record.get(name)) if name == "rho" else record.get(name) for name in _SET)


def _plain(value: object) -> object:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return None if value is None else plain(value)  # null is what is not finite


def _path(run: Path) -> Path:
    return run / "sharpness.jsonl"
