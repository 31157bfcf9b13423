"""Stochastic depth, branches that are left out while training (Huang et al., 2016, https://arxiv.org/abs/1603.09382)."""

import jax
import jax.numpy as jnp
from flax import nnx


class StochasticDepth(nnx.Module):
    """What the branches of a network are multiplied by: 0 at the given rate, else what keeps the expectation.

    The key is a variable of the module, and its count goes up once a pass in training mode, however many branches there
    are. So a step that hands the same variables to both of its passes draws the same in both, and the next step draws
    anew if it gets what the first pass left.

    Args:
      rate: the probability with which a branch is left out, for each example on its own; at 0 there is no key.
      rngs: the source of the key, by its stream `dropout`.

    Raises:
      ValueError: If the rate is not in [0, 1).
    """

    def __init__(self, rate: float, *, rngs: nnx.Rngs) -> None:
        if not 0 <= rate < 1:
            raise ValueError(f"drop_path is {rate}: give a probability of at least 0 and below 1.")
        self.rate = rate
        self.deterministic = False
        self.stream = rngs.dropout.fork() if rate else None

    def __call__(self, branches: int, examples: int) -> jax.Array:
        """The factors of a pass, `(branches, examples)`; `(branches, 1)`, and all of them 1, in inference mode."""
        if self.stream is None or self.deterministic:
            return jnp.ones((branches, 1))
        kept = jax.random.bernoulli(self.stream(), 1 - self.rate, (branches, examples))
        return kept / (1 - self.rate)
