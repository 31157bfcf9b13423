"""The states that the methods keep in an optimizer's state, and the check that there is one method."""

from typing import Any, NamedTuple

import jax
import optax

from sam_optax import trees
from sam_optax.typing import Params, State, Updates


class StepDiagnostics(NamedTuple):
    """What the last step measured, float32 or wider; a number that was not measured is zero, and its flag False.

    Attributes:
      grad_norm: `‖g‖`, of the clean gradient.
      perturbed_grad_norm: `‖g_s‖`, of the gradient at `w + ε`.
      cosine: `⟨g, g_s⟩ / (‖g‖‖g_s‖)`.
      perturbation_norm: `‖ε‖`.
      perturbed_loss: `L(w + ε)`.
      surrogate_gap: `L(w + ε) − L(w)`.
      noise_signal: the signal term of the noise of `g_s`, for `track_noise`.
      noise_variance: the noise term of it.
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
      diagnostics: of the last step; read by `sam_optax.diagnostics`.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    perturbation: State
    combiner: State
    policy: State
    diagnostics: StepDiagnostics


class AscendingState(NamedTuple):
    """The state of `sharpness_aware` while `two_phases` asks it for `w + ε`.

    Given this state, `update` makes no second pass: it returns the state with `perturbed_params` replaced. The place
    for them is in the state since wrappers pass a state on as it is.

    Attributes:
      count: as in `SharpnessAwareState`, like the next four.
      perturbation: the perturbation's state.
      combiner: the combiner's state.
      policy: the policy's state.
      diagnostics: of the last step.
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
      base: of the base optimizer.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    offset: Updates
    base: State


def states_in(state: Any) -> list[SharpnessAwareState | MSAMState]:
    """The states of all methods in an optimizer's state, also those that are nested in one another."""
    found = []
    for node in jax.tree.leaves(state, is_leaf=_is_method):
        if _is_method(node):
            found += [node, *states_in(tuple(node))]
    return found


def ascending(state: State, params: Params) -> State:
    """An optimizer's state in which the method makes no step, but computes `w + ε`."""
    place = trees.cast_like(params, params)  # no leaf is weakly typed, as none of w + ε is

    def prepare(node: Any) -> Any:
        return AscendingState(*node, place) if isinstance(node, SharpnessAwareState) else node

    return jax.tree.map(prepare, state, is_leaf=_is_method)


def ascending_in(state: Any) -> list[AscendingState]:
    """The states of methods that compute `w + ε`, in an optimizer's state."""
    return [node for node in jax.tree.leaves(state, is_leaf=is_ascending) if is_ascending(node)]


def is_ascending(node: Any) -> bool:
    """Whether `node` is the state of a method that computes `w + ε`."""
    return isinstance(node, AscendingState)


def check_one_method(name: str, state: Any) -> None:
    """Raise `ValueError` if `state` holds more than one sharpness-aware method, or one that sees parts of a batch.

    Two methods in one chain are silently wrong: the second one makes its own second pass and replaces what the first
    one returned. Several `msam` are one method where each of them trains other parameters, as in
    `optax.multi_transform`. Inside `optax.MultiSteps` a method gets the mean gradient of several batches, and makes the
    second pass on the last one alone.

    Args:
      name: the argument that the state belongs to, for the message.
      state: an optimizer's state.

    Raises:
      ValueError: If there are several methods, or one that makes second passes inside `optax.MultiSteps`.
    """
    _check_accumulation(name, state)
    found = states_in(state)
    paths = [path for node in found if isinstance(node, MSAMState) for path in trees.leaf_paths(node.offset)]
    is_one = len(found) <= 1 or (all(isinstance(node, MSAMState) for node in found) and len(set(paths)) == len(paths))
    if not is_one:
        raise ValueError(
            f"{name} holds {len(found)} sharpness-aware methods, expected one: each replaces the gradient of the one "
            "before it. For several radii use one method whose perturbation is an optax.multi_transform: "
            "sam_optax.sharpness_aware(optax.multi_transform({'a': sam_optax.normalized_ascent(0.1), ...}, labels), "
            "sam_optax.perturbed_gradient())."
        )


def _check_accumulation(name: str, state: Any) -> None:
    """Raise `ValueError` if a method that makes second passes is inside `optax.MultiSteps`."""
    nodes = jax.tree.leaves(state, is_leaf=_accumulates)
    found = [method for node in nodes if _accumulates(node) for method in states_in(node.inner_opt_state)]
    if any(isinstance(method, SharpnessAwareState) for method in found):
        raise ValueError(
            f"{name} holds a sharpness-aware method inside optax.MultiSteps, which would make its second pass on the "
            "last micro-batch alone: accumulate by sam_optax.value_and_grad(loss_fn, micro_batches=...) instead."
        )


def _accumulates(node: Any) -> bool:
    return isinstance(node, optax.MultiStepsState)


def check_no_method(name: str, state: Any, remedy: str) -> None:
    """Raise `ValueError` if the state of a part of a method, as its base optimizer, holds another method."""
    if states_in(state):
        raise ValueError(
            f"{name} holds a sharpness-aware method, which replaces the gradient that it is given: {remedy}"
        )


def _is_method(node: Any) -> bool:
    return isinstance(node, SharpnessAwareState | MSAMState)
