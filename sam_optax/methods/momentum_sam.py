"""MSAM, Momentum-SAM: sharpness-aware minimisation along the momentum, at one gradient per step.

The momentum of each leaf is read from the state of the base optimizer, which may have a momentum per partition.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam_optax import hyperparameters, masks, trees, validation
from sam_optax.method_states import MSAMState, states_in
from sam_optax.trees import Names
from sam_optax.typing import Mask, Params, ScalarOrSchedule, State, Updates

_Momenta = list[jax.Array | None]
"""The momentum of each leaf of the parameters, in their order; None for leaves that need none."""

_KNOWN_MOMENTA = {optax.TraceState: "trace", optax.ScaleByAdamState: "mu"}
_MOMENTUM_FIELDS = ("trace", "mu", "momentum")  # the momenta of other states are named in the error


def msam(
    base: optax.GradientTransformation,
    rho: ScalarOrSchedule = 0.3,
    direction: Callable[[State], Updates] | None = None,
    *,
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """MSAM: the parameters are `w̃ = w − ρ v / (‖v‖ + 1e-12)`, at which the gradient of the next step is computed.

    The base optimizer updates `w` with that gradient, and its weight decay acts on `w`. Then the parameters are shifted
    along the new momentum `v`. This is sharpness-aware training for one gradient per step, without `grad_fn`. Evaluate
    and export `msam_eval_params(state, params)`, which is `w`.

    The base may have partitions: `v` has for each leaf the momentum of its partition. To freeze parameters, give them
    no optimizer and exclude them by `mask`, or put `msam` inside `optax.multi_transform`, in which `‖v‖` is the norm
    over the leaves of its partition. From "Momentum-SAM: Sharpness Aware Minimization without Computational Overhead"
    (Becker et al., 2024, https://arxiv.org/abs/2401.12033).

    Args:
      base: an optimizer with momentum, such as `optax.sgd(lr, momentum=0.9)` or `optax.adamw(lr)`.
      rho: the radius `ρ ≥ 0`, in units of the parameters' global L2 norm; a number or a schedule over updates. At 0 it
        is the base optimizer.
      direction: a function from the base's state to `v`. If it is None, `v` is the momentum of SGD or of Adam, wherever
        it is in the state.
      mask: the leaves to shift: a tree of bools, or a function from the parameters to one. Each needs a momentum.

    Returns:
      A complete optimizer, for the parameters `w̃`. It needs no `grad_fn`, and ignores it. No transformation that
      follows it in a chain may change its updates, since `msam_eval_params` subtracts exactly the shift that they
      contain. Inside `optax.inject_hyperparams` name `base`, `direction` and `mask` in `static_args`.

    Raises:
      ValueError: If `base` is not an optimizer or `direction` is not a function, if `rho` is negative or not finite, if
        `mask` is not a tree of bools; and, in `init`, if a leaf to shift does not have exactly one momentum, or `base`
        holds a sharpness-aware method.

    Example:
      >>> import jax, jax.numpy as jnp, optax, sam_optax
      >>> tx = sam_optax.msam(optax.sgd(0.1, momentum=0.9), rho=0.1)
      >>> w = jnp.array([3.0, 4.0])
      >>> updates, state = tx.update(w, tx.init(w), w)  # the gradient of ½‖w‖² is w
      >>> w = optax.apply_updates(w, updates)
      >>> print(*(f"{x:.2f}" for x in w), *(f"{x:.2f}" for x in sam_optax.msam_eval_params(state, w)))
      2.64 3.52 2.70 3.60
    """
    validation.check_transformation("base", base)
    hyperparameters.check_nonnegative("rho", rho)
    masks.check("mask", mask)
    if direction is not None and not callable(direction):
        raise ValueError(f"direction is {direction!r}: give a function from the state of base to its momentum.")
    inner = optax.with_extra_args_support(base)

    def init(params: Params) -> MSAMState:
        validation.check_real(params)
        state = inner.init(params)
        validation.check_no_method("base", state, "give msam an optimizer without one.")
        masks.check_chosen("mask", mask, params)
        if jax.tree.leaves(params):  # `optax.tree.map_params` calls `init` with a placeholder
            find(state, params)
        return MSAMState(jnp.zeros((), jnp.int32), trees.zeros_like(params), state)

    def find(state: State, params: Params) -> _Momenta:
        chosen = masks.resolve("mask", mask, params, default=True)
        if direction is None:
            return _momenta_in_state(state, params, chosen)
        return _momenta_in_tree(direction(state), params, chosen)

    def shift(state: State, params: Params, count: jax.Array) -> Updates:
        """`−ρ v / (‖v‖ + 1e-12)` in the accumulator's dtype, zero in the leaves that the mask excludes."""
        zeros, structure = jax.tree.leaves(trees.zeros_like(params)), jax.tree.structure(params)
        found = [zero if v is None else v for v, zero in zip(find(state, params), zeros, strict=True)]
        v = trees.widen(jax.tree.unflatten(structure, found))
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
    """The parameters `w = w̃ − offset` to evaluate and to export: those without MSAM's shift.

    Args:
      state: the optimizer state, which holds a state of `msam`, or one for each of several partitions.
      params: the parameters `w̃` that are trained, those of partitions without `msam` included.

    Returns:
      A tree like `params`.

    Raises:
      ValueError: If `state` holds no state of `msam`, several of the same parameters, or one of other parameters.

    Example:
      >>> import jax.numpy as jnp, optax, sam_optax
      >>> tx = sam_optax.msam(optax.sgd(0.1, momentum=0.9))
      >>> w = jnp.array([3.0, 4.0])
      >>> print(sam_optax.msam_eval_params(tx.init(w), w))
      [3. 4.]
    """
    validation.check_one_method("state", state)
    found = [node.offset for node in states_in(state) if isinstance(node, MSAMState)]
    if not found:
        raise ValueError("state holds no state of msam, expected one: give the state of its optimizer.")
    # Leaves are found by name: a partition has only some of them, and nnx.Optimizer wraps the state in variables.
    offsets = {
        names: leaf for tree in found for names, leaf in zip(trees.leaf_names(tree), jax.tree.leaves(tree), strict=True)
    }
    hidden = [names for tree in found for names in trees.masked_names(tree)]
    leaves = dict(zip(trees.leaf_names(params), jax.tree.leaves(params), strict=True))
    if not _belong(offsets, hidden, leaves):
        raise ValueError(
            "state belongs to other parameters than params: give those that its optimizer trains, the fast ones of "
            "optax.lookahead, and one vector of all with optax.flatten."
        )
    whole = [offsets.get(names, jnp.zeros_like(leaf)) for names, leaf in leaves.items()]
    return _minus(params, jax.tree.unflatten(jax.tree.structure(params), whole))


def _belong(offsets: dict[Names, Any], hidden: list[Names], leaves: dict[Names, Any]) -> bool:
    """Whether the offsets belong to these leaves, not counting leaves that are hidden from a partition."""
    same_shapes = all(names in leaves and jnp.shape(leaves[names]) == jnp.shape(x) for names, x in offsets.items())
    others = [names for names in leaves if names not in offsets]
    return same_shapes and all(any(names[: len(each)] == each for each in hidden) for names in others)


def _minus(params: Params, offset: Updates) -> Params:
    difference = jax.tree.map(jnp.subtract, trees.widen(params), trees.widen(offset))
    return trees.cast_like(difference, params)


class _FoundMomentum(NamedTuple):
    """A momentum in an optimizer's state; inside a partition it has only some leaves of the parameters."""

    kind: str
    is_known: bool
    leaves: dict[Names, jax.Array]


def _momenta_in_state(base_state: State, params: Params, chosen: Any) -> _Momenta:
    """The momentum `v` of each leaf: `trace` of SGD, `mu` of Adam, the uncorrected first moment.

    Args:
      base_state: the state of an optimizer, which may have a momentum per partition.
      params: the parameters.
      chosen: a tree of bools: the leaves whose momentum is needed.

    Raises:
      ValueError: If a chosen leaf has no momentum of a known kind, or several.
    """
    found = list(_all_momenta(base_state))

    def of_leaf(names: Names, leaf: Any) -> jax.Array:
        own = [each for each in found if each.is_known and names in each.leaves]
        own = [each for each in own if jnp.shape(each.leaves[names]) == jnp.shape(leaf)]
        if len(own) != 1:
            raise ValueError(
                f"base keeps {len(own)} momenta of a known kind, SGD's trace or Adam's mu, for params at "
                f"'{'/'.join(names)}', expected exactly one. Its state has {_description(found)}. Give an optimizer "
                "with momentum, or direction=, a function from its state to the momentum, or mask= with the leaves "
                "that have a momentum."
            )
        return own[0].leaves[names]

    return _of_chosen(of_leaf, params, chosen)


def _momenta_in_tree(tree: Any, params: Params, chosen: Any) -> _Momenta:
    """The momentum of each leaf in the tree that `direction=` returned, which has at least the chosen leaves.

    Raises:
      ValueError: If a chosen leaf is missing, or has another shape.
    """
    given = dict(zip(trees.leaf_names(tree), jax.tree.leaves(tree), strict=True))

    def of_leaf(names: Names, leaf: Any) -> jax.Array:
        if names not in given or jnp.shape(given[names]) != jnp.shape(leaf):
            raise ValueError(
                f"What direction returned has no leaf of shape {jnp.shape(leaf)} at '{'/'.join(names)}': return the "
                "momentum in the state of base, a tree like params."
            )
        return given[names]

    return _of_chosen(of_leaf, params, chosen)


def _of_chosen(of_leaf: Any, params: Params, chosen: Any) -> _Momenta:
    leaves = zip(trees.leaf_names(params), jax.tree.leaves(params), jax.tree.leaves(chosen), strict=True)
    return [of_leaf(names, leaf) if is_chosen else None for names, leaf, is_chosen in leaves]


def _all_momenta(state: State) -> Iterator[_FoundMomentum]:
    """Every momentum in a state, those in nested states too."""
    for node in jax.tree.leaves(state, is_leaf=_keeps_momentum):
        if _keeps_momentum(node):
            field = _field_of(node)
            tree = getattr(node, field)
            leaves = dict(zip(trees.leaf_names(tree), jax.tree.leaves(tree), strict=True))
            yield _FoundMomentum(f"{type(node).__name__}.{field}", type(node) in _KNOWN_MOMENTA, leaves)
            yield from _all_momenta(tuple(node))


def _keeps_momentum(node: Any) -> bool:
    return bool(_field_of(node))


def _field_of(node: Any) -> str:
    """The name of the momentum field of a state; empty if it has none."""
    fields = getattr(node, "_fields", ())
    return _KNOWN_MOMENTA.get(type(node)) or next((name for name in _MOMENTUM_FIELDS if name in fields), "")


def _description(found: list[_FoundMomentum]) -> str:
    """A description of the momenta that were found, and of their leaves."""
    described = []
    for each in found:
        paths = ["/".join(names) for names in each.leaves]
        shown = ", ".join(f"'{path}'" for path in paths[:3]) + (f" and {len(paths) - 3} more" if paths[3:] else "")
        described.append(f"{each.kind} of {shown or 'no leaf'}")
    return "; ".join(described) or "no momentum"
