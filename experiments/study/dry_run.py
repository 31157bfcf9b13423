"""A dry run of a study: lists its runs and estimates their time without executing them.

The time is estimated from measured training steps on random images of the true shapes.
"""

import statistics
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from rich.console import Console

from experiments import data
from experiments.cli.tables import Rows, as_terminal
from experiments.config import Config
from experiments.runner.program import build, schedules
from experiments.study.run_spec import RunSpec
from experiments.training.methods import METHODS

_WIDTH = 160  # columns, if the output is a file or a pipe
_STEPS = 5  # timed steps
_IF_IT_NEVER_GROWS = (
    "Adaptive plans are counted as if their batch never grew. With growth, the same epochs have fewer updates, and the "
    "same updates take more epochs."
)


class Estimate(NamedTuple):
    """The estimated work of a run. A run with an adaptive batch plan is estimated as if its batch never grew.

    Attributes:
      updates: the number of updates.
      examples: the number of examples in all its epochs.
      boundaries: the updates at which the batch size changes.
      first_rate: the learning rate of the first update.
      last_rate: the learning rate of the last update.
      gradient_evaluations: the number of gradient evaluations. It is the expected number if random draws decide on the
        second pass, and an upper bound if the gradient decides.
    """

    updates: int
    examples: int
    boundaries: tuple[int, ...]
    first_rate: float
    last_rate: float
    gradient_evaluations: int

    @property
    def evaluations_per_update(self) -> float:
        """The mean number of gradient evaluations of an update."""
        return self.gradient_evaluations / self.updates

    @property
    def cost(self) -> float:
        """The cost of the run, in gradients of one example."""
        return self.examples * self.evaluations_per_update


def estimate(config: Config, stored: int) -> Estimate:
    """Estimates a run on a data set with `stored` training examples."""
    size, plan = config.recipe.epoch_size(config.problem.num_examples(stored)), config.plan
    updates = plan.total_steps(size)
    rate = schedules(config, size)["learning_rate"]
    first, last = (float(rate(plan.epoch_at(step, size))) for step in (0, updates - 1))
    examples = plan.examples_used(updates, size)
    evaluations = updates + config.second_pass_gradients * _second_passes(config, size)
    return Estimate(updates, examples, plan.boundaries(size), first, last, evaluations)


def _second_passes(config: Config, size: int) -> int:
    if not METHODS[config.method].makes_second_pass:
        return 0
    policy, updates = config.policy(size), config.plan.total_steps(size)
    if config.when == "always":
        return updates
    if str(config.when).startswith("bernoulli"):  # the expected number, since drawing for each update is slow
        return round(float(str(config.when).partition(":")[2]) * updates)
    return sum(policy.at(step) is not False for step in range(updates))


def show_runs(cells: list[RunSpec], stored: int, root: Path, console: Console) -> None:
    """Prints the estimate of each run and the total of all runs.

    Args:
      cells: the runs.
      stored: the number of training examples of the data set.
      root: the folder of the study; the folders of the runs are shown relative to it.
      console: the terminal.
    """
    estimates = [estimate(cell.config, stored) for cell in cells]
    heading = ("run", "plan", "updates", "examples", "boundaries", "first rate", "last rate", "gradient evaluations")
    rows: Rows = [heading]
    for cell, each in zip(cells, estimates, strict=True):
        boundaries = ", ".join(f"{step:,}" for step in each.boundaries) or "–"
        boundaries = boundaries if cell.config.adaptive is None else "decided by the noise"
        run = (str(cell.folder.relative_to(root)), cell.config.batch_plan, f"{each.updates:,}", f"{each.examples:,}")
        rates = (f"{each.first_rate:.4g}", f"{each.last_rate:.4g}")
        rows.append((*run, boundaries, *rates, f"{each.gradient_evaluations:,}"))
    wide = console if console.is_terminal else Console(file=console.file, width=_WIDTH)
    wide.print(as_terminal(rows))
    console.print(
        f"{len(cells)} runs: {sum(each.updates for each in estimates):,} updates and "
        f"{sum(each.gradient_evaluations for each in estimates):,} gradient evaluations, "
        f"{sum(each.cost for each in estimates):,.0f} if each example is counted."
    )
    if any(cell.config.adaptive is not None for cell in cells):
        console.print(_IF_IT_NEVER_GROWS)


def time_step(config: Config, batch_size: int) -> float:
    """Returns the median time of an update in seconds. A first update, which compiles, is not counted."""
    single = config.with_settings(batch_plan=f"1x{batch_size}", passes=1, warmup_epochs=0.0, m=None)
    dataset = data.synthetic(config.problem.dataset, batch_size, own=config.problem.own)
    state, program = build(single, dataset)
    at_start = {name: np.float32(schedule(0.0)) for name, schedule in program.schedules.items()}
    batch = next(data.training_batches(dataset.train, single.plan, single.seed))
    seconds = []
    for _ in range(1 + _STEPS):
        started = time.perf_counter()
        state, metrics = program.step(state, batch, at_start, perturb=METHODS[config.method].makes_second_pass)
        jax.block_until_ready(metrics)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def show_times(cells: list[RunSpec], stored: int, batch_size: int, console: Console) -> None:
    """Times a step of each method, and prints how long all runs of the method would take on this machine.

    Args:
      cells: the runs.
      stored: the number of training examples of the data set.
      batch_size: the batch size of the timed steps; the time per example is assumed to be equal at all batch sizes.
      console: the terminal.
    """
    by_method: dict[str, list[Config]] = {}
    for cell in cells:
        by_method.setdefault(cell.config.method, []).append(cell.config)
    rows: Rows = [("method", "runs", f"seconds per update of {batch_size}", "images/s", "hours on this machine")]
    for method, configs in by_method.items():
        seconds = time_step(configs[0], batch_size)
        rate = batch_size / seconds
        hours = sum(estimate(config, stored).examples for config in configs) / rate / 3600
        shown = f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"
        rows.append((METHODS[method].title, str(len(configs)), f"{seconds:.3g}", f"{rate:.3g}", shown))
    console.print(as_terminal(rows))
    console.print(f"Median of {_STEPS} updates on random images, without evaluation and sharpness.")
