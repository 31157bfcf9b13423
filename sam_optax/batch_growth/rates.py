"""Learning rates for batches that grow, and batch plans that replace a decay of the learning rate.

`rate_for_growth` keeps the rate constant or scales it with the batch size, with an optional warm-up. `growth_for_decay`
replaces a falling rate by a growing batch, and `decay_for_growth` is its inverse.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, groupby
from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp

from sam_optax import hyperparameters
from sam_optax.batch_plan import BatchPlan, Stage, check_positive_integer
from sam_optax.batch_plan.stages import exact
from sam_optax.typing import ScalarOrSchedule, Schedule

_ROUNDING = 1e-6  # relative tolerance of a size: a float32 rate that falls to a fifth gives 4.9999998 times the batch
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
    """The learning rate along a plan, `η(t) = warm-up(t) · rate(t) · rule(B(t)/B₀)`, as a schedule over its unit.

    "linear" keeps `η/B`, which determines the noise of training; "square_root" keeps `η²/B`, the variance of one
    update; "none" does not change the rate. The warm-up is `warmup_start + (1 − warmup_start) t/warmup_epochs`, then 1,
    with `t` in the unit of the plan. In epochs and in examples, its length does not depend on the batch size.

    A batch and a rate that grow together are the third scheduler of "Increasing Both Batch Size and Learning Rate
    Accelerates Stochastic Gradient Descent" (Umeda and Iiduka, 2024, https://arxiv.org/abs/2409.08770). Its fourth
    scheduler combines a growing batch with a warm-up and a subsequent decay. To build it, use a `rate` that decays,
    together with `warmup_epochs` or with a rule that stops growing, such as `lambda growth: min(growth, 4) ** 0.5`.

    Args:
      plan: the batch plan, with `B₀` its first size.
      rate: the rate at the first batch size: a number, or a schedule over the unit of the plan.
      rule: "none", "linear", "square_root", or a function of `B/B₀`.
      warmup_epochs: the length of the warm-up in the unit of the plan: epochs, or examples or updates if the plan is in
        these; 0: no warm-up.
      warmup_start: the fraction of the rate at which the warm-up starts, from 0 to 1.

    Returns:
      A schedule over the unit of the plan, to be read by `plan.schedule`.

    Raises:
      ValueError: If `rate` or `warmup_epochs` is negative or not finite, if `warmup_start` is not from 0 to 1, or if
        `rule` is not one of these or does not return a finite number of at least 0.

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
    grown = _stepwise(plan, [_applied(rule, growth) for growth in _relative_sizes(plan)])

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
            f"rule returned {given!r} for a batch of {growth:g} times the first size: give a function that returns "
            "finite numbers of at least 0."
        )
    return factor


def growth_for_decay(
    rate: Schedule,
    initial: int,
    epochs: int,
    *,
    maximum: int | None = None,
    factor: int | None = None,
    rule: str = "linear",
) -> tuple[BatchPlan, Schedule]:
    """The batch plan that replaces the decay of a learning rate, and the remaining schedule of the rate.

    In epoch e the batch has grown by the factor by which the rate has fallen from its peak so far,
    `B(e) = B₀ · max_{t ≤ e} η(t)/η(e)`, rounded down and at most `maximum`. If the rate rises again, as after a warm
    restart, the batch shrinks again. The remaining rate is

        linear:       η'(t) = η(t) B(t)/B₀,    so that η'/B = η/B₀
        square_root:  η'(t) = η(t) √(B(t)/B₀), so that η'/√B = η/√B₀

    Both hold exactly at every position, in spite of the rounding and the maximum. "linear" is for SGD: the noise of
    training is proportional to `η/B` if batches are small compared with the data. It is from "Don't Decay the Learning
    Rate, Increase the Batch Size" (Smith et al., 2018, https://arxiv.org/abs/1711.00489). "square_root" is for Adam,
    whose updates are normalised: where the rate would be halved, it is divided by `√2`, and the batch is doubled. It is
    from "Seesaw: Accelerating Training by Balancing Learning Rate and Batch Size Scheduling" (Meterez et al., 2025,
    https://arxiv.org/abs/2510.14717).

    Args:
      rate: the learning rate over epochs, from a position in epochs to a number; any Optax schedule. Its value at the
        start of an epoch determines the epoch's batch size.
      initial: the batch size `B₀` that the rate was chosen for.
      epochs: the total number of epochs.
      maximum: the largest batch size, or None.
      factor: None, or an integer of at least 2. With a factor, sizes are `B₀ factorᵏ`, so that a smooth decay has few
        stages. With None, a cosine changes the batch size nearly every epoch, and the step is compiled for each size.
      rule: "linear" or "square_root".

    Returns:
      The plan, and the rate over epochs to train it with, to be read by `plan.schedule`.

    Raises:
      ValueError: If an argument is out of its range, or if the rate falls to 0 and there is no `maximum`.

    Example:
      >>> import optax, sam_optax
      >>> rate = optax.piecewise_constant_schedule(0.1, {60: 0.2, 120: 0.2, 160: 0.2})
      >>> plan, left = sam_optax.growth_for_decay(rate, initial=128, epochs=200, maximum=3200)
      >>> print(plan, *(f"{left(epoch):.3f}" for epoch in (0, 60, 120, 160)))
      60x128,60x640,80x3200 0.100 0.100 0.100 0.020
    """
    _check_equivalence(rule)
    check_positive_integer("epochs", epochs)
    sizes = _Sizes(initial, maximum, factor)
    plan = BatchPlan(merge_stages((1, sizes.at_most(wanted)) for wanted in _wanted(rate, initial, epochs)))
    share = _stepwise(plan, [_RULES[rule](growth) for growth in _relative_sizes(plan)])
    return plan, lambda position: rate(position) * share(position)


