"""Reports runs: `python -m experiments.report runs/digits` writes tables, pictures and an HTML page."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from tyro.conf import Positional

from experiments.cli.command import Command
from experiments.cli.errors import exit_on_value_error, parse, start
from experiments.cli.output_folder import make_folder
from experiments.runner.finished_runs import find_runs

_PROGRAM = "python -m experiments.report"


@dataclass(frozen=True)
class Arguments:
    """Report finished runs: the answers to the paper's claims, tables and pictures, on one HTML page.

    Attributes:
      runs: Folders that contain runs, at any depth.
      output: The folder of the report. By default the folder report in the first of the runs' folders.
      chosen: The settings that were chosen for each method and strategy, for example learning_rate rho in a tuned
        study.
      contrasts: A TOML file with planned contrasts. By default contrasts.toml in the output folder, if it exists.
      again: Files runs.csv of earlier reports, whose tables and answers are made again; no folders of runs are needed.
    """

    runs: Positional[tuple[Path, ...]] = ()
    output: Path | None = None
    chosen: tuple[str, ...] = ()
    contrasts: Path | None = None
    again: tuple[Path, ...] = ()


COMMAND = Command("report", Arguments, "runs/digits runs/first --output runs/report")


def main() -> None:
    """Parses the command line, and writes the reports."""
    arguments = parse(COMMAND)
    from experiments.report.page import About, publish, publish_again  # noqa: PLC0415 - it imports pandas and matplotlib

    console = Console(soft_wrap=True, markup=False, highlight=False)
    if arguments.again:
        exit_on_value_error(_refuse_with_again, arguments)
        here = About.now("", ())  # before the first report changes the working tree
        for file in arguments.again:
            exit_on_value_error(publish_again, file, console, here)
        if not arguments.runs:
            return
    runs = exit_on_value_error(find_runs, arguments.runs)
    output = exit_on_value_error(make_folder, arguments.output or arguments.runs[0] / "report")
    command, chosen, contrasts = f"{_PROGRAM} {shlex.join(sys.argv[1:])}", arguments.chosen, arguments.contrasts
    exit_on_value_error(lambda: publish(runs, output, console, chosen=chosen, contrasts=contrasts, command=command))


def _refuse_with_again(arguments: Arguments) -> None:
    given = [name for name in ("output", "chosen", "contrasts") if getattr(arguments, name)]
    if given and not arguments.runs:
        value = getattr(arguments, given[0])
        raise ValueError(f"{given[0]} is {value}: omit it with again, which uses the settings of the earlier report.")


if __name__ == "__main__":
    start(main)
