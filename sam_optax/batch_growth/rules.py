"""Which batch size the gradients ask for."""

import math
from collections.abc import Callable
from typing import Any

from sam_optax import hyperparameters

Rule = Callable[[Any, int], float]
"""`rule(measured, batch_size)` → the batch size that is asked for: any number, not only a size that a plan has.

`measured` is what `AdaptiveBatchPlan.after_epoch` is given: for the rules that are here `NoiseTerms`, for a function of
your own whatever you measure. NaN asks for nothing.
"""


def noise_scale_rule(multiple: float = 1.0) -> Rule:
    """The rule that asks for the noise scale, `B = multiple · tr(Σ)/|G|²`.

    Below it a larger batch still makes better updates almost in proportion; far above it the batch only costs. From "An
    Empirical Model of Large-Batch Training" (McCandlish et al., 2018, https://arxiv.org/abs/1812.06162).

    Args:
      multiple: of the noise scale, above 0.

    Returns:
      A rule that measures by `NoiseTerms`; noise over a signal that is not above 0 asks for an infinite batch.

    Raises:
      ValueError: If `multiple` is no finite number above 0, and, when called, if it is given no `NoiseTerms`.

    Example:
      >>> import sam_optax
      >>> sam_optax.noise_scale_rule()(sam_optax.NoiseTerms(signal=2.0, noise=64.0), 16)
      32.0
    """
    hyperparameters.check_positive_number("multiple", multiple)

    def rule(measured: Any, batch_size: int) -> float:
        del batch_size
        signal, noise = _terms(measured)
        return multiple * _ratio(noise, signal)

    return rule


def norm_test(theta: float) -> Rule:
    """The rule of the norm test, which asks for `B = ⌈tr(Σ)/(θ² ‖g_B‖²)⌉`.

    The test is `tr(Σ)/B ≤ θ² ‖g_B‖²`: the variance of the gradient is small against its square, so that it points
    downhill. The variance is that of the gradients within the batch, as the micro-batches tell it, without bias, and
    the square is that of the batch's own gradient, `‖g_B‖² = |G|² + tr(Σ)/B`, noise and all. So it asks for growth
    where `B` is below `(1/θ² − 1)` times the noise scale. What it asks for passes if `‖g_B‖²` stays what it is; as that
    falls with a larger batch, the rule comes to the batch that passes by several decisions. The papers' factor for
    data of finite size is left out. From "Sample Size Selection in Optimization Methods for
    Machine Learning" (Byrd et al., 2012, https://doi.org/10.1007/s10107-012-0572-5) and "AdAdaGrad: Adaptive Batch Size
    Schemes for Adaptive Gradient Methods" (Lau et al., 2024, https://arxiv.org/abs/2402.11215).

    Args:
      theta: `θ`, above 0 and below 1.

    Returns:
      A rule that measures by `NoiseTerms`.

    Raises:
      ValueError: If `theta` is no number above 0 and below 1, and, when called, if it is given no `NoiseTerms`.

    Example:
      >>> import sam_optax
      >>> sam_optax.norm_test(theta=0.5)(sam_optax.NoiseTerms(signal=2.0, noise=64.0), 16)
      43.0
    """
    hyperparameters.check_positive_number("theta", theta)
    if not theta < 1:
        raise ValueError(
            f"theta is {theta!r}: give a number above 0 and below 1; from 1 on a batch passes whatever its noise."
        )

    def rule(measured: Any, batch_size: int) -> float:
        signal, noise = _terms(measured)
        wanted = _ratio(noise, theta**2 * (signal + noise / batch_size))
        return float(math.ceil(wanted)) if math.isfinite(wanted) else wanted

    return rule


def _ratio(noise: float, signal: float) -> float:
    if noise <= 0:
        return 0.0  # also of a gradient that is zero: nothing is to be averaged out
    return math.inf if signal <= 0 else noise / signal


def _terms(measured: Any) -> tuple[float, float]:
    try:
        signal, noise = map(float, measured)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"measured is {measured!r}: give sam_optax.NoiseTerms, as sam_optax.measured_noise(opt_state).perturbed."
        ) from error
    return signal, noise
