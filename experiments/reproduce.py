"""Reproduce the paper's grid: `python -m experiments.reproduce --output runs/digits`."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import Progress

from experiments import data, grid, run
from experiments.command_line import parse, sensibly, start
from experiments.grid import Cell, Grid
from experiments.reporting import find_runs, publish


@dataclass(frozen=True)
class Arguments:
    """Run the paper's grid: SGD, SAM and GSAM by constant batch, increasing batch and cosine learning rate; report it.

    Attributes:
      study: What to run.
      location: Where the data are.
      tensorboard: Write TensorBoard's event files, too, into the folder tensorboard of each run.
    """

    study: Annotated[Grid, tyro.conf.arg(name="")]
    location: Annotated[data.Location, tyro.conf.arg(name="")]
    tensorboard: bool = False


def main() -> None:
    """Parse, build, call."""
    arguments = parse(Arguments, "python -m experiments.reproduce")
    study = arguments.study
    console = Console(soft_wrap=True, markup=False, highlight=False)
    report = sensibly(run.make_folder, study.output / "report")
    left = sensibly(_to_do, arguments)
    console.print(f"{len(study.cells)} runs of {study.model} on {study.dataset}, {len(left)} of them to do")
    with Progress(console=console, transient=True) as progress:
        overall = progress.add_task("runs", total=len(left))
        for cell in left:
            _execute(cell, arguments, progress)
            progress.advance(overall)
    sensibly(lambda: publish(find_runs([cell.folder for cell in study.cells]), report, console))


def _to_do(arguments: Arguments) -> list[Cell]:
    cells = arguments.study.cells
    for cell in cells:
        run.load(cell.config, arguments.location)
    return [cell for cell in cells if not grid.is_done(cell)]


def _execute(cell: Cell, arguments: Arguments, progress: Progress) -> None:
    name = f"{cell.method} {cell.strategy}, seed {cell.config.seed}"
    dataset = run.load(cell.config, arguments.location)
    task = progress.add_task(name, total=cell.config.plan.total_steps(len(dataset.train)))
    result = grid.execute(cell, dataset, partial(progress.track, task_id=task), arguments.tensorboard)
    progress.remove_task(task)
    progress.console.print(f"{name}: {run.ending(result)}, in {result['seconds']:.1f} s")


if __name__ == "__main__":
    start(main)
