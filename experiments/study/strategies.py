"""The strategies of a study: how the batch size and the learning rate change during a run."""

import math
from collections.abc import Callable

from experiments.config import checks
from sam_optax import BatchPlan

PAPERS = ("constant", "increasing", "cosine")
CONTROLS = ("constant_first", "constant_last", "constant_mean", "reversed")

_RESTARTS = 5  # number of cosine cycles, of equal length
_LATE = 0.8  # the fraction of the epochs after which `late_switch` changes its batch size


def late_switch(plan: BatchPlan) -> BatchPlan:
    """Returns a plan that keeps the first batch size until late, and then has the last one.

    It has the epochs of the given plan. The idea is from "Fast Catch-Up, Late Switching" (Wang et al., 2026,
    https://arxiv.org/abs/2602.14208): on hard tasks, small batches for most of the data and one switch to large batches
    in a late stage are the optimal schedule for a fixed number of examples. The switch is after four fifths of the
    epochs, rounded to whole epochs. The last stage is then that of the paper's increasing plan, whose five stages are
    equal, and only the batch sizes in between differ.

    Raises:
      ValueError: If the plan has fewer than two epochs.
    """
    epochs = int(plan.epochs)
    if epochs < 2:
        raise ValueError(f"increasing_plan is {plan}: give at least two epochs, since late_switch has two stages.")
    before = min(round(_LATE * epochs), epochs - 1)
    first, last = plan.stages[0].batch_size, plan.stages[-1].batch_size
    return BatchPlan.from_stages([(before, first), (epochs - before, last)])


def is_late_switch(plan: BatchPlan) -> bool:
    """Returns whether a plan grows once, in its last quarter.

    A plan of `late_switch` that was matched to a number of updates has its switch near four fifths, not at it.
    """
    if len(plan.stages) != 2:
        return False
    before, after = plan.stages
    return after.batch_size > before.batch_size and before.length > 3 * after.length


_OF_INCREASING: dict[str, Callable[[BatchPlan], BatchPlan]] = {
    "increasing": lambda plan: plan,
    "constant_first": lambda plan: BatchPlan.constant(plan.stages[0].batch_size, plan.epochs),
    "constant_last": lambda plan: BatchPlan.constant(plan.stages[-1].batch_size, plan.epochs),
    "constant_mean": lambda plan: BatchPlan.constant(mean_batch_size(plan), plan.epochs),
    "reversed": lambda plan: BatchPlan.from_stages(plan.stages[::-1]),
    "late_switch": late_switch,
}
_FALLING = ("cosine", "linear", "warm_restarts")

PLANNED = (*PAPERS, "linear", "warm_restarts", *CONTROLS)
FALLING_RADIUS = {"cosine_radius": "cosine", "linear_radius": "linear"}
"""The strategies whose radius and alpha fall in proportion to the learning rate, with their learning-rate schedules."""

LATE_SWITCH, ADAPTIVE, TUNED = "late_switch", "adaptive", "constant_tuned"
NAMES = (*PLANNED, LATE_SWITCH, *FALLING_RADIUS, ADAPTIVE, TUNED)


def at_length(name: str, text: str, epochs: int | None) -> BatchPlan:
    """Returns a plan in whole epochs whose stages are scaled by a common factor.

    Args:
      name: the argument that holds the plan, for error messages.
      text: the plan, for example `40x16,40x32`.
      epochs: the number of epochs of the scaled plan; None: the plan is not scaled.

    Raises:
      ValueError: If the text is no plan in whole epochs, or if a stage would not have a whole number of epochs.
    """
    checks.check_plan(name, text)
    plan = BatchPlan.parse(text)
    if epochs is None:
        return plan
    checks.check_count("epochs", epochs)
    lengths, whole = [int(stage.length) for stage in plan.stages], int(plan.epochs)
    smallest = whole // math.gcd(*lengths)
    if epochs % smallest:
        needed = f"for whole epochs in each of its stages, give a multiple of {smallest}, or another {name}."
        raise ValueError(f"epochs is {epochs}, and {name} is {text}: {needed}")
    scaled = [length * epochs // whole for length in lengths]
    return BatchPlan.from_stages(list(zip(scaled, (stage.batch_size for stage in plan.stages), strict=True)))


def plan_of_strategy(name: str, constant: BatchPlan, increasing: BatchPlan) -> BatchPlan:
    """Returns the batch plan of a strategy.

    Args:
      name: the strategy. `increasing` has the increasing plan. Its controls have as many epochs: `constant_first`,
        `constant_last` and `constant_mean` at its first, last and mean batch size, and `reversed` with its stages in
        reverse order; so does `late_switch`. The others have the constant plan.
      constant: the study's constant plan.
      increasing: the study's increasing plan.

    Raises:
      ValueError: If the increasing plan is too short for `late_switch`.
    """
    return _OF_INCREASING[name](increasing) if name in _OF_INCREASING else constant


def adaptive_plan(increasing: BatchPlan, rule: str, updates: int | None = None) -> str:
    """Returns the batch plan of the strategy `adaptive`, in the syntax of the command line.

    The noise of the gradients decides when the batch grows.

    Args:
      increasing: the study's increasing plan, which gives the first and the last batch size.
      rule: the rule that decides, for example `noise_scale`, `noise_scale:0.5` or `norm_test:0.5`.
      updates: the number of updates; None: the plan has as many epochs as the increasing plan.
    """
    budget = f"{increasing.epochs}" if updates is None else f"{updates}u"
    return f"adaptive:{budget}x{increasing.stages[0].batch_size}..{increasing.stages[-1].batch_size}:{rule}"


def rate_of(name: str, epochs: float) -> str:
    """Returns the learning-rate schedule of a strategy over `epochs` after the warm-up, for `learning_rate.parse`."""
    if name == "warm_restarts":
        return f"warm_restarts:{epochs / _RESTARTS:g}"
    name = FALLING_RADIUS.get(name, name)
    return name if name in _FALLING else "constant"


def mean_batch_size(plan: BatchPlan, parts: int | None = None) -> int:
    """Returns the mean batch size of the plan's updates: a constant batch of this size makes as many updates.

    For a plan in epochs it is the harmonic mean over the epochs, `E / Σ (1/b)`, rounded. Incomplete batches are dropped
    and not considered. With `parts`, the number of examples of a part of a batch, the mean is rounded to a multiple of
    it.
    """
    updates = [stage.length / (1 if plan.unit == "updates" else stage.batch_size) for stage in plan.stages]
    examples = sum(number * stage.batch_size for number, stage in zip(updates, plan.stages, strict=True))
    mean = round(examples / sum(updates))
    return mean if parts is None else BatchPlan.constant(mean, 1).rounded_to(parts).stages[0].batch_size
