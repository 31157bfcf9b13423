"""A dry run of a study: its runs and their time, before any of them is run.

The time is estimated from measured steps on made-up images of the true shapes.
"""

import dataclasses
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from rich.console import Console

from experiments import data
from experiments.cli.tables import Rows, as_terminal
from experiments.config import Config
from experiments.runner.program import build
from experiments.study.run_spec import RunSpec
from experiments.training import learning_rate
from experiments.training.methods import METHODS

_WIDTH = 160  # of a file, or a pipe
_IF_IT_NEVER_GROWS = (
    "Adaptive plans are counted as if their batch never grew: growth makes fewer updates of the same epochs, and more "
    "epochs of the same updates."
)


class Estimate(NamedTuple):
    """What a run will be; where its batch is decided on the way, what it is if that never grows.

    Attributes:
      updates: how many it makes.
      examples: how many it goes through, in all its epochs.
      boundaries: the updates at which the batch grows, or falls.
      first_rate: the learning rate of its first update.
      last_rate: that of its last one.
      gradient_evaluations: how many it makes; expected, where lots decide on the second pass, and at most, where the
        gradient does.
    """

    updates: int
    examples: int
    boundaries: tuple[int, ...]
    first_rate: float
    last_rate: float
    gradient_evaluations: int


def estimate(config: Config, stored: int) -> Estimate:
    """What the run will be with a data set of which so many training examples are stored."""
    size, plan = config.epoch_size(config.num_examples(stored)), config.plan
    updates = plan.total_steps(size)
    rate = learning_rate.parse(config.lr_schedule, config.learning_rate, plan.epochs, config.warmup_epochs)
    first, last = (float(rate(plan.epoch_at(step, size))) for step in (0, updates - 1))
    examples = sum(stage.epochs * (size // stage.batch_size) * stage.batch_size for stage in plan.stages)
    return Estimate(
        updates,
        examples,
        plan.boundaries(size),
        first,
        last,
        updates + config.second_pass_gradients * _second_passes(config, size),
    )


def cost(config: Config, stored: int) -> float:
    """What a run costs, in gradients of one example."""
    return estimate(config, stored).examples * evaluations_an_update(config, stored)


def evaluations_an_update(config: Config, stored: int) -> float:
    """How many gradient evaluations a run makes for an update, in the mean."""
    seen = estimate(config, stored)
    return seen.gradient_evaluations / seen.updates


def show_runs(cells: list[RunSpec], stored: int, root: Path, console: Console) -> None:
    """Print what every run will be, and what all of them are together.

    Args:
      cells: the runs.
      stored: how many training examples the data set has.
      root: the folder of the study, from which on theirs are told.
      console: the terminal.
    """
    seen = [estimate(cell.config, stored) for cell in cells]
    wide = console if console.is_terminal else Console(file=console.file, width=_WIDTH)
    wide.print(as_terminal(_rows(cells, seen, root)))
    updates, evaluations = (sum(getattr(each, name) for each in seen) for name in ("updates", "gradient_evaluations"))
    of_examples = sum(cost(cell.config, stored) for cell in cells)
    console.print(
        f"{len(cells)} runs: {updates:,} updates and {evaluations:,} gradient evaluations, {of_examples:,.0f} if "
        "counted by the example."
    )
    if any(cell.config.adaptive is not None for cell in cells):
        console.print(_IF_IT_NEVER_GROWS)


def _rows(cells: list[RunSpec], seen: list[Estimate], root: Path) -> Rows:
    heading = ("run", "plan", "updates", "examples", "boundaries", "first rate", "last rate", "gradient evaluations")
    return [heading, *(_row(cell, each, root) for cell, each in zip(cells, seen, strict=True))]


def _row(cell: RunSpec, seen: Estimate, root: Path) -> tuple[str, ...]:
    boundaries = ", ".join(f"{step:,}" for step in seen.boundaries) or "–"
    boundaries = boundaries if cell.config.adaptive is None else "where the noise asks"
    rates = (f"{seen.first_rate:.4g}", f"{seen.last_rate:.4g}")
    counts = (f"{seen.updates:,}", f"{seen.examples:,}", boundaries)
    return str(cell.folder.relative_to(root)), cell.config.batch_plan, *counts, *rates, f"{seen.gradient_evaluations:,}"


def _second_passes(config: Config, size: int) -> int:
    if not METHODS[config.method].makes_second_pass:
        return 0
    policy, updates = config.policy(size), config.plan.total_steps(size)
    if config.when == "always":
        return updates
    if str(config.when).startswith("bernoulli"):  # drawn one by one, which takes its time
        return round(float(str(config.when).partition(":")[2]) * updates)
    return sum(policy.at(step) is not False for step in range(updates))


_STEPS = 5


class StepTime(NamedTuple):
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


def time_step(config: Config, batch_size: int) -> StepTime:
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

    return StepTime(statistics.median(list(durations())[1:]), batch_size)


def show_times(cells: list[RunSpec], stored: int, batch_size: int, console: Console) -> None:
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
        found = time_step(configs[0], batch_size)
        images = sum(estimate(config, stored).examples for config in configs)
        hours = images / found.input_rate / 3600
        figures = (
            f"{found.seconds:.3g}",
            f"{found.input_rate:.3g}",
            f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}",
        )
        rows.append((METHODS[method].title, str(len(configs)), *figures))
    console.print(as_terminal(rows))
    console.print(f"Median of {_STEPS} updates on made-up images; with evaluation and sharpness it takes longer.")
