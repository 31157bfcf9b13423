"""What runs measured, epoch by epoch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.training.writers import Record, read


class Quantity(NamedTuple):
    """Something that a picture shows.

    Attributes:
      name: of the field in `metrics.jsonl`.
      title: what it is called.
      axis: the label of its axis, with the unit.
      kind: `epoch` or `step`: the records that hold it.
      is_set: whether it is set before a step, and not measured in it.
      factor: from the record's unit to the picture's.
    """

    name: str
    title: str
    axis: str
    kind: str = "step"
    is_set: bool = False
    factor: float = 1.0


QUANTITIES = (
    Quantity("train_loss", "Training loss", "cross-entropy, mean of the epoch", "epoch"),
    Quantity("test_error", "Test error", "test error, %", "epoch", factor=100.0),
    Quantity("grad_norm", "Norm of the gradient", "‖g‖, mean of the epoch"),
    Quantity("perturbed_grad_norm", "Norm of the gradient at the perturbed point", "‖g_s‖, mean of the epoch"),
    Quantity("cosine", "Cosine of the angle between both gradients", "cos(g, g_s), mean of the epoch"),
    Quantity("batch_size", "Batch size", "batch size, examples", is_set=True),
    Quantity("learning_rate", "Learning rate", "learning rate", is_set=True),
    Quantity("rho", "Radius of the perturbation", "ρ", is_set=True),
)

Curves = dict[str, np.ndarray]


def read_curves(metrics: Path) -> Curves:
    """Each quantity that the run has, and the `step` and `epoch` at the end of each epoch, `(epochs,)`.

    What is set is read at the start of the epoch. Where the run has diverged there are NaNs.
    """
    epochs, steps = (list(read(metrics, kind)) for kind in ("epoch", "step"))
    ends = [record["step"] for record in epochs]
    starts = [0, *ends[:-1]]
    curves = {"epoch": _column(epochs, "epoch"), "step": _column(epochs, "step")}
    for quantity in QUANTITIES:
        records = epochs if quantity.kind == "epoch" else steps
        if not all(quantity.name in record for record in records):
            continue
        values = quantity.factor * _column(records, quantity.name)
        if quantity.is_set:
            values = values[starts]
        elif quantity.kind == "step":
            values = np.asarray([values[start:end].mean() for start, end in zip(starts, ends, strict=True)])
        curves[quantity.name] = values
    return curves


def mean_curves(runs: Sequence[Curves]) -> Curves:
    """The mean of each quantity that all runs have; NaN where one of them is."""
    names = set.intersection(*(set(curves) for curves in runs))
    return {name: np.mean([curves[name] for curves in runs], axis=0) for name in sorted(names)}


def _column(records: list[Record], name: str) -> np.ndarray:
    values: list[Any] = [record[name] for record in records]
    return np.asarray([np.nan if value is None else value for value in values], np.float64)
