"""Batch plans: the batch size of each epoch of a run, and the epoch of each update."""

from sam_optax.batch_plan.plan import BatchPlan, Stage, check_positive_integer

__all__ = ["BatchPlan", "Stage", "check_positive_integer"]
