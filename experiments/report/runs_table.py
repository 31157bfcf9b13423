"""The table of runs: one row per run, with its config, its cost and its results.

The table is made from the folders of runs, or read from the `runs.csv` of an earlier report. Its columns are those of
the file, and `config`, the config of the run; `run`, the run with its folder, or None if only the file is left; `plan`,
`epochs` and `examples`, which follow from the config; and `diverged`.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.config import Config
from experiments.runner.finished_runs import Run
from experiments.runner.run_curves import summary_in
from experiments.sharpness.columns import COLUMN_PREFIXES, measured
from experiments.study import labels
from experiments.training.atomic_write import write_whole
from experiments.training.exceptions import reason_of
from sam_optax import BatchPlan

_RESULTS = ("test_error", "train_error", "test_loss", "train_loss")
_OF_EPOCHS = ("train_loss", "train_error", "test_loss", "test_error")
_COSTS = ("updates", "gradient_evaluations", "seconds")
_ALWAYS = ("dataset", "model", "method", "batch_plan", "lr_schedule", "learning_rate", "seed")
_FOLLOWED = "batch_plan_followed"


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
    measured = [name for name in table.columns if name.startswith(COLUMN_PREFIXES)]
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
    return {"run": run, "folder": run.folder.name, **_of_config(run.config, run.plan, result), **measured(run)}


def _row_of_file(row: Mapping[str, str]) -> dict[str, Any]:
    known = Config().settings
    values = {name: _value(text) for name, text in row.items() if text != ""}
    config = Config.from_settings(**{name: value for name, value in values.items() if name in known})
    plan = BatchPlan.parse(row[_FOLLOWED]) if config.adaptive is not None else config.plan
    result = {name: values.get(name) for name in (*_RESULTS, *_COSTS)}
    measured = {name: values.get(name) for name in row if name.startswith(COLUMN_PREFIXES)}
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
        elif name in (*_RESULTS, "seconds") or name.startswith(COLUMN_PREFIXES):
            table[name] = np.asarray(table[name], float)
    return table if table.empty else table.assign(diverged=table["diverged"].astype(bool))


def _value(text: str) -> Any:
    """Returns a number, a truth value or None if the text is one of them, else the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
