"""What a combiner is."""

from collections.abc import Callable
from typing import NamedTuple

from sam_optax.typing import Params, State, Updates


class Combiner(NamedTuple):
    """Three pure functions; a state keeps its structure through all of them.

    Attributes:
      init: `init(params) → state`.
      update: `update(clean, perturbed, state) → (gradient, state)`, where a second pass was made.
      skipped: `skipped(clean, state) → (gradient, state)`, where none was made.
    """

    init: Callable[[Params], State]
    update: Callable[[Updates, Updates, State], tuple[Updates, State]]
    skipped: Callable[[Updates, State], tuple[Updates, State]]
