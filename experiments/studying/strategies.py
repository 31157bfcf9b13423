"""Strategies: how the batch size and the learning rate go through a run, and their controls."""

from collections.abc import Callable

from sam_optax import BatchPlan

PAPERS = ("constant", "increasing", "cosine")
CONTROLS = ("constant_first", "constant_last", "constant_mean", "reversed")

_RESTARTS = 5  # cosines of equal length
_OF_INCREASING: dict[str, Callable[[BatchPlan], BatchPlan]] = {
    "increasing": lambda plan: plan,
    "constant_first": lambda plan: BatchPlan.constant(plan.stages[0].batch_size, plan.epochs),
    "constant_last": lambda plan: BatchPlan.constant(plan.stages[-1].batch_size, plan.epochs),
    "constant_mean": lambda plan: BatchPlan.constant(mean_batch_size(plan), plan.epochs),
    "reversed": lambda plan: BatchPlan.from_stages(plan.stages[::-1]),
}
_FALLING = ("cosine", "linear", "warm_restarts")

PLANNED = (*PAPERS, "linear", "warm_restarts", *CONTROLS)
ADAPTIVE = "adaptive"
NAMES = (*PLANNED, ADAPTIVE)


def plan_of(name: str, constant: BatchPlan, increasing: BatchPlan) -> BatchPlan:
    """The batch plan of a strategy.

    Args:
      name: `increasing`, or its controls over as many epochs: `constant_first`, `constant_last` and `constant_mean` at
        its first, last and mean batch size, and `reversed`; the others, `constant`, `cosine`, `linear` and
        `warm_restarts`, have the constant plan.
      constant: the study's constant plan.
      increasing: its increasing plan.
    """
    return _OF_INCREASING[name](increasing) if name in _OF_INCREASING else constant


def adaptive_plan(increasing: BatchPlan, rule: str, updates: int | None = None) -> str:
    """The batch plan of the strategy `adaptive`, as the command line has it: decided by the noise of the gradients.

    Args:
      increasing: the study's increasing plan, of which it has the first and the last batch size.
      rule: that decides: `noise_scale`, `noise_scale:0.5` or `norm_test:0.5`.
      updates: how many it has; None: as many epochs as the increasing plan.
    """
    budget = f"{increasing.epochs}" if updates is None else f"{updates}u"
    return f"adaptive:{budget}x{increasing.stages[0].batch_size}..{increasing.stages[-1].batch_size}:{rule}"


def rate_of(name: str, epochs: float) -> str:
    """The learning rate of a strategy through so many epochs, warm-up apart, as `learning_rate.parse` reads it."""
    if name == "warm_restarts":
        return f"warm_restarts:{epochs / _RESTARTS:g}"
    return name if name in _FALLING else "constant"


def mean_batch_size(plan: BatchPlan, parts: int | None = None) -> int:
    """The examples that an update of the plan sees in the mean: a constant batch of this size makes as many updates.

    That is the harmonic mean over epochs, `E / Σ (1/b)`, rounded; incomplete batches, which are dropped, apart. Where a
    batch has parts of so many examples, it is rounded to a multiple of them.
    """
    mean = round(plan.epochs / sum(stage.epochs / stage.batch_size for stage in plan.stages))
    return mean if parts is None else BatchPlan.constant(mean, 1).rounded_to(parts).stages[0].batch_size
