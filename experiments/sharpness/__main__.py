"""Measures the sharpness of finished runs: `python -m experiments.sharpness runs/digits`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import Progress
from tyro.conf import Positional

from experiments import data
from experiments.cli.command import Command
from experiments.cli.errors import exit_on_value_error, parse, start
from experiments.cli.tables import as_terminal, without_empty_columns
from experiments.runner import run
from experiments.runner.finished_runs import find_runs
from experiments.sharpness import SharpnessSettings, measure_finished_run
from experiments.sharpness.protocol import measured_rows


@dataclass(frozen=True)
class Arguments:
    """Measure how sharp the minima of finished runs are, and write sharpness.jsonl into the folder of each run.

    python -m experiments.report shows the results.

    Attributes:
      runs: Folders that contain runs, at any depth.
      settings: What to measure. With --during each run is trained again and measured during training.
      location: The location of the data.
    """

    runs: Positional[tuple[Path, ...]]
    settings: Annotated[SharpnessSettings, tyro.conf.arg(name="")]
    location: Annotated[data.Location, tyro.conf.arg(name="")]


COMMAND = Command(
    "sharpness",
    Arguments,
    "runs/digits --measures worst_case curve --rho 0.0005",
)


def main() -> None:
    """Parses the command line and measures the runs."""
    arguments = parse(COMMAND)
    console = Console(soft_wrap=True, markup=False, highlight=False)
    runs = exit_on_value_error(find_runs, arguments.runs)
    for each in runs:
        exit_on_value_error(run.load, each.config, arguments.location)
    with Progress(console=console, transient=True) as progress:
        for each in progress.track(runs, description="runs"):
            dataset = run.load(each.config, arguments.location)
            exit_on_value_error(measure_finished_run, each.folder, each.config, dataset, arguments.settings, console)
    rows = measured_rows(find_runs(arguments.runs), arguments.settings.measures)
    console.print(as_terminal(without_empty_columns(rows)))
    console.print("in sharpness.jsonl in the folder of each run; python -m experiments.report shows more")


if __name__ == "__main__":
    start(main)
