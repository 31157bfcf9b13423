"""Look at a batch: `python -m experiments.show_batch --random-erasing 0.25 --mixing 0.5 --output runs/looks`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from experiments import data, showing
from experiments.cli.errors import parse, sensibly, start
from experiments.cli.output_folder import make_folder
from experiments.config import Config
from experiments.config.checks import check_count
from experiments.runner import run


@dataclass(frozen=True)
class Arguments:
    """Draw the first images of a batch as the network sees them, step by step of the recipe.

    Attributes:
      config: The run that the batch is of.
      output: The folder for the picture, batch.png: a former one is replaced.
      location: Where the data are.
      batch: Which batch of the run, counted from 0.
      images: How many images are drawn.
    """

    config: Annotated[Config, tyro.conf.arg(name="")]
    output: Path
    location: Annotated[data.Location, tyro.conf.arg(name="")]
    batch: int = 0
    images: int = 8


def main() -> None:
    """Parse, build, call."""
    arguments = parse(Arguments, "python -m experiments.show_batch")
    sensibly(check_count, "images", arguments.images)
    dataset = sensibly(run.load, arguments.config, arguments.location)
    views = sensibly(showing.views, arguments.config, dataset, arguments.batch)
    path = sensibly(make_folder, arguments.output) / "batch.png"
    showing.draw(views, arguments.images, path)
    Console(soft_wrap=True, markup=False, highlight=False).print(f"batch {arguments.batch}, step by step, is in {path}")


if __name__ == "__main__":
    start(main)
