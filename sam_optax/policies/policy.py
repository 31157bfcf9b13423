"""What a policy is."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from sam_optax.typing import Params, State, Updates


class Policy(NamedTuple):
    """A rule in two forms: traced, for inside a compiled step, and plain, for the loop around it.

    Attributes:
      init: `init(params) → state`.
      decide: `decide(count, clean, state) → (perturb, state)`: `count` is the number of updates so far,
        `perturb` a traced bool, or a Python bool where the answer is always the same. It is called once an
        update, so that its state has seen every clean gradient.
      at: `at(step) → bool` in plain Python, to drive the static argument `perturb` of `update`: a step that it
        skips costs one gradient, on every platform. None where the gradient decides: it is what `perturb` takes
        to ask `decide`, so that one loop, `step(..., perturb=policy.at(i))`, serves every policy.
    """

    init: Callable[[Params], State]
    decide: Callable[[jax.Array, Updates, State], tuple[jax.Array | bool, State]]
    at: Callable[[int], bool | None]
