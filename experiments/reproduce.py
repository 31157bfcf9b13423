"""Reproduce the paper's grid: `python -m experiments.reproduce --output runs/digits`."""

from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console

from experiments import data, run
from experiments.cell import run_all
from experiments.command_line import parse, sensibly, start
from experiments.grid import Grid
from experiments.measuring import Sharpness
from experiments.reporting import find_runs, publish


@dataclass(frozen=True)
class Arguments:
    """Run the paper's grid: SGD, SAM and GSAM by constant batch, increasing batch and cosine learning rate; report it.

    Attributes:
      study: What to run.
      location: Where the data are.
      sharpness: How the sharpness of each run is measured.
      tensorboard: Write TensorBoard's event files, too, into the folder tensorboard of each run.
    """

    study: Annotated[Grid, tyro.conf.arg(name="")]
    location: Annotated[data.Location, tyro.conf.arg(name="")]
    sharpness: Sharpness = Sharpness()
    tensorboard: bool = False


def main() -> None:
    """Parse, build, call."""
    arguments = parse(Arguments, "python -m experiments.reproduce")
    study = arguments.study
    console = Console(soft_wrap=True, markup=False, highlight=False)
    report = sensibly(run.make_folder, study.output / "report")
    title = f"{study.model} on {study.dataset}"
    options = {"sharpness": arguments.sharpness, "tensorboard": arguments.tensorboard}
    run_all(title, study.cells, arguments.location, console, **options)
    sensibly(lambda: publish(find_runs([cell.folder for cell in study.cells]), report, console))


if __name__ == "__main__":
    start(main)
