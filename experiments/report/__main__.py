"""Report runs: `python -m experiments.report runs/digits` makes tables, pictures and an HTML page."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from tyro.conf import Positional

from experiments.cli.command import Command
from experiments.cli.errors import exit_on_value_error, parse, start
from experiments.cli.output_folder import make_folder
from experiments.runner.finished_runs import find_runs


@dataclass(frozen=True)
class Arguments:
    """Report finished runs: a table of test errors, paired differences, pictures, and one HTML page of it all.

    Attributes:
      runs: Folders that contain runs, at any depth.
      output: The folder of the report. By default the folder report in the first of the runs' folders.
      chosen: The settings that were chosen for each method and strategy, for example learning_rate rho in a tuned
        study.
    """

    runs: Positional[tuple[Path, ...]]
    output: Path | None = None
    chosen: tuple[str, ...] = ()


COMMAND = Command(
    "report",
    Arguments,
    "runs/digits runs/first --output runs/report",
)


def main() -> None:
    """Parses the command line, reads the runs and writes the report."""
    arguments = parse(COMMAND)
    from experiments.report.publish import publish  # noqa: PLC0415 - it imports SciPy's statistics and matplotlib

    runs = exit_on_value_error(find_runs, arguments.runs)
    output = exit_on_value_error(make_folder, arguments.output or arguments.runs[0] / "report")
    exit_on_value_error(publish, runs, output, Console(soft_wrap=True, markup=False, highlight=False), arguments.chosen)


if __name__ == "__main__":
    start(main)
