"""The learning rate along a plan whose batch grows: left alone, or grown with it, behind a warm-up."""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from sam_optax import hyperparameters
from sam_optax.batch_growth import stages
from sam_optax.batch_plan import BatchPlan
from sam_optax.typing import ScalarOrSchedule, Schedule

_RULES: dict[str, Callable[[float], float]] = {
    "none": lambda growth: 1.0,
    "linear": lambda growth: growth,
    "square_root": math.sqrt,
}


def rate_for_growth(
    plan: BatchPlan,
    rate: ScalarOrSchedule,
    rule: str | Callable[[float], float],
    *,
    warmup_epochs: float = 0.0,
    warmup_start: float = 0.0,
) -> Schedule:
    """The learning rate along a plan, `η(t) = warm-up(t) · rate(t) · rule(B(t)/B₀)`, as a schedule over epochs.

    "linear" keeps `η/B`, on which the noise of training depends; "square_root" keeps `η²/B`, the variance of one
    update; "none" leaves the rate alone. The warm-up is `warmup_start + (1 − warmup_start) t/warmup_epochs`, then 1,
    in epochs: in the data seen, while the batch grows as it does.

    Batch and rate that grow together are the third scheduler of "Increasing Both Batch Size and Learning Rate
    Accelerates Stochastic Gradient Descent" (Umeda and Iiduka, 2024, https://arxiv.org/abs/2409.08770). Its fourth, a
    growing batch with a warm-up and then a decay, is `warmup_epochs`, or a rule that stops growing, as
    `lambda growth: min(growth, 4) ** 0.5`, with a `rate` that decays.

    Args:
      plan: the batch plan, with `B₀` its first size.
      rate: the rate at the first batch size: a number, or a schedule over epochs.
      rule: "none", "linear", "square_root", or a function of `B/B₀`.
      warmup_epochs: the epochs in which the rate rises, or 0.
      warmup_start: the share of the rate that it starts with, from 0 to 1.

    Returns:
      A schedule over epochs, to be read by `plan.schedule`.

    Raises:
      ValueError: If `rate` or `warmup_epochs` is negative or not finite, if `warmup_start` is not from 0 to 1, or if
        `rule` is none of these or gives no finite number of at least 0.

    Example:
      >>> import sam_optax
      >>> plan = sam_optax.BatchPlan.parse("2x16,2x64")
      >>> rate = sam_optax.rate_for_growth(plan, 0.1, "square_root", warmup_epochs=1)
      >>> print(*(f"{rate(epoch):.2f}" for epoch in (0, 0.5, 1, 2, 3.5)))
      0.00 0.05 0.10 0.20 0.20
    """
    hyperparameters.check_nonnegative("rate", rate)
    hyperparameters.check_nonnegative_number("warmup_epochs", warmup_epochs)
    hyperparameters.check_fraction_number("warmup_start", warmup_start)
    grown = stages.stepwise(plan, [_applied(rule, growth) for growth in stages.growth(plan)])

    def at_epoch(position: Any) -> Any:
        return _warmup(position, warmup_epochs, warmup_start) * hyperparameters.at(rate, position) * grown(position)

    return at_epoch


def _warmup(position: Any, epochs: Any, start: Any) -> Any:
    return 1.0 if epochs == 0 else start + (1 - start) * jnp.minimum(position / epochs, 1.0)


def _applied(rule: str | Callable[[float], float], growth: float) -> float:
    chosen = rule if callable(rule) else _RULES.get(rule) if isinstance(rule, str) else None
    if chosen is None:
        raise ValueError(f"rule is {rule!r}: give one of {', '.join(_RULES)}, or a function of the batch's growth.")
    given = chosen(growth)
    try:
        factor = float(given)
    except (TypeError, ValueError):
        factor = math.nan
    if not 0 <= factor < math.inf:
        raise ValueError(
            f"rule is {given!r} where the batch is {growth:g} times the first: give a function to finite numbers of "
            "at least 0."
        )
    return factor
