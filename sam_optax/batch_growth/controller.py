"""A batch plan that is decided during training, and rules that derive a batch size from the gradient noise."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import Any, NamedTuple

from sam_optax import hyperparameters
from sam_optax.batch_growth.rates import merge_stages
from sam_optax.batch_plan import UNITS, BatchPlan, Stage, as_index, check_positive_integer

Rule = Callable[[Any, int], float]
"""`rule(measured, batch_size)` → the requested batch size: any number, not only a size of the plan.

`measured` is the argument of `AdaptiveBatchPlan.after_epoch`: `NoiseTerms` for the rules of this module, any
measurement for a custom function. NaN requests nothing.
"""


def noise_scale_rule(multiple: float = 1.0) -> Rule:
    """The rule that requests the noise scale, `B = multiple · tr(Σ)/|G|²`.

    Below it, a larger batch improves the updates almost in proportion; far above it, a larger batch only costs more.
    From "An Empirical Model of Large-Batch Training" (McCandlish et al., 2018, https://arxiv.org/abs/1812.06162).

    Args:
      multiple: the factor of the noise scale, above 0.

    Returns:
      A rule that takes `NoiseTerms`. If the signal is not above 0 and the noise is, it requests an infinite batch.

    Raises:
      ValueError: If `multiple` is not a finite number above 0; and, when called, if the measurement is not a
        `NoiseTerms`.

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
    """The rule of the norm test, which requests `B = ⌈tr(Σ)/(θ² ‖g_B‖²)⌉`.

    The test is `tr(Σ)/B ≤ θ² ‖g_B‖²`: the variance of the gradient is small compared with its square, so that it points
    downhill. The variance is an unbiased estimate from the micro-batches of a batch. The square is that of the gradient
    of the batch, which includes its noise, `‖g_B‖² = |G|² + tr(Σ)/B`. The rule therefore requests growth if `B` is
    below `(1/θ² − 1)` times the noise scale. The requested size passes the test if `‖g_B‖²` does not change. Since a
    larger batch reduces `‖g_B‖²`, the rule reaches a size that passes after several decisions. The factor of the papers
    for finite data is omitted. From "Sample Size Selection in Optimization Methods for Machine Learning" (Byrd et al.,
    2012, https://doi.org/10.1007/s10107-012-0572-5) and "AdAdaGrad: Adaptive Batch Size Schemes for Adaptive Gradient
    Methods" (Lau et al., 2024, https://arxiv.org/abs/2402.11215).

    Args:
      theta: `θ`, above 0 and below 1.

    Returns:
      A rule that takes `NoiseTerms`.

    Raises:
      ValueError: If `theta` is not a number above 0 and below 1; and, when called, if the measurement is not a
        `NoiseTerms`.

    Example:
      >>> import sam_optax
      >>> sam_optax.norm_test(theta=0.5)(sam_optax.NoiseTerms(signal=2.0, noise=64.0), 16)
      43.0
    """
    hyperparameters.check_positive_number("theta", theta)
    if not theta < 1:
        raise ValueError(
            f"theta is {theta!r}: give a number above 0 and below 1. With 1 or more, every batch passes the test."
        )

    def rule(measured: Any, batch_size: int) -> float:
        signal, noise = _terms(measured)
        wanted = _ratio(noise, theta**2 * (signal + noise / batch_size))
        return float(math.ceil(wanted)) if math.isfinite(wanted) else wanted

    return rule


def _ratio(noise: float, signal: float) -> float:
    if noise <= 0:
        return 0.0  # also if the gradient is zero, since there is no noise to average
    return math.inf if signal <= 0 else noise / signal


def _terms(measured: Any) -> tuple[float, float]:
    try:
        signal, noise = map(float, measured)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"measured is {measured!r}: give sam_optax.NoiseTerms, as sam_optax.measured_noise(opt_state).perturbed."
        ) from error
    return signal, noise