def _check_equivalence(rule: Any) -> None:
    if rule not in ("linear", "square_root"):
        raise ValueError(f"rule is {rule!r}: give linear, for SGD, or square_root, for Adam.")


def decay_for_growth(plan: BatchPlan, rate: ScalarOrSchedule, rule: str = "linear") -> Schedule:
    """The learning rate at the plan's first batch size that is equivalent to a rate along the plan.

    `η(t) = η'(t) B₀/B(t)` has the same ratio `η/B` at every position, and `η(t) = η'(t) √(B₀/B(t))` the same `η/√B`. It
    is the inverse of `growth_for_decay`.

    Args:
      plan: the batch plan.
      rate: the rate `η'` that it is trained with: a number, or a schedule over the unit of the plan.
      rule: "linear" for SGD, or "square_root" for Adam.

    Returns:
      A schedule over the unit of the plan, for a constant batch of the plan's first size.

    Raises:
      ValueError: If `rate` is negative or not finite, or if the rule is unknown.

    Example:
      >>> import sam_optax
      >>> rate = sam_optax.decay_for_growth(sam_optax.BatchPlan.parse("40x16,40x32,40x64"), rate=0.1)
      >>> print(*(f"{rate(epoch):.3f}" for epoch in (0, 39.5, 40, 80)))
      0.100 0.100 0.050 0.025
    """
    hyperparameters.check_nonnegative("rate", rate)
    _check_equivalence(rule)
    share = _stepwise(plan, [_RULES[rule](growth) for growth in _relative_sizes(plan)])
    return lambda position: hyperparameters.at(rate, position) / share(position)


class _Sizes:
    """The sizes that a batch may have."""

    def __init__(self, initial: int, maximum: int | None, factor: int | None):
        check_positive_integer("initial", initial)
        if maximum is not None:
            check_positive_integer("maximum", maximum)
            if maximum < initial:
                raise ValueError(
                    f"maximum is {maximum}, below initial, {initial}: give a maximum of at least {initial}."
                )
        if factor is not None and (not isinstance(factor, Integral) or factor < 2):
            raise ValueError(f"factor is {factor!r}: give an integer of at least 2, or None for any size.")
        self.initial, self.maximum, self.factor = initial, maximum, factor

    def at_most(self, wanted: float) -> int:
        """The largest size that is not above `wanted`."""
        if wanted == math.inf and self.maximum is None:
            raise ValueError("maximum is None, and the rate falls to 0: give the largest batch size.")
        ceiling = wanted if self.maximum is None else min(wanted, self.maximum)
        if self.factor is None:
            return int(ceiling)
        size = self.initial
        while size * self.factor <= ceiling:
            size *= self.factor
        return size


def _wanted(rate: Schedule, initial: int, epochs: int) -> Iterable[float]:
    """The size that the decay requires at the start of each epoch; infinity if the rate is 0."""
    if not callable(rate):
        raise ValueError(f"rate is {rate!r}: give a schedule, from a position in epochs to a learning rate.")
    peak = 0.0
    for epoch in range(epochs):
        now = _number(rate(epoch), epoch)
        peak = max(peak, now)
        fallen = math.inf if now == 0 < peak else peak / now if now else 1.0
        yield initial * fallen * (1 + _ROUNDING) if fallen > 1 else initial


def _number(rate: Any, epoch: int) -> float:
    number = float(rate)
    if not 0 <= number < math.inf:
        raise ValueError(f"rate is {number} at epoch {epoch}: give a schedule of finite numbers of at least 0.")
    return number


def merge_stages(stages: Iterable[tuple[float, int]]) -> tuple[Stage, ...]:
    """The stages from pairs `(length, batch_size)`; consecutive pairs of equal size are merged."""
    groups = groupby(stages, key=lambda stage: stage[1])
    return tuple(Stage(sum(length for length, _ in group), size) for size, group in groups)


def _stepwise(plan: BatchPlan, values: Sequence[float]) -> Schedule:
    """The schedule over the plan's unit that is `values[k]` in stage k, and the last value after the plan's end."""
    starts = [float(end) for end in accumulate(exact(stage.length) for stage in plan.stages)][:-1]

    def at_epoch(position: Any) -> jax.Array:
        # both in JAX's default dtype, so that they are rounded alike
        stage = jnp.searchsorted(jnp.asarray(starts, float), jnp.asarray(position, float), side="right")
        return jnp.asarray(values, float)[stage]

    return at_epoch


def _relative_sizes(plan: BatchPlan) -> list[float]:
    """The batch size of each stage, relative to the first one."""
    return [stage.batch_size / plan.stages[0].batch_size for stage in plan.stages]
