"""The states of the methods, and functions that find them in an optimizer's state."""

from typing import Any, NamedTuple

import jax

from sam_optax import trees
from sam_optax.typing import Params, State, Updates


class StepDiagnostics(NamedTuple):
    """The measurements of the last step, float32 or wider; a number that was not measured is 0, and its flag is False.

    Attributes:
      grad_norm: `‖g‖`, of the clean gradient.
      perturbed_grad_norm: `‖g_s‖`, of the gradient at `w + ε`.
      cosine: `⟨g, g_s⟩ / (‖g‖‖g_s‖)`.
      perturbation_norm: `‖ε‖`.
      perturbed_loss: `L(w + ε)`.
      surrogate_gap: `L(w + ε) − L(w)`.
      noise_signal: the signal term of the noise of `g_s`, for `track_noise`.
      noise_variance: the noise term `tr(Σ)` of the noise of `g_s`, for `track_noise`.
      measured: whether the step made a second pass, which measures the first four numbers; a bool.
      loss_measured: whether the second pass computed the loss.
      gap_measured: whether, in addition, `update` was given the clean loss.
      noise_measured: whether the second pass measured its noise.
    """

    grad_norm: jax.Array
    perturbed_grad_norm: jax.Array
    cosine: jax.Array
    perturbation_norm: jax.Array
    perturbed_loss: jax.Array
    surrogate_gap: jax.Array
    noise_signal: jax.Array
    noise_variance: jax.Array
    measured: jax.Array
    loss_measured: jax.Array
    gap_measured: jax.Array
    noise_measured: jax.Array


class SharpnessAwareState(NamedTuple):
    """The state of `sharpness_aware`; its structure is the same on perturbed and on skipped steps.

    Attributes:
      count: the number of updates so far, int32.
      perturbation: the perturbation's state.
      combiner: the combiner's state.
      policy: the policy's state.
      diagnostics: the measurements of the last step, which `sam_optax.diagnostics` reads.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    perturbation: State
    combiner: State
    policy: State
    diagnostics: StepDiagnostics


class AscendingState(NamedTuple):
    """The state of `sharpness_aware` while it computes `w + ε` for `two_phases`.

    Given this state, `update` makes no second pass: it returns the state with `perturbed_params` replaced. The
    perturbed parameters are returned in the state, because wrappers pass states on unchanged.

    Attributes:
      count: the number of updates so far, int32.
      perturbation: the perturbation's state.
      combiner: the combiner's state.
      policy: the policy's state.
      diagnostics: the measurements of the last step.
      perturbed_params: the parameters `w` before `update`; after it `w + ε`, or `w` if the step is skipped.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    perturbation: State
    combiner: State
    policy: State
    diagnostics: StepDiagnostics
    perturbed_params: Params


class MSAMState(NamedTuple):
    """The state of `msam`.

    Attributes:
      count: the number of updates so far, int32.
      offset: `w̃ − w`, from the parameters to evaluate to those that are trained.
      base: the state of the base optimizer.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    offset: Updates
    base: State


class BSAMState(NamedTuple):
    """The state of `bsam`, whose posterior over the parameters is the normal distribution `N(w, 1 / (N s))`.

    Attributes:
      count: the number of updates so far, int32.
      momentum: the momentum `m`, in float32 or wider.
      scale: the scale `s` of each parameter, in float32 or wider.
      num_examples: the number `N` of training examples.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    momentum: Updates
    scale: Updates
    num_examples: jax.Array


class DecoupledState(NamedTuple):
    """The state of `wsam_decoupled`.

    Attributes:
      sharpness: the state of the estimator of the sharpness's gradient, with the diagnostics.
      base: the state of the base optimizer.
    """

    sharpness: State
    base: State


def states_in(state: Any) -> list[SharpnessAwareState | MSAMState | BSAMState]:
    """The states of all methods in an optimizer's state, including those that are nested in another method's state."""
    found = []
    for node in jax.tree.leaves(state, is_leaf=_is_method):
        if _is_method(node):
            found += [node, *states_in(tuple(node))]
    return found


def ascending(state: State, params: Params) -> State:
    """An optimizer's state with which the method computes `w + ε` and makes no step."""
    place = trees.cast_like(params, params)  # without weak types, like the leaves of w + ε

    def prepare(node: Any) -> Any:
        return AscendingState(*node, place) if isinstance(node, SharpnessAwareState) else node

    return jax.tree.map(prepare, state, is_leaf=_is_method)


def ascending_in(state: Any) -> list[AscendingState]:
    """The states of methods that compute `w + ε`, in an optimizer's state."""
    return [node for node in jax.tree.leaves(state, is_leaf=is_ascending) if is_ascending(node)]


def is_ascending(node: Any) -> bool:
    """Whether `node` is the state of a method that computes `w + ε`."""
    return isinstance(node, AscendingState)


def _is_method(node: Any) -> bool:
    return isinstance(node, SharpnessAwareState | MSAMState | BSAMState)
