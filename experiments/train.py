"""Train one network: `python -m experiments.train --method gsam --batch-plan 40x16,40x32 --output runs/first`."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import track

from experiments import run
from experiments.command_line import parse, sensibly
from experiments.config import Config


@dataclass(frozen=True)
class Arguments:
    """Train one network with a sharpness-aware method, under a batch plan and a learning-rate schedule.

    Attributes:
      output: The folder for config, metrics, result and trained state: new, or empty.
      config: What to run.
    """

    output: Path
    config: Annotated[Config, tyro.conf.arg(name="")]


def main() -> None:
    """Parse, build, call."""
    arguments = parse(Arguments, "python -m experiments.train")
    config = arguments.config
    dataset = sensibly(run.load, config)
    output = sensibly(run.claim, arguments.output)
    updates = config.plan.total_steps(len(dataset.train))
    watched = partial(track, total=updates, description=f"{config.method} on {config.dataset}", transient=True)
    result = run.execute(config, dataset, output, watched)
    Console(soft_wrap=True).print(
        f"{config.method} on {config.dataset}: test error {100 * result['test_error']:.2f}% after {updates} updates "
        f"in {result['seconds']:.0f} s; metrics, result and trained state are in {output}",
        highlight=False,
    )


if __name__ == "__main__":
    main()
