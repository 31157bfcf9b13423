"""A step in two phases, for training loops that compute the second gradient themselves."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import optax

from sam_optax import second_pass, trees, validation
from sam_optax.method_states import ascending, ascending_in
from sam_optax.perturbations.repeated import RepeatedAscentState
from sam_optax.second_pass import GradFn
from sam_optax.typing import Params, State, Updates


class TwoPhases(NamedTuple):
    """The functions of a step in two phases.

    Attributes:
      init: `init(params)` → the optimizer's ordinary state.
      ascend: `ascend(grads, state, params, *, perturb=None, **extra)` → `(perturbed_params, pending)`.
      descend: `descend(perturbed_grads, pending, params, *, perturbed_value=None, **extra)` → `(updates, state)`.
    """

    init: Callable[[Params], State]
    ascend: Callable[..., tuple[Params, "PendingStep"]]
    descend: Callable[..., tuple[Updates, State]]


@functools.partial(jax.tree_util.register_dataclass, data_fields=["grads", "state"], meta_fields=["perturb"])
@dataclass(frozen=True, eq=False)
class PendingStep:
    """A step between its two phases; a pytree.

    Attributes:
      grads: the clean gradient.
      state: the optimizer's state before the step.
      perturb: the static decision to make a second pass; None if the method's policy decides.
    """

    grads: Updates
    state: State
    perturb: bool | None = None


def two_phases(tx: optax.GradientTransformation) -> TwoPhases:
    """Splits the step of `tx` into two phases, `w + ε` and `tx.update`; the caller computes the gradient in between.

    It is for loops that cannot pass a `grad_fn` to `update`: micro-batches come from the host one at a time, another
    framework computes the gradients, or the loop is ported from PyTorch's `first_step` and `second_step`. The updates
    and the state are those of `tx.update(grads, state, params, grad_fn=grad_fn)`.

    `ascend` takes what `update` takes, except `grad_fn`. On a step without a second pass `perturbed_params` is
    `params`. `descend` takes the gradient at `perturbed_params`, which it ignores on such a step, and the same extra
    arguments as `ascend`. With `perturbed_value`, the loss at `perturbed_params`, and `value`, the clean loss,
    `sam_optax.diagnostics` has the perturbed loss and the surrogate gap.

    Args:
      tx: a method, or a chain or wrapper that contains one. A method without second pass, such as `msam`, has only one
        phase, and `repeated_ascent` with several steps has more than two.

    Returns:
      `(init, ascend, descend)`. Each may be compiled by `jax.jit`, with `perturb` as a static argument.

    Raises:
      ValueError: If `tx` is not a transformation; in `init` and `ascend`, if `tx` does not hold exactly one method with
        a second pass, or if its perturbation needs further gradients; in `descend`, if `pending` was not returned by
        `ascend`, or if the gradient does not fit the parameters.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sam_optax
      >>> gradient = jax.grad(lambda w: jnp.sum(w**2) / 2)
      >>> phases = sam_optax.two_phases(optax.chain(sam_optax.sam(rho=1.0), optax.sgd(0.1)))
      >>> w = jnp.array([3.0, 4.0])
      >>> state = phases.init(w)
      >>> perturbed, pending = phases.ascend(gradient(w), state, w)
      >>> print(*(f"{x:.1f}" for x in perturbed))
      3.6 4.8
      >>> updates, state = phases.descend(gradient(perturbed), pending, w)
      >>> print(*(f"{x:.2f}" for x in updates))
      -0.36 -0.48
    """
    validation.check_transformation("tx", tx)
    inner = optax.with_extra_args_support(tx)

    def init(params: Params) -> State:
        state = inner.init(params)
        _check_phases("tx", state)
        return state

    def ascend(
        grads: Updates, state: State, params: Params, *, perturb: bool | None = None, **extra_args: Any
    ) -> tuple[Params, PendingStep]:
        if isinstance(state, PendingStep):
            raise ValueError("state is a pending step: call descend with it, or give ascend the optimizer's state.")
        _check_phases("state", state)
        _, ascending_state = inner.update(grads, ascending(state, params), params, perturb=perturb, **extra_args)
        [method] = ascending_in(ascending_state)
        return method.perturbed_params, PendingStep(grads, state, perturb)

    def descend(
        perturbed_grads: Updates,
        pending: PendingStep,
        params: Params,
        *,
        perturbed_value: Any = None,
        **extra_args: Any,
    ) -> tuple[Updates, State]:
        if not isinstance(pending, PendingStep):
            raise ValueError(
                f"pending is of type {type(pending).__name__}: give what ascend returned with perturbed_params."
            )
        validation.check_loss("perturbed_value", perturbed_value)
        if pending.perturb is None or pending.perturb:
            remedy = "give the gradient at perturbed_params."
            trees.check_alike("perturbed_grads", perturbed_grads, params, remedy)
        grad_fn = GradFn(second_pass.given, (perturbed_grads, perturbed_value))
        extra_args |= {"grad_fn": grad_fn, "perturb": pending.perturb}
        return inner.update(pending.grads, pending.state, params, **extra_args)

    return TwoPhases(init, ascend, descend)


def _check_phases(name: str, state: Any) -> None:
    """Raises `ValueError` unless `state` holds one method, and one that makes a single second pass."""
    validation.check_second_pass(name, state)
    nodes = jax.tree.leaves(state, is_leaf=_is_repeated)
    if any(_is_repeated(node) for node in nodes):
        raise ValueError(
            f"{name} holds a repeated_ascent with several steps, which needs a gradient at each of them: call "
            "update(..., grad_fn=grad_fn), or give repeated_ascent steps=1."
        )


def _is_repeated(node: Any) -> bool:
    return isinstance(node, RepeatedAscentState)
