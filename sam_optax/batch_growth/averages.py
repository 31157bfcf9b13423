"""The decay of running averages whose half-life in examples does not depend on the batch size."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sam_optax import hyperparameters
from sam_optax.batch_plan import BatchPlan, check_positive_integer
from sam_optax.typing import Schedule


def decay_for_batch(
    plan: BatchPlan, decay: float, reference: int, num_examples: int | None = None, drop_last: bool = True
) -> Schedule:
    """The decay of a running average whose half-life in examples is the same at every batch size.

    An average `m ← β m + (1 − β) x` with the decay `β(B) = β^(B/B₀)` forgets the same fraction per example at all batch
    sizes `B`, if `β` was chosen at `B₀`. Use it by `optax.inject_hyperparams` for Adam's `b1` and `b2`, for `decay` of
    `track_noise`, and for `lam` of `friendly_sam`; for `theta` of `vasso`, which is the weight of the newest gradient,
    use `lambda step: 1 - decay(step)`. The rule is from "Small Batch Size Training for
    Language Models: When Vanilla SGD Works, and Why Gradient Accumulation Is Wasteful" (Marek et al., 2025,
    https://arxiv.org/abs/2507.07101).

    Args:
      plan: the batch plan.
      decay: `β`, above 0 and below 1.
      reference: `B₀`, the batch size that the decay was chosen for.
      num_examples: the number of examples of an epoch, for plans in epochs; None if the data are endless.
      drop_last: whether the last incomplete batch of an epoch is dropped, as in `BatchPlan`.

    Returns:
      A traceable schedule over updates.

    Raises:
      ValueError: If `decay` is not above 0 and below 1, if `reference` is not a positive integer, or if the plan does
        not fit the examples or 32 bits.

    Example:
      >>> import sam_optax
      >>> plan = sam_optax.BatchPlan.parse("updates:100x16,50x64")
      >>> decay = sam_optax.decay_for_batch(plan, 0.99, reference=16)
      >>> print(*(f"{decay(step):.4f}" for step in (0, 99, 100)))
      0.9900 0.9900 0.9606
    """
    hyperparameters.check_positive_number("decay", decay)
    if not decay < 1:
        raise ValueError(f"decay is {decay!r}: give a number above 0 and below 1.")
    check_positive_integer("reference", reference)
    starts = plan.boundaries(num_examples, drop_last)
    if max(starts, default=0) > np.iinfo(np.int32).max:
        raise ValueError(
            f"the last stage of the plan {plan} begins at update {starts[-1]}: at most 2³¹ − 1 is supported."
        )
    decays = [float(decay) ** (stage.batch_size / reference) for stage in plan.stages]

    def at_step(step: Any) -> jax.Array:
        stage = jnp.searchsorted(jnp.asarray(starts, jnp.int32), jnp.asarray(step, jnp.int32), side="right")
        return jnp.asarray(decays, float)[stage]

    return at_step
