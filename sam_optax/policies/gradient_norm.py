"""A policy that looks at the length of the clean gradient: AE-SAM's."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sam_optax import hyperparameters, trees
from sam_optax.policies.policy import Policy
from sam_optax.typing import Params, ScalarOrSchedule, Updates


class AEState(NamedTuple):
    """What AE-SAM knows of `‖g‖²`, float32 or wider.

    Attributes:
      mean: its moving average `μ`.
      variance: the moving average `σ²` of its squared distance from `μ`.
    """

    mean: jax.Array
    variance: jax.Array


def ae_sam(threshold: ScalarOrSchedule, rate: float = 0.9) -> Policy:
    """The policy that perturbs where the gradient is long for its time: where `‖g‖² ≥ μ + c_t σ`.

    `μ ← δ μ + (1 − δ) ‖g‖²` and `σ² ← δ σ² + (1 − δ) (‖g‖² − μ)²` are moving averages, from `μ = ‖g‖²` and `σ² = 0`,
    both moved on before the test. The gradient decides, so `at` gives None and the decision is made inside the
    compiled step; on the CPU the gradient of a convolution is slow there. From "An Adaptive Policy to Employ
    Sharpness-Aware Minimization" (Jiang et al., 2023, https://arxiv.org/abs/2304.14647).

    Args:
      threshold: `c_t`; a number or a schedule over updates. The paper lowers it along a line from 1 to −1:
        `optax.linear_schedule(1.0, -1.0, total_steps)`.
      rate: the share `δ` of the averages that is kept, from 0 to 1.

    Returns:
      A policy whose state is two scalars.

    Raises:
      ValueError: If `threshold` is no finite number, or `rate` not from 0 to 1.

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
        bar = mean + hyperparameters.at(threshold, count) * jnp.sqrt(variance)
        return square >= bar, AEState(mean.astype(square.dtype), variance.astype(square.dtype))

    return Policy(init, decide, at=lambda step: None)
