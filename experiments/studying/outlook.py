"""An outlook on a study: what its runs will be, before any of them is run."""

from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from experiments.cli.tables import Rows, as_terminal
from experiments.config import Config
from experiments.studying.cell import Cell
from experiments.training import learning_rate
from experiments.training.methods import METHODS

_WIDTH = 160  # of a file, or a pipe
_IF_IT_NEVER_GROWS = (
    "Adaptive plans are counted as if their batch never grew: growth makes fewer updates of the same epochs, and more "
    "epochs of the same updates."
)


class Outlook(NamedTuple):
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


def outlook(config: Config, stored: int) -> Outlook:
    """What the run will be with a data set of which so many training examples are stored."""
    size, plan = config.epoch_size(config.num_examples(stored)), config.plan
    updates = plan.total_steps(size)
    rate = learning_rate.parse(config.lr_schedule, config.learning_rate, plan.epochs, config.warmup_epochs)
    first, last = (float(rate(plan.epoch_at(step, size))) for step in (0, updates - 1))
    examples = sum(stage.epochs * (size // stage.batch_size) * stage.batch_size for stage in plan.stages)
    return Outlook(
        updates,
        examples,
        plan.boundaries(size),
        first,
        last,
        updates + config.second_pass_gradients * _second_passes(config, size),
    )


def cost(config: Config, stored: int) -> float:
    """What a run costs, in gradients of one example."""
    return outlook(config, stored).examples * evaluations_an_update(config, stored)


def evaluations_an_update(config: Config, stored: int) -> float:
    """How many gradient evaluations a run makes for an update, in the mean."""
    seen = outlook(config, stored)
    return seen.gradient_evaluations / seen.updates


def show(cells: list[Cell], stored: int, root: Path, console: Console) -> None:
    """Print what every run will be, and what all of them are together.

    Args:
      cells: the runs.
      stored: how many training examples the data set has.
      root: the folder of the study, from which on theirs are told.
      console: the terminal.
    """
    seen = [outlook(cell.config, stored) for cell in cells]
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


def _rows(cells: list[Cell], seen: list[Outlook], root: Path) -> Rows:
    heading = ("run", "plan", "updates", "examples", "boundaries", "first rate", "last rate", "gradient evaluations")
    return [heading, *(_row(cell, each, root) for cell, each in zip(cells, seen, strict=True))]


def _row(cell: Cell, seen: Outlook, root: Path) -> tuple[str, ...]:
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
