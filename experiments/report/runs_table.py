"""The table of runs: one row per run, with its config, its cost and its results.

The table is made from the folders of runs, or read from the `runs.csv` of an earlier report. Its columns are those of
the file, and `config`, the config of the run; `run`, the run with its folder, or None if only the file is left; `plan`,
`epochs` and `examples`, which follow from the config; and `diverged`.
"""

import ast
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.config import Config
from experiments.runner.finished_runs import Run
from experiments.runner.run_curves import summary_in
from experiments.sharpness.run_records import PAPERS_RADIUS, worst_cases
from experiments.study import labels
from experiments.training import records
from experiments.training.atomic_write import write_whole
from experiments.training.exceptions import reason_of
from sam_optax import BatchPlan

_RESULTS = ("test_error", "train_error", "test_loss", "train_loss")
_OF_EPOCHS = ("train_loss", "train_error", "test_loss", "test_error")
_COSTS = ("updates", "gradient_evaluations", "seconds")
_ALWAYS = ("dataset", "model", "method", "batch_plan", "lr_schedule", "learning_rate", "seed")
_FOLLOWED = "batch_plan_followed"
_NETWORK = ("normalised logits", "BatchNorm re-estimated")
_MEASURES = ("sharpness at ", "first order at ", "top eigenvalue, ", "trace, ", "loss, ", "parameters")
_WORST, _FIRST_ORDER = _MEASURES[:2]


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
    """Returns the protocols and radii that all runs of a cell have: those of most cells first, then the paper's."""
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


def table_of(runs: Iterable[Run]) -> pd.DataFrame:
    """Returns the table of finished runs."""
    return _with_types([_row(run) for run in runs])


def read_table(path: Path) -> pd.DataFrame:
    """Reads the table from the `runs.csv` of a report.

    Raises:
      ValueError: If the file cannot be read, or is not such a file.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        return _with_types([_row_of_file(row) for row in table.to_dict("records")])
    except (OSError, ValueError, LookupError, TypeError) as error:
        message = f"{path} holds no table of runs ({reason_of(error)}): give the runs.csv of a report."
        raise ValueError(message) from error


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Writes the table, with the settings that differ from the defaults or among the runs; unknown values are empty.

    Errors are fractions.
    """
    settings = [config.effective.settings for config in table["config"]]
    usual = Config.from_settings().settings
    names = [
        name
        for name in settings[0]
        if name in _ALWAYS or len({each[name] for each in settings}) > 1 or settings[0][name] != usual[name]
    ]
    written = pd.DataFrame([{name: each[name] for name in names} for each in settings], index=table.index)
    if any(config.adaptive is not None for config in table["config"]):
        written[_FOLLOWED] = [
            str(plan) if config.adaptive is not None else ""
            for plan, config in zip(table["plan"], table["config"], strict=True)
        ]
    others = [name for name in (*_RESULTS, *_COSTS, "folder") if not all(pd.isna(each) for each in table[name])]
    measured = [name for name in table.columns if name.startswith(_MEASURES)]
    written = pd.concat([written, table[[*others, *measured]]], axis=1)
    write_whole(path, written.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def write_epochs(table: pd.DataFrame, path: Path) -> None:
    """Writes a row per run and epoch; unknown values and those that diverged are empty.

    `step` and `examples` are the numbers of updates and examples until the end of the epoch. `batch_size` is that of
    the last update of the epoch, and `learning_rate` that of its first update. Errors are fractions.

    Raises:
      ValueError: If the metrics of a run are damaged.
    """
    rows = [row for run in table["run"] for row in _epochs(run)]
    write_whole(path, pd.DataFrame(rows).to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def _epochs(run: Run) -> Iterator[dict[str, Any]]:
    config, summary = run.config, summary_in(run.folder)
    rates = {record["step"]: record.get("learning_rate") for record in summary.samples}
    for record, start in zip(summary.epochs, summary.starts, strict=True):
        of_run = {"run": run.folder.name, "seed": config.seed, "method": config.method}
        plan = {"strategy": labels.strategy(config), "batch_plan": str(run.plan)}
        place = {"epoch": record["epoch"], "step": record["step"]}
        examples = {"examples": run.plan.examples_used(record["step"], config.epoch_size)}
        results = {name: record.get(name) for name in ("batch_size", *_OF_EPOCHS)}
        yield of_run | plan | place | examples | results | {"learning_rate": rates.get(start)}


def _row(run: Run) -> dict[str, Any]:
    result = {name: getattr(run.result, name) for name in (*_RESULTS, *_COSTS)}
    return {"run": run, "folder": run.folder.name, **_of_config(run.config, run.plan, result), **_sharpness(run)}


def _row_of_file(row: Mapping[str, str]) -> dict[str, Any]:
    known = Config().settings
    values = {name: _value(text) for name, text in row.items() if text != ""}
    config = Config.from_settings(**{name: value for name, value in values.items() if name in known})
    plan = BatchPlan.parse(row[_FOLLOWED]) if config.adaptive is not None else config.plan
    result = {name: values.get(name) for name in (*_RESULTS, *_COSTS)}
    measured = {name: values.get(name) for name in row if name.startswith(_MEASURES)}
    return {"run": None, "folder": row.get("folder") or None, **_of_config(config, plan, result), **measured}


def _of_config(config: Config, plan: BatchPlan, result: dict[str, Any]) -> dict[str, Any]:
    return {
        "config": config,
        "seed": config.seed,
        "plan": plan,
        "epochs": plan.passes(config.epoch_size),
        "examples": plan.examples_used(result["updates"], config.epoch_size),
        **result,
        "diverged": result["train_loss"] is None or result["test_loss"] is None,
    }


def _with_types(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Returns the rows as a table; numbers are floats, except for counts."""
    table = pd.DataFrame(rows, dtype=object)
    counts = {"seed", "epochs", "examples", "updates", "gradient_evaluations"}
    for name in table.columns:
        if name in counts:
            table[name] = table[name].astype(np.int64)
        elif name in (*_RESULTS, "seconds") or name.startswith(_MEASURES):
            table[name] = np.asarray(table[name], float)
    return table if table.empty else table.assign(diverged=table["diverged"].astype(bool))


def _value(text: str) -> Any:
    """Returns a number, a truth value or None if the text is one of them, else the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _sharpness(run: Run) -> dict[str, float | None]:
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
