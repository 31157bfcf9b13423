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

NAMES = (*PAPERS, "linear", "warm_restarts", *CONTROLS)


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


def rate_of(name: str, epochs: float) -> str:
    """The learning rate of a strategy through so many epochs, warm-up apart, as `learning_rate.parse` reads it."""
    if name == "warm_restarts":
        return f"warm_restarts:{epochs / _RESTARTS:g}"
    return name if name in _FALLING else "constant"


def mean_batch_size(plan: BatchPlan) -> int:
    """The examples that an update of the plan sees in the mean: a constant batch of this size makes as many updates.

    That is the harmonic mean over epochs, `E / Σ (1/b)`, rounded; incomplete batches, which are dropped, apart.
    """
    return round(plan.epochs / sum(stage.epochs / stage.batch_size for stage in plan.stages))
