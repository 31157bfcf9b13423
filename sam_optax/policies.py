"""Policies, which decide which steps make a second pass: by step number, at random, or by the gradient's norm."""

from bisect import bisect_left
from collections.abc import Callable
from numbers import Integral
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sam_optax import hyperparameters, trees
from sam_optax.batch_plan import BatchPlan
from sam_optax.batch_plan.stages import exact
from sam_optax.typing import Params, ScalarOrSchedule, State, Updates

_ROUNDING = 1e-12  # the relative tolerance of a position in a plan, which is rounded to floating point


class Policy(NamedTuple):
    """A rule in two forms: a traced one for a compiled step, and one in plain Python for the loop around it.

    Attributes:
      init: `init(params) → state`.
      decide: `decide(count, clean, state) → (perturb, state)`: `count` is the number of updates so far,
        `perturb` a traced bool, or a Python bool if the answer is constant. It is called once per update,
        also if the step is skipped, so its state is updated by every clean gradient.
      at: `at(step) → bool` in plain Python, for the static argument `perturb` of `update`: a step that it skips
        costs one gradient, on every platform. It returns None if the gradient decides; with `perturb=None`,
        `update` calls `decide`. So one loop, `step(..., perturb=policy.at(i))`, serves every policy.
    """

    init: Callable[[Params], State]
    decide: Callable[[jax.Array, Updates, State], tuple[jax.Array | bool, State]]
    at: Callable[[int], bool | None]


def always() -> Policy:
    """The policy that perturbs at every step, as the papers do.

    Returns:
      A policy without state.

    Example:
      >>> import sam_optax
      >>> sam_optax.always().at(7)
      True
    """
    return _of_the_step(lambda step: True)


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
    hyperparameters.check_count("k", k, "the number of steps from one second pass to the next")
    return _of_the_step(lambda step: step % k == 0)


def after(step: int) -> Policy:
    """The policy that perturbs from step `step` on; the first step is step 0.

    Args:
      step: the number of steps without a second pass, at least 0.

    Returns:
      A policy without state.

    Raises:
      ValueError: If `step` is not an integer, negative, or larger than an int32 can hold.

    Example:
      >>> import sam_optax
      >>> [step for step in range(6) if sam_optax.after(4).at(step)]
      [4, 5]
    """
    if not isinstance(step, Integral) or isinstance(step, bool) or step < 0:
        raise ValueError(f"step is {step!r}: give an integer of at least 0, the number of steps without a second pass.")
    if step > np.iinfo(np.int32).max:
        raise ValueError(f"step is {step}, which the count of updates, an int32, cannot reach: give at most 2**31 - 1.")
    return _of_the_step(lambda now: now >= step)


