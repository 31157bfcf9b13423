"""When to pay for a second pass."""

from collections.abc import Callable
from numbers import Integral
from typing import NamedTuple

import jax
import optax

from sam_optax.typing import Params, State, Updates


class Policy(NamedTuple):
    """A rule in two forms: traced, for inside a compiled step, and plain, for the loop around it.

    Attributes:
      init: `init(params) → state`.
      decide: `decide(count, clean, state) → (perturb, state)`: `count` is the number of updates so far,
        `perturb` a traced bool, or a Python bool where the answer is always the same. It is called once an
        update, so that its state has seen every clean gradient.
      at: `at(step) → bool` in plain Python, to drive the static argument `perturb` of `update`: a step that it
        skips costs one gradient, on every platform.
    """

    init: Callable[[Params], State]
    decide: Callable[[jax.Array, Updates, State], tuple[jax.Array | bool, State]]
    at: Callable[[int], bool]


def always() -> Policy:
    """The policy that perturbs at every step, as the papers do.

    Returns:
      A policy without state.

    Example:
      >>> import sam_optax
      >>> sam_optax.always().at(7)
      True
    """
    return Policy(
        init=lambda params: optax.EmptyState(),
        decide=lambda count, clean, state: (True, state),
        at=lambda step: True,
    )


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
    if not isinstance(k, Integral) or isinstance(k, bool) or k < 1:
        raise ValueError(f"k is {k!r}: give a positive integer, the steps from one second pass to the next.")
    return Policy(
        init=lambda params: optax.EmptyState(),
        decide=lambda count, clean, state: (count % k == 0, state),
        at=lambda step: bool(step % k == 0),
    )
