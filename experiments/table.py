"""The paper's table: the test error of every method under every strategy."""

import statistics
from collections import defaultdict
from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table

from experiments.grid import METHODS, STRATEGIES, Cell, result_of

LABELS = {"constant": "constant", "increasing": "increasing (+B)", "cosine": "cosine (+C)"}


def error_table(cells: Iterable[Cell], style: box.Box = box.SIMPLE_HEAD) -> Table:
    """Test error in %, mean ± standard deviation over seeds, and below it the updates of each strategy.

    Args:
      cells: runs that are done.
      style: the lines that it is drawn with.

    Returns:
      A table of methods by strategies.
    """
    results = defaultdict(list)
    for cell in cells:
        results[cell.method, cell.strategy].append(result_of(cell))
    table = Table("test error, %", box=style)
    for strategy in STRATEGIES:
        table.add_column(LABELS[strategy], justify="right")
    for method in METHODS:
        errors = [[100 * r["test_error"] for r in results[method, strategy]] for strategy in STRATEGIES]
        table.add_row(method.upper(), *map(mean_and_deviation, errors))
    table.add_row("updates", *(str(results[METHODS[0], strategy][0]["updates"]) for strategy in STRATEGIES))
    return table


def as_markdown(cells: Iterable[Cell]) -> str:
    """The table in Markdown."""
    console = Console(width=200)
    with console.capture() as capture:
        console.print(error_table(cells, box.MARKDOWN))
    return "\n".join(line.rstrip() for line in capture.get().strip().splitlines())


def mean_and_deviation(values: list[float]) -> str:
    """Mean ± sample standard deviation; the mean alone of a single value."""
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean
