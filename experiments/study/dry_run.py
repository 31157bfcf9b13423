"""A dry run of a study: lists its runs and estimates their work without executing them."""

from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from experiments.cli.tables import Rows, as_terminal
from experiments.config import Config
from experiments.runner.program import schedules
from experiments.study.run_spec import RunSpec
from experiments.training.methods import METHODS

_WIDTH = 180  # columns, if the output is a file or a pipe
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
    evaluations = _gradient_evaluations(config, size, updates)
    return Estimate(updates, examples, plan.boundaries(size), first, last, evaluations)


def evaluations_per_update(config: Config, stored: int) -> float:
    """Returns the mean number of gradient evaluations of an update, without an estimate of the rest of the run."""
    size = config.recipe.epoch_size(config.problem.num_examples(stored))
    updates = config.plan.total_steps(size)
    return _gradient_evaluations(config, size, updates) / updates


def _gradient_evaluations(config: Config, size: int, updates: int) -> int:
    return updates + config.second_pass_gradients * _second_passes(config, size, range(updates))


def updates_by_kind(config: Config, stored: int) -> dict[tuple[int, bool], int]:
    """Returns the number of updates at each batch size, with and without a second pass.

    Args:
      config: the config of a run.
      stored: the number of training examples of the data set.

    Returns:
      The number of updates for each pair of a batch size and whether the update makes a second pass; kinds without
      updates are omitted. The numbers are estimates in the same cases as those of `Estimate`.
    """
    size, plan = config.recipe.epoch_size(config.problem.num_examples(stored)), config.plan
    found: dict[tuple[int, bool], int] = {}
    ends = [0, *plan.boundaries(size), plan.total_steps(size)]
    for stage, (first, last) in zip(plan.stages, pairwise(ends), strict=True):
        second = _second_passes(config, size, range(first, last))
        for perturb, updates in ((True, second), (False, last - first - second)):
            if updates:
                kind = (stage.batch_size, perturb)
                found[kind] = found.get(kind, 0) + updates
    return found


def _second_passes(config: Config, size: int, steps: range) -> int:
    """Returns how many of these steps make a second pass, in epochs of `size` examples."""
    if not METHODS[config.method].makes_second_pass:
        return 0
    if config.when == "always":
        return len(steps)
    if str(config.when).startswith("bernoulli"):  # the expected number, since drawing for each update is slow
        return round(float(str(config.when).partition(":")[2]) * len(steps))
    policy = config.policy(size)
    return sum(policy.at(step) is not False for step in steps)


def show_runs(specs: list[RunSpec], stored: int, root: Path, console: Console) -> None:
    """Prints the estimate of each run and the total of all runs.

    Args:
      specs: the runs.
      stored: the number of training examples of the data set.
      root: the folder of the study; the folders of the runs are shown relative to it.
      console: the terminal.
    """
    estimates = [estimate(spec.config, stored) for spec in specs]
    heading = ("run", "plan", "updates", "examples", "boundaries", "first rate", "last rate", "gradient evaluations")
    rows: Rows = [heading]
    for spec, each in zip(specs, estimates, strict=True):
        boundaries = ", ".join(f"{step:,}" for step in each.boundaries) or "–"
        boundaries = boundaries if spec.config.adaptive is None else "decided by the noise"
        run = (str(spec.folder.relative_to(root)), spec.config.batch_plan, f"{each.updates:,}", f"{each.examples:,}")
        rates = (f"{each.first_rate:.4g}", f"{each.last_rate:.4g}")
        rows.append((*run, boundaries, *rates, f"{each.gradient_evaluations:,}"))
    print_wide(rows, console)
    console.print(
        f"{len(specs)} runs: {sum(each.updates for each in estimates):,} updates and "
        f"{sum(each.gradient_evaluations for each in estimates):,} gradient evaluations, "
        f"which are {sum(each.cost for each in estimates):,.0f} gradients of single examples."
    )
    if any(spec.config.adaptive is not None for spec in specs):
        console.print(_IF_IT_NEVER_GROWS)


def print_wide(rows: Rows, console: Console) -> None:
    """Prints a table; if the output is a file or a pipe, it has 180 columns."""
    wide = console if console.is_terminal else Console(file=console.file, width=_WIDTH)
    wide.print(as_terminal(rows))
