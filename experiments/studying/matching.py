"""Matching: what the cells of a study have in common, that one may be compared with another."""

from typing import NamedTuple

from sam_optax import BatchPlan

MATCHES = ("epochs", "updates", "gradients")
_PASSES = 2  # of SAM
TOLERANCE = 0.05  # what is equal to this part needs no plan of its own


class Matched(NamedTuple):
    """A plan that was made longer or shorter.

    Attributes:
      plan: what it is now.
      by: what was matched by changing it; `epochs` where it is as it was.
    """

    plan: BatchPlan
    by: str


def matched(match: str, plan: BatchPlan, evaluations: float, reference: BatchPlan, epoch_size: int) -> Matched:
    """The plan, with as many epochs as the match asks for.

    Args:
      match: `epochs`: the plan as it is. `updates`: as many updates as the reference makes. `gradients`: as many
        gradient evaluations as SAM makes along the reference, so that a method of one pass gets twice the updates.
      plan: of the cell.
      evaluations: of the gradient, by the cell's method, an update.
      reference: the increasing plan, which makes the most updates.
      epoch_size: the examples of an epoch.

    Returns:
      The plan, its stages in proportion, each of whole epochs; so updates agree to half an epoch a stage, or a whole
      one where a stage would have none. A plan that agrees to 5% stays as it is.
    """
    if match == "epochs":
        return Matched(plan, "epochs")
    updates, by = budget(match, evaluations, reference, epoch_size)
    longer = updates / plan.total_steps(epoch_size)
    if abs(longer - 1) <= TOLERANCE:
        return Matched(plan, "epochs")
    return Matched(_scaled(plan, longer), by)


class Budget(NamedTuple):
    """How many updates a run has.

    Attributes:
      updates: so many.
      by: what is matched so.
    """

    updates: int
    by: str


def budget(match: str, evaluations: float, reference: BatchPlan, epoch_size: int) -> Budget:
    """The updates that a match, `updates` or `gradients`, asks for; the arguments are those of `matched`."""
    factor = {"updates": 1.0, "gradients": _PASSES / evaluations}[match]
    return Budget(round(factor * reference.total_steps(epoch_size)), "updates" if factor == 1 else "gradients")


def _scaled(plan: BatchPlan, factor: float) -> BatchPlan:
    return BatchPlan.from_stages((max(1, round(factor * stage.epochs)), stage.batch_size) for stage in plan.stages)
