"""Time to target: the cost of a run until its test accuracy or its gradient norm first reaches a target."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experiments.cli.tables import Rows
from experiments.training import writers
from experiments.training.atomic_write import write_whole

TARGETS = "targets.json"
"""The name of the file in the folder of a run."""


_ROUNDING = 1e-9  # far less than the error of one image, and more than the rounding of 1 − accuracy


@dataclass(frozen=True)
class Target:
    """A value to reach.

    Attributes:
      quantity: `test_accuracy`, which is reached from below, or `grad_norm`, the norm of the full gradient, which is
        reached from above.
      value: the accuracy as a fraction, or the norm.
    """

    quantity: Literal["test_accuracy", "grad_norm"]
    value: float

    def is_reached(self, record: writers.Record) -> bool:
        """Returns whether an epoch's record has reached the target; a value that is not finite has not."""
        name = "test_error" if self.quantity == "test_accuracy" else self.quantity
        if record.get(name) is None:
            return False
        found = np.float64(record[name])
        return bool(found <= (1 - self.value + _ROUNDING if self.quantity == "test_accuracy" else self.value))


@dataclass(frozen=True)
class Cost:
    """The cost of a run from its start to the end of an epoch.

    Attributes:
      epoch: the number of epochs.
      updates: the number of updates.
      examples: the number of examples in these updates; None if the records of an earlier version do not have it.
      gradient_evaluations: the number of gradient evaluations; None as above.
    """

    epoch: int
    updates: int
    examples: int | None
    gradient_evaluations: int | None


def cost_to(records: Iterable[writers.Record], target: Target) -> Cost | None:
    """Returns the cost until the target is first reached at the end of a measured epoch; None if it never is.

    Args:
      records: the records of the epochs in order, with `epoch`, `step`, `examples`, `gradient_evaluations`, and
        `test_error` or `grad_norm`.
      target: the value to reach.
    """
    for record in records:
        if target.is_reached(record):
            others = (record.get("examples"), record.get("gradient_evaluations"))
            return Cost(record["epoch"], record["step"], *others)
    return None


def check_accuracies(name: str, values: Sequence[float]) -> None:
    """Raises `ValueError` unless the values are distinct accuracies, above 0 and at most 1."""
    for value in values:
        if not 0 < value <= 1:
            raise ValueError(f"{name} has {value}: give accuracies as fractions, above 0 and at most 1, such as 0.9.")
    if len(set(values)) < len(values):
        raise ValueError(f"{name} is {tuple(values)}: give each value once.")


def write_targets(folder: Path, accuracies: Sequence[float]) -> list[tuple[Target, Cost | None]]:
    """Writes `targets.json` into the folder of a finished run: the cost until each test accuracy, or null.

    Args:
      folder: the folder of the run.
      accuracies: the test accuracies, as fractions.

    Returns:
      Each target with its cost; None if it was not reached.
    """
    epochs = list(writers.read(folder / "metrics.jsonl", "epoch"))
    found = [(target, cost_to(epochs, target)) for target in (Target("test_accuracy", value) for value in accuracies)]
    lines: list[dict[str, Any]] = [asdict(target) | _numbers(cost) for target, cost in found]
    write_whole(folder / TARGETS, json.dumps(lines, indent=2))
    return found


def target_rows(found: Sequence[tuple[Target, Cost | None]]) -> Rows:
    """Returns a table of the cost until each target; a dash if it was not reached."""
    rows: Rows = [("test accuracy", "epochs", "updates", "examples", "gradient evaluations")]
    for target, cost in found:
        numbers = _numbers(cost).values()
        rows.append((f"{100 * target.value:g}%", *("–" if number is None else f"{number:,}" for number in numbers)))
    return rows


def _numbers(cost: Cost | None) -> dict[str, int | None]:
    """Returns the numbers of a cost by name; all are None if the target was not reached."""
    return {field.name: None if cost is None else getattr(cost, field.name) for field in fields(Cost)}
