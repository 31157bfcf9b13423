"""Batch plans: the batch size of each update of a run, the arithmetic of updates and examples, and the batches."""

from sam_optax.batch_plan.order import Batch, order_of_pass
from sam_optax.batch_plan.plan import BatchPlan
from sam_optax.batch_plan.stages import UNITS, Stage, as_index, check_positive_integer

__all__ = ["UNITS", "Batch", "BatchPlan", "Stage", "as_index", "check_positive_integer", "order_of_pass"]
