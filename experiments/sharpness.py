"""Measure the sharpness of finished runs: `python -m experiments.sharpness runs/digits`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import Progress
from tyro.conf import Positional

from experiments import data, run
from experiments.command_line import parse, sensibly, start
from experiments.measuring import Sharpness, measure_run, replay
from experiments.reporting import Run, find_runs
from experiments.reporting.measured import measured_rows
from experiments.reporting.tables import as_terminal


@dataclass(frozen=True)
class Arguments:
    """Measure how sharp the minima of finished runs are, and write it beside each, as sharpness.jsonl; report shows it.

    Attributes:
      runs: Folders that hold runs, at any depth.
      settings: What to measure. With --during the run is trained again, and measured on the way.
      location: Where the data are.
    """

    runs: Positional[tuple[Path, ...]]
    settings: Annotated[Sharpness, tyro.conf.arg(name="")]
    location: Annotated[data.Location, tyro.conf.arg(name="")]


def main() -> None:
    """Parse, build, call."""
    arguments = parse(Arguments, "python -m experiments.sharpness")
    console = Console(soft_wrap=True, markup=False, highlight=False)
    runs = sensibly(find_runs, arguments.runs)
    for each in runs:
        sensibly(run.load, each.config, arguments.location)
    with Progress(console=console, transient=True) as progress:
        for each in progress.track(runs, description="runs"):
            _measure(each, arguments, console)
    console.print(as_terminal(measured_rows(find_runs(arguments.runs), arguments.settings.measures)))
    console.print("written beside each run, as sharpness.jsonl; python -m experiments.report shows more")


def _measure(each: Run, arguments: Arguments, console: Console) -> None:
    dataset = run.load(each.config, arguments.location)
    if arguments.settings.during is None:
        measure_run(each.folder, each.config, dataset, arguments.settings)
    elif not replay(each.folder, each.config, dataset, arguments.settings):
        console.print(
            f"{each.folder} was trained on another kind of machine: here its training gives other digits, and what was "
            "measured on the way is not of that run. Nothing was written for it."
        )


if __name__ == "__main__":
    start(main)
