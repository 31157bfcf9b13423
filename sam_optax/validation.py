"""Checks of the arguments of transformations: optimizers, states that hold a method, parameters and a loss."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from sam_optax import trees
from sam_optax.method_states import BSAMState, MSAMState, SharpnessAwareState, states_in
from sam_optax.typing import Params


def check_functions(name: str, part: Any, functions: tuple[str, ...], kind: str) -> None:
    """Raises `ValueError` unless `part` has all of `functions`; the message names its `kind`."""
    if not all(callable(getattr(part, function, None)) for function in functions):
        raise ValueError(f"{name} is {part!r}: give {kind}, with {', '.join(functions)}.")


def check_transformation(name: str, tx: Any) -> None:
    """Raises `ValueError` unless `tx` is an Optax transformation."""
    check_functions(name, tx, ("init", "update"), "an optax.GradientTransformation")


def check_one_method(name: str, state: Any) -> None:
    """Raises `ValueError` if `state` holds several sharpness-aware methods, or one inside `optax.MultiSteps`.

    Two methods in one chain are silently wrong: the second one makes its own second pass and replaces the result of the
    first one. Several `msam` count as one method if each of them trains different parameters, as in
    `optax.multi_transform`. Inside `optax.MultiSteps` a method gets the mean gradient of several batches, but makes the
    second pass only on the last one.

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


def check_no_method(name: str, state: Any, remedy: str) -> None:
    """Raises `ValueError` if the state of a method's part, such as its base optimizer, holds another method."""
    if states_in(state):
        raise ValueError(
            f"{name} holds a sharpness-aware method, which replaces the gradient that it is given: {remedy}"
        )


def check_second_pass(name: str, state: Any) -> None:
    """Raises `ValueError` unless `state` holds one method, and one that makes a second pass."""
    check_one_method(name, state)
    if not any(isinstance(node, SharpnessAwareState) for node in states_in(state)):
        raise ValueError(
            f"{name} holds no sharpness-aware method with a second pass, expected one: give one of sam_optax's methods "
            "(msam makes no second pass), or a chain with one in it."
        )


def check_whole(params: Params) -> None:
    """Raises `ValueError` if leaves of `params` are replaced by `optax.MaskedNode`."""
    if trees.holds_masked(params):
        raise ValueError(
            "params holds optax.MaskedNode: a sharpness-aware transformation is inside optax.masked or "
            "optax.multi_transform, so its second gradient would be computed on a tree with missing leaves. Put it "
            "before that wrapper in an optax.chain, and select the leaves to perturb with its argument mask=."
        )


def check_real(params: Params) -> None:
    """Raises `ValueError` if `params` has a leaf to which no perturbation can be added."""
    if isinstance(params, optax.LookaheadParams):
        raise ValueError(
            "params is an optax.LookaheadParams, and a sharpness-aware method needs the parameters at which its "
            "gradient was computed. Call the method separately, as method.update(grads, method_state, params.fast, "
            "grad_fn=grad_fn), and pass the gradient that it returns to optax.lookahead."
        )
    for path, leaf in zip(trees.leaf_paths(params), jax.tree.leaves(params), strict=True):
        if not hasattr(leaf, "dtype") and not isinstance(leaf, int | float | complex):
            raise ValueError(
                f"params has {leaf!r} at '{path}', where an array is expected: remove the leaves that are not arrays "
                "from params, as eqx.filter(model, eqx.is_inexact_array) does for an Equinox module."
            )
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise ValueError(
                f"params has a leaf of dtype {dtype} at '{path}': only real floating leaves can be perturbed. "
                "Remove the other leaves from params, or split a complex leaf into its real and imaginary part."
            )
        if dtype.itemsize < 2:
            raise ValueError(
                f"params has a leaf of dtype {dtype} at '{path}', too coarse for a small perturbation: keep the "
                "parameters in float32, and cast them to 8 bits inside the loss."
            )


def check_loss(name: str, loss: Any) -> None:
    """Raises `ValueError` unless `loss` is None or a real scalar."""
    if loss is None:
        return
    is_number = isinstance(loss, int | float) or (hasattr(loss, "dtype") and not trees.is_key(loss))
    if not is_number or jnp.shape(loss) != () or jnp.issubdtype(jnp.result_type(loss), jnp.complexfloating):
        raise ValueError(
            f"{name} is {loss!r}: give the loss of the batch, a real scalar. Take the mean over the examples, and "
            "pass only the loss if the function returns (loss, aux)."
        )


def _check_accumulation(name: str, state: Any) -> None:
    """Raises `ValueError` if a method is inside `optax.MultiSteps`, unless it needs only the gradient."""
    nodes = jax.tree.leaves(state, is_leaf=_accumulates)
    found = [method for node in nodes if _accumulates(node) for method in states_in(node.inner_opt_state)]
    if any(isinstance(method, SharpnessAwareState) for method in found):
        raise ValueError(
            f"{name} holds a sharpness-aware method inside optax.MultiSteps, which would make its second pass on the "
            "last micro-batch only: accumulate the gradients with sam_optax.value_and_grad(loss_fn, "
            "micro_batches=...) instead."
        )
    if any(isinstance(method, BSAMState) for method in found):
        raise ValueError(
            f"{name} holds bsam inside optax.MultiSteps, which would give it the magnitude of the last micro-batch "
            "only: divide the batch by the argument shards of sam_optax.bsam_value_and_grad instead."
        )


def _accumulates(node: Any) -> bool:
    return isinstance(node, optax.MultiStepsState)