def last(fraction: float, plan: BatchPlan, num_examples: int | None = None, drop_last: bool = True) -> Policy:
    """The policy that perturbs in the last part of a batch plan: the late phase, where the learning rate has decayed.

    The part is measured in the unit of the plan, like the schedules that `plan.schedule` converts. In epochs and in
    examples, it does not depend on how the batch grows. SAM in only the last part finds minima about as flat and as
    good as SAM in all steps, at a lower cost. The policy is from "Sharpness-Aware Minimization Efficiently Selects
    Flatter Minima Late in Training" (Zhou et al., 2024, https://arxiv.org/abs/2410.10373).

    Args:
      fraction: the share of the plan's length that makes second passes, from 0 to 1.
      plan: the batch plan.
      num_examples: the number of training examples; None if the data are endless.
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
    start = (1 - exact(float(fraction))) * plan.length * (1 - _ROUNDING)
    return after(bisect_left(steps, start, key=lambda step: plan.position_at(step, num_examples, drop_last)))


def _of_the_step(rule: Callable[[Any], Any]) -> Policy:
    """The policy that perturbs at the steps for which `rule(step)` is true."""
    return Policy(
        init=lambda params: optax.EmptyState(),
        decide=lambda count, clean, state: (rule(count), state),
        at=lambda step: bool(rule(step)),
    )


def bernoulli(probability: ScalarOrSchedule, key: jax.Array) -> Policy:
    """The policy that perturbs at step t with the probability p(t), independently of the other steps.

    The draw depends only on the key and the step, so the traced and the plain form agree.

    Args:
      probability: `p`, from 0 to 1; a number or a schedule over updates.
      key: a JAX random key.

    Returns:
      A policy without state.

    Raises:
      ValueError: If `probability` is not from 0 to 1, or `key` is not a key.

    Example:
      >>> import jax, sam_optax
      >>> policy = sam_optax.bernoulli(0.5, jax.random.key(0))
      >>> 80 < sum(policy.at(step) for step in range(200)) < 120
      True
    """
    hyperparameters.check_fraction("probability", probability)
    _check_key(key)

    @jax.jit
    def draw(step: jax.Array) -> jax.Array:
        chance = hyperparameters.at(probability, step)
        return jax.random.uniform(jax.random.fold_in(key, step)) < chance

    return Policy(
        init=lambda params: optax.EmptyState(),
        decide=lambda count, clean, state: (draw(count), state),
        at=lambda step: bool(draw(jnp.asarray(step, jnp.int32))),
    )


def _check_key(key: Any) -> None:
    try:
        typed = key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)
        one = jnp.shape(typed) == ()
    except (TypeError, ValueError, AttributeError):
        one = False
    if not one:
        raise ValueError(f"key is {key!r}: give one JAX random key, such as jax.random.key(0).")


class AEState(NamedTuple):
    """The state of `ae_sam`: the statistics of `‖g‖²`, float32 or wider.

    Attributes:
      mean: its moving average `μ`.
      variance: the moving average `σ²` of its squared distance from `μ`.
    """

    mean: jax.Array
    variance: jax.Array


def ae_sam(threshold: ScalarOrSchedule, rate: float = 0.9) -> Policy:
    """The policy that perturbs when the gradient norm is large compared with recent steps: `‖g‖² ≥ μ + c_t σ`.

    `μ ← δ μ + (1 − δ) ‖g‖²` and `σ² ← δ σ² + (1 − δ) (‖g‖² − μ)²` are moving averages, which start from `μ = ‖g‖²` and
    `σ² = 0` and are updated before the test. A gradient for which they would not be finite does not change them, and
    its step is not perturbed. The decision depends on the gradient, so `at` returns None, and a
    `lax.cond` inside the compiled step makes the decision. On a CPU, gradients of convolutions are slow inside a
    `lax.cond`. The policy is from "An Adaptive Policy to Employ Sharpness-Aware Minimization" (Jiang et al., 2023,
    https://arxiv.org/abs/2304.14647).

    Args:
      threshold: `c_t`; a number or a schedule over updates. The paper decreases it linearly from 1 to −1:
        `optax.linear_schedule(1.0, -1.0, total_steps)`.
      rate: the fraction `δ` of the averages that is kept in each update, from 0 to 1.

    Returns:
      A policy whose state is two scalars.

    Raises:
      ValueError: If `threshold` is not a finite number, or `rate` is not from 0 to 1.

    Example:
      >>> import jax.numpy as jnp, sam_optax
      >>> policy = sam_optax.ae_sam(threshold=0.0)
      >>> state = policy.init(jnp.zeros(2))
      >>> for step, size in enumerate((1.0, 0.5, 2.0)):
      ...     perturb, state = policy.decide(jnp.asarray(step), jnp.array([size, 0.0]), state)
      ...     print(perturb)
      True
      False
      True
    """
    hyperparameters.check_number("threshold", threshold)
    hyperparameters.check_fraction_number("rate", rate)

    def init(params: Params) -> AEState:
        dtype = trees.accumulator_dtype(params)
        return AEState(jnp.zeros((), dtype), jnp.zeros((), dtype))

    def decide(count: jax.Array, clean: Updates, state: AEState) -> tuple[jax.Array, AEState]:
        square = trees.inner(clean, clean).astype(state.mean.dtype)
        old = jnp.where(count == 0, square, state.mean)
        mean = old + (1 - rate) * (square - old)  # exactly ‖g‖² at the first step, which then perturbs
        variance = rate * state.variance + (1 - rate) * (square - mean) ** 2
        is_finite = jnp.isfinite(mean) & jnp.isfinite(variance)
        bar = mean + hyperparameters.at(threshold, count) * jnp.sqrt(variance)
        moved = AEState(mean.astype(square.dtype), variance.astype(square.dtype))
        return is_finite & (square >= bar), jax.tree.map(lambda new, old: jnp.where(is_finite, new, old), moved, state)

    return Policy(init, decide, at=lambda step: None)
