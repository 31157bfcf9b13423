"""Tests planned contrasts: `python -m experiments.contrasts runs/study contrasts.toml` prints a table."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from tyro.conf import Positional

from experiments.cli.command import Command
from experiments.cli.errors import exit_on_value_error, parse, start
from experiments.cli.output_folder import write_document
from experiments.cli.tables import as_markdown, as_terminal
from experiments.config import checks
from experiments.runner.finished_runs import find_runs


@dataclass(frozen=True)
class Arguments:
    """Test the contrasts of a study, which were written down before its first run.

    Attributes:
      study: The folder of the study.
      contrasts: A TOML file with a table [[contrast]] for each contrast: question, cell, and controls.
      learned: The training accuracy, as a fraction, below which a cell gets no verdict.
      output: A file for the table, as Markdown.
    """

    study: Positional[Path]
    contrasts: Positional[Path]
    learned: float = 0.2
    output: Path | None = None

    def __post_init__(self) -> None:
        checks.check_fraction("learned", self.learned)


COMMAND = Command(
    "contrasts",
    Arguments,
    "runs/study contrasts.toml --output contrasts.md",
)


def main() -> None:
    """Parses the command line, and prints the table."""
    arguments = parse(COMMAND)
    # these import pandas and SciPy's statistics, for which --help does not wait
    from experiments.report.planned_contrasts import (  # noqa: PLC0415
        CAPTION,
        cells_of,
        contrast_table,
        outcomes,
        read_contrasts,
    )
    from experiments.report.runs_table import table_of  # noqa: PLC0415

    planned = exit_on_value_error(read_contrasts, arguments.contrasts)
    found = exit_on_value_error(find_runs, [arguments.study])
    cells = exit_on_value_error(cells_of, table_of(found))
    rows = contrast_table(outcomes(planned, cells, arguments.learned)).rows
    Console(soft_wrap=True, markup=False, highlight=False).print(as_terminal(rows), CAPTION, sep="\n")
    if arguments.output is not None:
        exit_on_value_error(write_document, arguments.output, f"{as_markdown(rows)}\n\n{CAPTION}\n")


if __name__ == "__main__":
    start(main)