class AdaptiveState(NamedTuple):
    """The state of an adaptive plan: plain numbers, so that `json.dumps(state._asdict())` saves it.

    Attributes:
      batch_size: the batch size of the next interval.
      stages: the intervals so far, as stages `(length, batch_size)`.
      streak: the number of consecutive intervals, up to the last one, whose measurements requested a larger batch.
      least: the smallest size that they requested; 0 if there are no such intervals.
    """

    batch_size: int
    stages: tuple[Stage, ...]
    streak: int
    least: float


@dataclass(frozen=True)
class AdaptiveBatchPlan:
    """A batch size that grows when the gradient noise requires it, decided at the end of each interval of the run.

    An interval is an epoch, or `every` epochs, examples or updates. After an interval the rule requests a size. If the
    requests of `patience` consecutive intervals all exceed `margin` times the current size, the batch grows. Its sizes
    are `initial · factorᵏ`, at most `maximum`; the new size is the smallest one that is not below the smallest request,
    or else the largest one. It never shrinks. Sizes change only between intervals, so the decisions so far form a
    `BatchPlan`, which replays the run. The controller is a pure function of its state and the measurements: after it is
    saved and restored, it continues as if it had never stopped.

    Attributes:
      initial: the first batch size.
      maximum: the upper bound of the batch size.
      rule: returns the size that a measurement requests: `noise_scale_rule()`, `norm_test(0.5)`, or any function
        `rule(measured, batch_size)`.
      factor: the growth factor, an integer of at least 2.
      patience: the number of consecutive intervals that must request growth.
      margin: the factor by which the requests must exceed the current size, at least 1.
      unit: the unit of the interval and of the plan: "epochs", "examples" or "updates".
      every: the length of an interval in that unit.

    Raises:
      ValueError: If an argument is out of its range.

    Example:
      >>> import sam_optax
      >>> controller = sam_optax.AdaptiveBatchPlan(16, maximum=128, rule=lambda measured, batch_size: measured)
      >>> state = controller.start()
      >>> for measured in (10, 40, 100, 50, 50):
      ...     state = controller.after_epoch(state, measured)
      >>> print(state.batch_size, controller.plan(state))
      64 3x16,2x64

      The same with a decision after every 100 updates:

      >>> controller = sam_optax.AdaptiveBatchPlan(
      ...     16, maximum=128, rule=lambda measured, batch_size: measured, unit="updates", every=100
      ... )
      >>> state = controller.after_interval(controller.after_interval(controller.start(), 40), 40)
      >>> print(state.batch_size, controller.plan(state, length=500))
      64 updates:200x16,300x64
    """

    initial: int
    maximum: int
    rule: Rule
    factor: int = 2
    patience: int = 2
    margin: float = 1.0
    unit: str = "epochs"
    every: int = 1

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"unit is {self.unit!r}: give one of {', '.join(UNITS)}.")
        for name in ("initial", "maximum", "patience", "every"):
            check_positive_integer(name, getattr(self, name))
        if self.maximum < self.initial:
            raise ValueError(f"maximum is {self.maximum}, below initial, {self.initial}: the batch never shrinks.")
        if not callable(self.rule):
            raise ValueError(f"rule is {self.rule!r}: give a function of a measurement and the batch size to a size.")
        if not isinstance(self.factor, Integral) or self.factor < 2:
            raise ValueError(f"factor is {self.factor!r}: give an integer of at least 2.")
        hyperparameters.check_positive_number("margin", self.margin)
        if self.margin < 1:
            raise ValueError(f"margin is {self.margin!r}: give a number of at least 1.")

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The batch sizes that the plan may have, in increasing order."""
        found = [int(self.initial)]
        while found[-1] * self.factor <= self.maximum:
            found.append(found[-1] * int(self.factor))
        return tuple(found)

    def start(self) -> AdaptiveState:
        """The state before the first interval."""
        return AdaptiveState(self.sizes[0], (), 0, 0.0)

    def after_epoch(self, state: AdaptiveState, measured: Any) -> AdaptiveState:
        """The state after one more epoch, as `after_interval`.

        Raises:
          ValueError: If the interval is not one epoch, or if the rule does not return a number.
        """
        if (self.unit, self.every) != ("epochs", 1):
            raise ValueError(f"The interval is {self.every} {self.unit}, not one epoch: call after_interval.")
        return self.after_interval(state, measured)

    def after_interval(self, state: AdaptiveState, measured: Any) -> AdaptiveState:
        """The state after one more interval at `state.batch_size`.

        Args:
          state: before the interval.
          measured: the measurement for the rule; None if nothing was measured, which requests nothing.

        Returns:
          The state, with the batch size of the next interval.

        Raises:
          ValueError: If the rule does not return a number.
        """
        size, done = state.batch_size, merge_stages([*state.stages, (int(self.every), state.batch_size)])
        wanted = math.nan if measured is None else self._wanted(measured, size)
        if size == self.sizes[-1] or not wanted > self.margin * size:
            return AdaptiveState(size, done, 0, 0.0)
        streak = state.streak + 1
        least = float(min(wanted, state.least if state.streak else self.sizes[-1]))
        if streak < self.patience:
            return AdaptiveState(size, done, streak, least)
        return AdaptiveState(next(size for size in self.sizes if size >= least), done, 0, 0.0)

    def plan(self, state: AdaptiveState, epochs: int | None = None, *, length: int | None = None) -> BatchPlan:
        """The intervals so far as a plan, which can continue at the current size.

        Args:
          state: the state of the controller.
          epochs: the length of the returned plan, if the unit is epochs; None: only the intervals so far.
          length: the length of the returned plan in the unit of the intervals; None: only the intervals so far.

        Returns:
          The plan.

        Raises:
          ValueError: If the length is smaller than that of the intervals so far, if the plan would be empty, or if
            `epochs` is given for another unit.
        """
        if epochs is not None and (self.unit != "epochs" or length is not None):
            raise ValueError(f"epochs is {epochs}, and the plan is in {self.unit}: give only length.")
        done = sum(int(stage.length) for stage in state.stages)
        total = done if (given := length if epochs is None else epochs) is None else given
        if given is None and not done:
            raise ValueError("the plan has no interval yet: give its length, or epochs.")
        check_positive_integer(self.unit if length is None else "length", total)
        if total < done:
            raise ValueError(f"{self.unit} is {total}, and {done} {self.unit} are over: give at least {done}.")
        left = [(total - done, state.batch_size)] * (total > done)
        return BatchPlan(merge_stages([*state.stages, *left]), self.unit)

    def restore(self, saved: Mapping[str, Any]) -> AdaptiveState:
        """The state from a saved `state._asdict()`, which JSON may have converted.

        Raises:
          ValueError: If it is no such state, or one that this controller cannot reach, since it belongs to another
            `initial`, `factor`, `maximum` or `patience`.
        """
        try:
            done = BatchPlan(saved["stages"], self.unit).stages if saved["stages"] else ()
            size, streak = as_index("batch_size", saved["batch_size"]), as_index("streak", saved["streak"])
            state = AdaptiveState(size, done, streak, float(saved["least"]))
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"saved is {saved!r}: give the saved output of state._asdict().") from error
        if not self._is_reachable(state):
            raise ValueError(
                f"saved is {saved!r}, and this plan has the sizes {self.sizes} and patience {self.patience}: restore "
                "it with the settings that it was saved under."
            )
        return state

    def _is_reachable(self, state: AdaptiveState) -> bool:
        sizes = [*(stage.batch_size for stage in state.stages), state.batch_size]
        has_grown = sizes == sorted(sizes) and set(sizes) <= set(self.sizes) and sizes[0] == self.sizes[0]
        has_intervals = all(stage.length % self.every == 0 for stage in state.stages)
        is_consistent = state.batch_size < state.least <= self.sizes[-1] if state.streak else state.least == 0
        return has_grown and has_intervals and 0 <= state.streak < self.patience and is_consistent

    def _wanted(self, measured: Any, size: int) -> float:
        wanted = self.rule(measured, size)
        try:
            return float(wanted)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"rule returned {wanted!r} for {measured!r}: give a function that returns batch sizes."
            ) from error
