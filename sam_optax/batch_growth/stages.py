"""What changes from stage to stage of a plan, as a schedule over epochs, and plans from sizes epoch by epoch."""

from collections.abc import Iterable, Sequence
from itertools import accumulate, groupby
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sam_optax.batch_plan import BatchPlan, Stage
from sam_optax.typing import Schedule


def stepwise(plan: BatchPlan, values: Sequence[float]) -> Schedule:
    """The schedule over epochs that is `values[k]` in stage k of the plan; after its end the last one stays."""
    starts = np.asarray([*accumulate(stage.epochs for stage in plan.stages)][:-1], np.float32)

    def at_epoch(position: Any) -> jax.Array:
        return jnp.asarray(values, float)[jnp.searchsorted(starts, jnp.asarray(position, float), side="right")]

    return at_epoch


def growth(plan: BatchPlan) -> list[float]:
    """The batch size of each stage, in units of the first one's."""
    return [stage.batch_size / plan.stages[0].batch_size for stage in plan.stages]


def merged(stages: Iterable[tuple[int, int]]) -> tuple[Stage, ...]:
    """The stages `(epochs, batch_size)`, neighbours of one size put together."""
    groups = groupby(stages, key=lambda stage: stage[1])
    return tuple(Stage(sum(epochs for epochs, _ in group), size) for size, group in groups)
