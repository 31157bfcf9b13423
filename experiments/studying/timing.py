"""What a study takes on this machine, from measured steps on made-up images of its true shapes."""

import dataclasses
import statistics
import time
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from rich.console import Console

from experiments import data
from experiments.cli.tables import Rows, as_terminal
from experiments.config import Config
from experiments.runner.program import build
from experiments.studying.cell import Cell
from experiments.studying.outlook import outlook
from experiments.training.methods import METHODS

_STEPS = 5


class Timed(NamedTuple):
    """A method's step.

    Attributes:
      seconds: of an update.
      batch_size: how many images it sees.
    """

    seconds: float
    batch_size: int

    @property
    def input_rate(self) -> float:
        """The images a second that the pipeline has to bring."""
        return self.batch_size / self.seconds


def timed(config: Config, batch_size: int) -> Timed:
    """The median time of some updates, each waited for, after one that compiles."""
    alone = dataclasses.replace(config, batch_plan=f"1x{batch_size}", passes=1, warmup_epochs=0.0, m=None)
    dataset = data.made_up(config.dataset, batch_size)
    state, program = build(alone, dataset)
    at_start = {name: np.float32(schedule(0.0)) for name, schedule in program.schedules.items()}
    batch = next(data.training_batches(dataset.train, alone.plan, alone.seed))
    perturb = METHODS[config.method].makes_second_pass

    def durations() -> Iterator[float]:
        nonlocal state
        for _ in range(1 + _STEPS):
            started = time.perf_counter()
            state, metrics = program.step(state, batch, at_start, perturb=perturb)
            jax.block_until_ready(metrics)
            yield time.perf_counter() - started

    return Timed(statistics.median(list(durations())[1:]), batch_size)


def show(cells: list[Cell], stored: int, batch_size: int, console: Console) -> None:
    """Time a step of each method, and print what all runs of it would take on this machine.

    Args:
      cells: the runs.
      stored: how many training examples the data set has.
      batch_size: of the steps that are timed; the time of an example is taken to be the same at any other.
      console: the terminal.
    """
    by_method: dict[str, list[Config]] = {}
    for cell in cells:
        by_method.setdefault(cell.config.method, []).append(cell.config)
    heading = ("method", "runs", f"s an update of {batch_size}", "images/s", "hours on this machine")
    rows: Rows = [heading]
    for method, configs in by_method.items():
        found = timed(configs[0], batch_size)
        images = sum(outlook(config, stored).examples for config in configs)
        hours = images / found.input_rate / 3600
        figures = (
            f"{found.seconds:.3g}",
            f"{found.input_rate:.3g}",
            f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}",
        )
        rows.append((METHODS[method].title, str(len(configs)), *figures))
    console.print(as_terminal(rows))
    console.print(f"Median of {_STEPS} updates on made-up images; with evaluation and sharpness it takes longer.")
