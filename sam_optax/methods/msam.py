"""MSAM: sharpness-aware minimisation along the momentum, at one gradient a step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sam_optax import hyperparameters, masks, parts, trees
from sam_optax.method_states import MSAMState
from sam_optax.typing import Mask, Params, ScalarOrSchedule, State, Updates


def momentum(base_state: State) -> Updates:
    """The momentum `v` in an optimizer's state: `trace` of SGD, `mu` of Adam, the uncorrected first moment.

    Raises:
      ValueError: If there is not exactly one.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from sam_optax.methods.msam import momentum
      >>> momentum(optax.adamw(0.1).init({"w": jnp.ones(2)}))
      {'w': Array([0., 0.], dtype=float32)}
    """
    kinds = (optax.TraceState, optax.ScaleByAdamState)
    nodes = jax.tree.leaves(base_state, is_leaf=lambda node: isinstance(node, kinds))
    found = [node.trace if isinstance(node, optax.TraceState) else node.mu for node in nodes if isinstance(node, kinds)]
    if len(found) != 1:
        raise ValueError(
            f"base keeps {len(found)} momenta of a known kind, SGD's trace or Adam's mu, expected exactly one: "
            "give an optimizer with momentum, or direction=, a function from its state to the momentum."
        )
    return found[0]


def msam(
    base: optax.GradientTransformation,
    rho: ScalarOrSchedule = 0.3,
    direction: Callable[[State], Updates] | None = None,
    *,
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """MSAM: the parameters stand at `w̃ = w − ρ v / (‖v‖ + 1e-12)`, where the gradient of the next step is taken.

    The base optimizer moves `w` by that gradient, its weight decay acts at `w`, and then the parameters are shifted
    along the new momentum `v`: sharpness-aware training for one gradient a step, without `grad_fn`. Evaluate and export
    `msam_eval_params(state, params)`, which is `w`. From "Momentum-SAM: Sharpness Aware Minimization without
    Computational Overhead" (Becker et al., 2024, https://arxiv.org/abs/2401.12033).

    Args:
      base: the optimizer, with momentum: `optax.sgd(lr, momentum=0.9)`, `optax.adamw(lr)`.
      rho: the radius `ρ ≥ 0`, in units of the parameters' global L2 norm; a number or a schedule over updates. At 0 it
        is the base optimizer.
      direction: from the base's state to `v`. None: the momentum of SGD or of Adam, wherever it stands.
      mask: the leaves to shift: a tree of bools, or a function from the parameters to one.

    Returns:
      A whole optimizer, for the parameters `w̃`. It takes no `grad_fn`, and ignores one. Inside
      `optax.inject_hyperparams` name `base`, `direction` and `mask` in `static_args`.

    Raises:
      ValueError: If `base` is no optimizer or `direction` no function, if `rho` is negative or not finite, if `mask`
        is no tree of bools; and, in `init`, if there is no momentum.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sam_optax
      >>> tx = sam_optax.msam(optax.sgd(0.1, momentum=0.9), rho=0.1)
      >>> w = jnp.array([3.0, 4.0])
      >>> updates, state = tx.update(w, tx.init(w), w)  # the gradient of ½‖w‖² is w
      >>> w = optax.apply_updates(w, updates)
      >>> print(*(f"{x:.2f}" for x in w), *(f"{x:.2f}" for x in sam_optax.msam_eval_params(state, w)))
      2.64 3.52 2.70 3.60
    """
    parts.check_transformation("base", base)
    hyperparameters.check_nonnegative("rho", rho)
    masks.check("mask", mask)
    if direction is not None and not callable(direction):
        raise ValueError(f"direction is {direction!r}: give a function from the state of base to its momentum.")
    find = momentum if direction is None else direction
    inner = optax.with_extra_args_support(base)

    def init(params: Params) -> MSAMState:
        trees.check_real(params)
        state = inner.init(params)
        find(state)
        return MSAMState(jnp.zeros((), jnp.int32), trees.zeros_like(params), state)

    def shift(state: State, params: Params, count: jax.Array) -> Updates:
        """`−ρ v / (‖v‖ + 1e-12)` in the wide dtype, zero where the mask is."""
        v = find(state)
        trees.check_alike("What direction returned", v, params, "it finds the momentum in the state of base.")
        v = masks.keep(masks.resolve("mask", mask, params, default=True), trees.widen(v))
        scale = -hyperparameters.at(rho, count) / (trees.norm(v) + 1e-12)
        return jax.tree.map(lambda x: scale * x, v)

    def update(
        updates: Updates, state: State, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, MSAMState]:
        if params is None:
            raise ValueError("params is missing: call update(grads, state, params).")
        unshifted = _minus(params, state.offset)
        step, base_state = inner.update(updates, state.base, unshifted, **extra_args)
        offset = trees.cast_like(shift(base_state, params, state.count), params)
        wide = (trees.widen(tree) for tree in (step, offset, state.offset))
        moved = jax.tree.map(lambda u, new, old: u + (new - old), *wide)
        count = trees.next_count(state.count)
        return trees.cast_like(moved, step), MSAMState(count, offset, base_state)

    return optax.GradientTransformationExtraArgs(init, update)


def msam_eval_params(state: Any, params: Params) -> Params:
    """The parameters `w = w̃ − offset` to evaluate and to export: those that MSAM's shift has been taken from.

    Args:
      state: the optimizer state, in which one state of `msam` stands anywhere.
      params: the parameters `w̃` that are trained.

    Returns:
      A tree like `params`.

    Raises:
      ValueError: If `state` does not hold exactly one state of `msam`, or one of other parameters.

    Example:
      >>> import jax.numpy as jnp, optax, sam_optax
      >>> tx = sam_optax.msam(optax.sgd(0.1, momentum=0.9))
      >>> w = jnp.array([3.0, 4.0])
      >>> print(sam_optax.msam_eval_params(tx.init(w), w))
      [3. 4.]
    """
    nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, MSAMState))
    found = [node.offset for node in nodes if isinstance(node, MSAMState)]
    if len(found) != 1:
        raise ValueError(
            f"state holds {len(found)} states of msam, expected exactly one: give the state of its optimizer."
        )
    # by leaves, since nnx.Optimizer keeps the state in variables of its own
    offsets, shapes = jax.tree.leaves(found[0]), [jnp.shape(x) for x in jax.tree.leaves(params)]
    if [jnp.shape(x) for x in offsets] != shapes:
        raise ValueError("state belongs to other parameters than params: give those that its optimizer trains.")
    return _minus(params, jax.tree.unflatten(jax.tree.structure(params), offsets))


def _minus(params: Params, offset: Updates) -> Params:
    difference = jax.tree.map(jnp.subtract, trees.widen(params), trees.widen(offset))
    return trees.cast_like(difference, params)
