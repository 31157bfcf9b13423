"""m-sharpness: the sharpness of m examples at a time."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax

from sam_optax import hyperparameters
from sam_optax.batch_arguments import Call, cut
from sam_optax.sharpness import batches as batches_of
from sam_optax.sharpness.worst_case import WorstCase, worst_case
from sam_optax.typing import Params


def m_sharpness(
    loss_fn: Callable[..., Any], params: Params, batches: Iterable[Any], ms: Sequence[int], *, rho: Any, **options: Any
) -> dict[int, WorstCase]:
    """The worst-case sharpness over parts of m examples, each of which has its own perturbation, for a list of m.

    A perturbation for fewer examples fits them better, so that m-sharpness falls as m grows; what small-batch SAM
    makes small is that of a small m. From "Sharpness-Aware Minimization for Efficiently Improving Generalization"
    (Foret et al., 2021, https://arxiv.org/abs/2010.01412).

    Args:
      loss_fn: `loss_fn(params, batch)` → scalar, the mean over the batch.
      params: where the sharpness is measured.
      batches: pytrees of arrays, whose leading axis counts the examples.
      ms: the numbers of examples of a part, each of which divides every batch.
      rho: the radius `ρ ≥ 0`.
      **options: the other options of `worst_case`, such as norm, adaptive, steps and mask.

    Returns:
      A `WorstCase` for each m, whose `.per_batch` is that of each part.

    Raises:
      ValueError: If an m is no positive integer or does not divide a batch, or as `worst_case` does.

    Example:
      >>> import jax.numpy as jnp
      >>> from sam_optax import sharpness
      >>> loss_fn = lambda w, x: 0.5 * jnp.mean((x @ w) ** 2)
      >>> batch = jnp.array([[1.0, 1.0], [1.0, -1.0]])
      >>> found = sharpness.m_sharpness(loss_fn, jnp.array([1.0, 0.5]), [batch], (1, 2), rho=0.1)
      >>> print({m: f"{each.sharpness:.4f}" for m, each in found.items()})
      {1: '0.2200', 2: '0.1600'}
    """
    collected, ms = batches_of.collect(batches), tuple(ms)
    for m in ms:
        hyperparameters.check_count("ms", m, "the examples of a part")
    if not ms:
        raise ValueError("ms is empty: give at least one number of examples.")
    return {m: worst_case(loss_fn, params, _cut(collected, m), rho=rho, **options) for m in ms}


def _cut(collected: tuple[Any, ...], m: int) -> Iterator[Any]:
    for batch in collected:
        size = batches_of.size(batch)
        if size % m:
            raise ValueError(f"ms holds {m}, and a batch has {size} examples: give an m that divides it.")
        parts = cut(Call((batch,), {}), size // m).args[0]
        for i in range(size // m):
            yield jax.tree.map(lambda x, i=i: jax.lax.index_in_dim(x, i, keepdims=False), parts)
