"""The file beside a run that holds what was measured of its sharpness."""

import json
from collections.abc import Iterable
from pathlib import Path

from experiments.training import json_files
from experiments.training.atomic_write import write_whole
from experiments.training.exceptions import UnusableError, go_on_hint, reason_of
from experiments.training.json_files import ANYTHING, DamagedError, Field, Fields
from experiments.training.writers import Record, plain

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

_COUNT, _SWITCH, _NUMBER = Field(int, 1, 2**53), Field(bool), Field(float, nullable=True)
_SHARED: Fields = {
    "kind": Field(str, choices=tuple(_FIELDS)),
    **dict.fromkeys(("epoch", "step", "examples", "measured_batch_size", "parameters"), _COUNT),
    **dict.fromkeys(("normalize_logits", "reestimate_batchnorm"), _SWITCH),
}
_SPECIAL: Fields = {
    "rho": Field(float, 0),
    "norm": Field(str, choices=("linf", "l2")),
    "adaptive": _SWITCH,
    **dict.fromkeys(("steps", "restarts", "samples"), _COUNT),
}
"""The fields that are not figures."""

_LISTS = {"curve": ("rho", "sharpness", "first_order", "slope", "error"), "landscape": ("coordinates", "loss")}
"""The fields that hold a list of numbers, and of the landscape's loss a list of them."""

_AGAIN = "remove it, and measure again."

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
    if not path.exists():
        return []
    try:
        lines = json_files.text_of(path).splitlines()
        found = [json_files.parsed(line) for line in lines]
    except DamagedError:
        raise
    except (OSError, ValueError) as error:
        raise DamagedError(path, reason_of(error), _AGAIN) from error
    for number, record in enumerate(found, start=1):
        if wrong := _fault(record):
            raise DamagedError(path, f"line {number}: {wrong}", _AGAIN)
    return found


def _fault(record: object) -> str | None:
    """What is wrong with a record; further fields may be there, of numbers, texts and lists."""
    wrong_kind = json_files.fault(record, {"kind": _SHARED["kind"]}, ANYTHING)
    if wrong_kind or not isinstance(record, dict):
        return wrong_kind
    lists = _LISTS.get(record["kind"], ())
    figures = {name: Field(list) if name in lists else _SPECIAL.get(name, _NUMBER) for name in _FIELDS[record["kind"]]}
    wrong = json_files.fault(record, {**_SHARED, **figures}, ANYTHING)
    return wrong or next(
        (f"{name} holds what is not a number" for name in lists if not _is_of_numbers(record[name])), None
    )


def _is_of_numbers(values: list[object], depth: int = 2) -> bool:
    """Whether a list holds numbers and null alone, or lists of them down to a depth."""
    return depth > 0 and all(
        _is_of_numbers(each, depth - 1) if isinstance(each, list) else _NUMBER.admits(each) for each in values
    )


def add(run: Path, measured: Iterable[Record]) -> None:
    """Add records; those that were measured before, with the same settings, are replaced.

    Raises:
      UnusableError: If the file is damaged, or cannot be written; it is as it was then.
    """
    written = [{name: _plain(value) for name, value in record.items()} for record in measured]
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
