"""The tables of a study as rows of text, and how rows are shown in the terminal and in Markdown."""

import dataclasses
import os
import statistics

from rich import box
from rich.table import Table

from experiments.config import Config
from experiments.reporting.groups import Group, Study
from experiments.reporting.paired import Difference
from experiments.reporting.runs import Run

Rows = list[tuple[str, ...]]
"""A table: its heading, and the rows below it, of equal length."""


def error_rows(study: Study) -> Rows:
    """Methods by strategies: test error in %, mean ± standard deviation over seeds; below it the updates."""
    cells = {(group.row, group.column): group for group in study.groups}
    columns = study.columns
    return [
        ("test error, %", *map(strategy_heading, columns)),
        *((row, *(_error(cells.get((row, column)), study) for column in columns)) for row in study.rows),
        ("updates", *(_updates(study, column) for column in columns)),
    ]


def difference_rows(pairs: list[Difference]) -> Rows:
    """A row a pair: the mean paired difference in test error, its 95% t interval, and whether it holds."""
    heading = ("this", "less that", "points", "95% interval", "seeds", "verdict")
    return [heading, *(_difference(pair) for pair in pairs)]


def setting_rows(study: Study) -> Rows:
    """Every setting of the runs, with all values that it takes."""
    names = [field.name for field in dataclasses.fields(Config)]
    values = {name: list(dict.fromkeys(str(getattr(run.config, name)) for run in study.runs)) for name in names}
    return [("setting", "value"), *((name.replace("_", " "), "; ".join(values[name])) for name in names)]


def run_rows(study: Study) -> Rows:
    """A row a run: what it took, and where it ended."""
    heading = ("run", "seed", "test error, %", "training loss", "updates", "gradient evaluations", "seconds", "folder")
    root = os.path.commonpath([run.folder.resolve().parent for run in study.runs])
    return [heading, *(_run(group, run, root) for group in study.groups for run in group.runs)]


def figure_columns(rows: Rows) -> list[bool]:
    """Which columns hold figures, or dashes in the place of figures, alone: these stand to the right."""
    return [all(cell[:1] in tuple("0123456789+−–") for cell in cells) for _, *cells in zip(*rows, strict=True)]


def as_terminal(rows: Rows) -> Table:
    """The rows as a table of rich."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading, is_figure in zip(rows[0], figure_columns(rows), strict=True):
        table.add_column(heading, justify="right" if is_figure else "left", overflow="fold")
    for row in rows[1:]:
        table.add_row(*row)
    return table


def as_markdown(rows: Rows) -> str:
    """The rows as a table in Markdown."""
    rule = tuple("---:" if is_figure else "---" for is_figure in figure_columns(rows))
    lines = [rows[0], rule, *rows[1:]]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def mean_and_deviation(values: list[float], digits: str = ".2f") -> str:
    """Mean ± sample standard deviation; the mean alone of a single value."""
    mean = f"{statistics.mean(values):{digits}}"
    return f"{mean} ± {statistics.stdev(values):{digits}}" if len(values) > 1 else mean


def strategy_heading(column: str) -> str:
    """The strategy, with the paper's sign for it."""
    return column.replace("increasing", "increasing (+B)").replace("cosine", "cosine (+C)")


def _error(group: Group | None, study: Study) -> str:
    """A cell: how many seeds it has is said where it is not all of them, and how many of its runs diverged."""
    if group is None:
        return "–"
    text = mean_and_deviation([100 * run.result["test_error"] for run in group.runs])
    seeds = [] if len(group.runs) == len(study.seeds) else [f"seeds: {len(group.runs)}"]
    remarks = seeds + ([f"diverged: {group.diverged}"] if group.diverged else [])
    return f"{text} ({', '.join(remarks)})" if remarks else text


def _updates(study: Study, column: str) -> str:
    counts = sorted({run.result["updates"] for group in study.groups if group.column == column for run in group.runs})
    return ", ".join(map(str, counts))


def _difference(pair: Difference) -> tuple[str, ...]:
    interval = f"{_signed(pair.low)} to {_signed(pair.high)}"
    return pair.first.name, pair.second.name, _signed(pair.mean), interval, str(pair.seeds), pair.verdict


def _run(group: Group, run: Run, root: str) -> tuple[str, ...]:
    return (
        group.name,
        str(run.config.seed),
        f"{100 * run.result['test_error']:.2f}",
        "– (diverged)" if run.diverged else f"{run.result['train_loss']:.4g}",
        str(run.result["updates"]),
        str(run.result["gradient_evaluations"]),
        f"{run.result['seconds']:.0f}",
        os.path.relpath(run.folder.resolve(), root),
    )


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
