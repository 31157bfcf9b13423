"""Policies that look at the number of the step alone."""

from bisect import bisect_left
from collections.abc import Callable
from numbers import Integral
from typing import Any

import optax

from sam_optax import hyperparameters
from sam_optax.batch_plan import BatchPlan
from sam_optax.policies.policy import Policy

_ROUNDING = 1e-9  # epochs: 1 − 0.7 is more than 0.3


def always() -> Policy:
    """The policy that perturbs at every step, as the papers do.

    Returns:
      A policy without state.

    Example:
      >>> import sam_optax
      >>> sam_optax.always().at(7)
      True
    """
    return Policy(
        init=lambda params: optax.EmptyState(),
        decide=lambda count, clean, state: (True, state),
        at=lambda step: True,
    )


def every(k: int) -> Policy:
    """The policy that perturbs at the steps 0, k, 2k and so on.

    Args:
      k: the number of steps from one second pass to the next, at least 1.

    Returns:
      A policy without state.

    Raises:
      ValueError: If `k` is not a positive integer.

    Example:
      >>> import sam_optax
      >>> [step for step in range(10) if sam_optax.every(4).at(step)]
      [0, 4, 8]
    """
    hyperparameters.check_count("k", k, "the steps from one second pass to the next")
    return _of_the_step(lambda step: step % k == 0)


def after(step: int) -> Policy:
    """The policy that perturbs from the step `step` on, the first being step 0.

    Args:
      step: the number of steps that are made without a second pass, at least 0.

    Returns:
      A policy without state.

    Raises:
      ValueError: If `step` is no integer, or negative.

    Example:
      >>> import sam_optax
      >>> [step for step in range(6) if sam_optax.after(4).at(step)]
      [4, 5]
    """
    if not isinstance(step, Integral) or isinstance(step, bool) or step < 0:
        raise ValueError(f"step is {step!r}: give an integer of at least 0, the steps without a second pass.")
    return _of_the_step(lambda now: now >= step)


def last(fraction: float, plan: BatchPlan, num_examples: int, drop_last: bool = True) -> Policy:
    """The policy that perturbs in the last part of a batch plan: the late phase, where the learning rate has decayed.

    The part is one of the data seen, as the decay of a rate that `plan.schedule` reads is, however the batch grows. SAM
    in the last part alone finds minima about as flat and as good as SAM all along, for less. From "Sharpness-Aware
    Minimization Efficiently Selects Flatter Minima Late in Training" (Zhou et al., 2024,
    https://arxiv.org/abs/2410.10373).

    Args:
      fraction: the share of the plan's epochs that make second passes, from 0 to 1.
      plan: the batch size of every epoch.
      num_examples: the number of training examples.
      drop_last: whether the last incomplete batch of an epoch is dropped.

    Returns:
      A policy without state.

    Raises:
      ValueError: If `fraction` is not from 0 to 1, or if the plan does not fit the examples.

    Example:
      >>> import sam_optax
      >>> plan = sam_optax.BatchPlan.from_stages([(2, 16), (2, 32)])
      >>> policy = sam_optax.last(0.5, plan, num_examples=64)
      >>> [step for step in range(plan.total_steps(64)) if policy.at(step)]
      [8, 9, 10, 11]
    """
    hyperparameters.check_fraction_number("fraction", fraction)
    steps = range(plan.total_steps(num_examples, drop_last))
    start = (1 - fraction) * plan.epochs - _ROUNDING
    return after(bisect_left(steps, start, key=lambda step: plan.epoch_at(step, num_examples, drop_last)))


def _of_the_step(rule: Callable[[Any], Any]) -> Policy:
    return Policy(
        init=lambda params: optax.EmptyState(),
        decide=lambda count, clean, state: (rule(count), state),
        at=lambda step: bool(rule(step)),
    )
