"""Train one network: `python -m experiments.train --method gsam --batch-plan 40x16,40x32 --output runs/first`."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import track

from experiments import data, run, sharpness_file
from experiments.command_line import parse, sensibly, start
from experiments.config import Config
from experiments.measuring import Sharpness, watching
from experiments.training.writers import TensorBoard


@dataclass(frozen=True)
class Arguments:
    """Train one network with a sharpness-aware method, under a batch plan and a learning-rate schedule.

    Attributes:
      config: What to run.
      output: The folder for config, metrics, result and trained state: new, or empty.
      location: Where the data are.
      sharpness: How sharpness is measured, where --sharpness.during asks for it.
      tensorboard: Write TensorBoard's event files, too, into the folder tensorboard of the output.
    """

    config: Annotated[Config, tyro.conf.arg(name="")]
    output: Path
    location: Annotated[data.Location, tyro.conf.arg(name="")]
    sharpness: Sharpness = Sharpness()
    tensorboard: bool = False


def main() -> None:
    """Parse, build, call."""
    arguments = parse(Arguments, "python -m experiments.train")
    sensibly(_check, arguments.sharpness)
    config = arguments.config
    dataset = sensibly(run.load, config, arguments.location)
    output = sensibly(run.claim, arguments.output)
    writers = [TensorBoard(output / "tensorboard")] if arguments.tensorboard else []
    updates = run.total_updates(config, dataset)
    watched = partial(track, total=updates, description=f"{config.method} on {config.dataset}", transient=True)
    watch = watching(config, dataset, arguments.sharpness, partial(sharpness_file.add, output))
    result = run.execute(config, dataset, output, watched, writers, watch=watch)
    Console(soft_wrap=True, markup=False, highlight=False).print(
        f"{config.method} on {config.dataset}: {run.ending(result)} after {updates} updates "
        f"in {result['seconds']:.0f} s; metrics, result and trained state are in {output}"
    )


def _check(sharpness: Sharpness) -> None:
    if sharpness.during is None and sharpness != Sharpness():
        raise ValueError(
            "sharpness.during is None, and other settings of sharpness are given: say every how many epochs it is "
            "measured, or measure the finished run, by python -m experiments.sharpness."
        )


if __name__ == "__main__":
    start(main)
