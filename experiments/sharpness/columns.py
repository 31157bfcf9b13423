"""The columns that measurements of sharpness and curvature have in a table of runs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from experiments.runner.finished_runs import Run
from experiments.sharpness.run_records import PAPERS_RADIUS, worst_cases
from experiments.training import records

COLUMN_PREFIXES = ("sharpness at ", "first order at ", "top eigenvalue, ", "trace, ", "loss, ", "parameters")
"""How the names of the columns begin."""

_NETWORK = ("normalised logits", "BatchNorm re-estimated")
_WORST, _FIRST_ORDER = COLUMN_PREFIXES[:2]


@dataclass(frozen=True)
class ProtocolColumns:
    """The columns of the worst case at all radii of one protocol, such as `adaptive, 512 examples`."""

    title: str

    @property
    def departures(self) -> list[str]:
        """The settings that differ from the paper's, except for the number of examples."""
        return self.title.split(", ")[:-1]

    @property
    def examples(self) -> int:
        """The number of examples."""
        return int(self.title.split(", ")[-1].split()[0])

    @property
    def order(self) -> tuple[Any, ...]:
        """The sort key: protocols near the paper's come first, then those with many examples."""
        return len(self.departures), -self.examples, self.title

    def column(self, rho: float) -> str:
        """The column with the sharpness at a radius."""
        return f"{_WORST}{rho:.3g}, {self.title}"

    def first_order_column(self, rho: float) -> str:
        """The column with the first-order part of the sharpness at a radius."""
        return f"{_FIRST_ORDER}{rho:.3g}, {self.title}"

    @property
    def loss_column(self) -> str:
        """The column with the loss of the measured examples, without a perturbation."""
        return loss_column(self.title)


def loss_column(title: str) -> str:
    """Returns the column with the loss that belongs to a measurement with this title."""
    parts = title.split(", ")
    return ", ".join(["loss", *(part for part in parts if part in _NETWORK), parts[-1]])


def protocols_of(tables: Sequence[pd.DataFrame]) -> dict[ProtocolColumns, list[float]]:
    """Returns the protocols with the radii that all runs of some group have.

    Protocols of more groups come first, and among them the paper's.
    """
    counts: Counter[ProtocolColumns] = Counter()
    radii: dict[ProtocolColumns, set[float]] = {}
    for table in tables:
        measured = [str(name) for name in table.columns if str(name).startswith(_WORST)]
        complete = [name for name in measured if not np.isnan(np.asarray(table[name], float)).any()]
        parts = [name.removeprefix(_WORST).partition(", ") for name in complete]
        counts.update({ProtocolColumns(title) for _, _, title in parts})
        for rho, _, title in parts:
            radii.setdefault(ProtocolColumns(title), set()).add(float(rho))
    order = sorted(counts, key=lambda protocol: (-counts[protocol], *protocol.order))
    return {protocol: sorted(radii[protocol]) for protocol in order}


def headline(radii: Sequence[float]) -> float:
    """Returns the radius of the paper, or the smallest one if the paper's was not measured."""
    return PAPERS_RADIUS if PAPERS_RADIUS in radii else min(radii)


def measured(run: Run) -> dict[str, float | None]:
    """Returns what was measured of the trained network, by column."""
    found: dict[str, float | None] = {}
    for protocol, radii in worst_cases(run).items():
        columns = ProtocolColumns(protocol.title)
        for rho, record in radii.items():
            found[columns.column(rho)] = record.sharpness
            found[columns.first_order_column(rho)] = record.first_order
            found[columns.loss_column] = record.loss
            found["parameters"] = record.parameters
    for record in run.sharpness:
        if record.epoch == run.epochs and isinstance(record, records.TopEigenvalue | records.Trace):
            is_trace = isinstance(record, records.Trace)
            name = f"{'trace' if is_trace else 'top eigenvalue'}, {_network_title(record)}"
            found[name] = record.value if isinstance(record, records.Trace) else record.eigenvalue
    return found


def _network_title(record: records.SharpnessRecord) -> str:
    """Returns which function was measured, and on how many examples."""
    is_so = (record.normalize_logits, record.reestimate_batchnorm)
    return ", ".join([*(name for name, so in zip(_NETWORK, is_so, strict=True) if so), f"{record.examples} examples"])
