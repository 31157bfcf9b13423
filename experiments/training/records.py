"""The fields of the records that a run writes."""

from typing import Any

from experiments.training.json_files import Field, Fields, fault

COUNT = Field(int, 0, 2**53)
_OPTIONAL_COUNT = Field(int, 0, 2**53, required=False)
_SHARE = Field(float, 0, 1)
_SHARE_OR_NULL = Field(float, 0, 1, nullable=True)
_FIGURE = Field(float, nullable=True)
_POSITIVE_COUNT = Field(int, 1, 2**53)

RESULT: Fields = {
    "train_loss": _FIGURE,
    "train_error": _SHARE_OR_NULL,
    "test_loss": _FIGURE,
    "test_error": _SHARE,
    "updates": _POSITIVE_COUNT,
    "gradient_evaluations": COUNT,
    "skipped": _OPTIONAL_COUNT,
    "seconds": Field(float, 0),
    "batch_plan": Field(str, required=False),
}
"""`result.json`."""

MEASURED = Field(float, nullable=True)
"""A column of `metrics.jsonl` that is not among those below: methods and diagnostics add some."""

_SIZE = Field(int, 1, 2**53, required=False)
_EPOCH: Fields = {
    "kind": Field(str),
    "epoch": _POSITIVE_COUNT,
    "step": COUNT,
    "batch_size": _SIZE,
    "test_error": _SHARE_OR_NULL,
}
_STEP: Fields = {"kind": Field(str), "step": COUNT, "epoch": Field(float, 0), "batch_size": _SIZE}

_OF_KIND = {"epoch": ("epoch", _EPOCH), "step": ("step", _STEP)}
"""Of each kind of a record what counts its records, and its fields."""

_PROGRESS: Fields = {
    **dict.fromkeys(("step", "epoch", "gradient_evaluations", "counted"), COUNT),
    "skipped": _OPTIONAL_COUNT,
    "loss": Field(float, any_float=True),
    "error": Field(float, any_float=True),
    "noise": Field(list, required=False),
    "growth": Field(dict, nullable=True, required=False),
}
NOTES: Fields = {
    "progress": Field(dict),
    "config": Field(dict),
    "data": Field(str),
    "metrics_bytes": COUNT,
    "seconds": Field(float, 0),
}
"""The notes of a save."""


def fault_of_metrics(record: dict[str, Any], number: int) -> str | None:
    """What is wrong with a record of `metrics.jsonl`, the one of its kind with this number, from 0.

    Columns that are not known here may be there, of numbers. Records of other kinds are not of a run.
    """
    if record["kind"] not in _OF_KIND:
        return None
    counted, fields = _OF_KIND[record["kind"]]
    if found := fault(record, fields, MEASURED):
        return found
    first = 1 if counted == "epoch" else 0
    is_next = record[counted] == number + first
    return None if is_next else f"{counted} is {record[counted]}, expected {number + first}: lines are missing"


def fault_of_notes(notes: Any) -> str | None:
    """What is wrong with the notes of a save."""
    return fault(notes, NOTES) or fault(notes["progress"], _PROGRESS) or _fault_of_noise(notes["progress"])


def _fault_of_noise(progress: dict[str, Any]) -> str | None:
    for sums in progress.get("noise", ()):
        if not isinstance(sums, list) or not all(isinstance(each, int | float) for each in sums):
            return "noise is not a list of lists of numbers"
    return None
