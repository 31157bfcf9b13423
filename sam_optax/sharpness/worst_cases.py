"""Worst-case sharpness: the largest increase of the loss in a ball around the parameters.

`worst_case` measures it for whole batches, and `m_sharpness` for m examples at a time.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sam_optax import hyperparameters, trees
from sam_optax.batch_arguments import Call, cut
from sam_optax.sharpness import balls, losses, partition
from sam_optax.sharpness.ascent import Ascent, Search, ascend, begin, better
from sam_optax.sharpness.balls import Ball
from sam_optax.sharpness.partition import Leaves, Partition
from sam_optax.typing import Mask, Params


class WorstCase(NamedTuple):
    """The largest increase of the loss.

    Attributes:
      sharpness: `max L(w + δ) − L(w)`, the mean over the batches, weighted by size; NaN if the loss or the gradient is
        not finite at `w`.
      loss: the unperturbed loss, likewise.
      first_order: the first-order part of the sharpness, `ρ‖∇L‖₁` for ℓ∞ and `ρ‖∇L‖₂` for ℓ2, likewise.
      per_batch: the sharpness of each batch, `(batches,)`.
      history: the losses of each ascent, `(batches, restarts, steps + 1)`: at its start and after each iteration.
      perturbations: the `δ` of each batch, a tree like the parameters, in float32 or wider, with zeros outside of the
        mask; None without `keep_perturbations`.
    """

    sharpness: jax.Array
    loss: jax.Array
    first_order: jax.Array
    per_batch: jax.Array
    history: jax.Array
    perturbations: tuple[Params, ...] | None = None


class _OfBatch(NamedTuple):
    """The result of one batch; the perturbation has the leaves that move."""

    loss: jax.Array
    first_order: jax.Array
    highest: jax.Array
    history: jax.Array
    perturbation: Leaves | None


def worst_case(
    loss_fn: Callable[..., Any],
    params: Params,
    batches: Iterable[Any],
    *,
    rho: Any,
    norm: str = "linf",
    adaptive: bool = False,
    steps: int = 20,
    restarts: int = 1,
    random_start: bool = False,
    mask: Mask | None = None,
    key: jax.Array | None = None,
    keep_perturbations: bool = False,
) -> WorstCase:
    """The worst-case sharpness `max_{‖δ‖ ≤ ρ} L_B(w + δ) − L_B(w)` of each batch, and its mean over the batches.

    The maximum is sought by APGD, gradient ascent with momentum and an adaptive step size, from `δ = 0`. From a point
    whose gradient is zero, the next step is random. The result is the highest loss that was seen: up to rounding, a
    lower bound of the true maximum. It takes `steps + 1` evaluations of loss and gradient for each batch and start, and
    the memory of an evaluation plus four copies of the parameters, in float32 or wider.

    The balls are `|δ_i| ≤ ρ` (ℓ∞) and `‖δ‖₂ ≤ ρ` (ℓ2). The adaptive ones are measured in units of each weight,
    `|δ_i| ≤ ρ|w_i|` and `‖δ/|w|‖₂ ≤ ρ`, and their ascent is that of a plain ball in the coordinates `δ/|w|`. Scaling a
    layer and undoing it in the next one changes the sharpness in the plain balls, and not in the adaptive ones. The
    value depends on the radius: `curve` measures it at several.

    The ascent is a Python loop over compiled functions, since the gradient of a convolution is slow inside a compiled
    loop on a CPU.

    From "A modern look at the relationship between sharpness and generalization" (Andriushchenko et al., 2023,
    https://arxiv.org/abs/2302.07011); the ascent is that of "Reliable evaluation of adversarial robustness with an
    ensemble of diverse parameter-free attacks" (Croce and Hein, 2020, https://arxiv.org/abs/2003.01690).

    Args:
      loss_fn: `loss_fn(params, batch)` → scalar, the mean over the batch, with BatchNorm in inference mode. It is
        compiled and reused by later calls: as for `jax.jit`, the values that it closes over must not change. Put state
        that changes, such as BatchNorm's statistics, into `params`, outside of `mask`.
      params: the point where the sharpness is measured; any pytree of arrays. In bfloat16 a small `ρ` is lost in
        rounding: give float32 parameters, and let `loss_fn` compute in the precision that it needs.
      batches: pytrees of arrays, with the examples along the leading axis.
      rho: the radius `ρ ≥ 0`: of a single weight for ℓ∞, of all weights together for ℓ2, relative if adaptive.
      norm: `linf` or `l2`.
      adaptive: whether each weight is its own unit.
      steps: the number of iterations of an ascent.
      restarts: the number of ascents for each batch; all but the first start at random.
      random_start: whether the first one starts at random, too: uniformly in the box, or on the ball's boundary.
      mask: the leaves to perturb: a tree of bools, or a function from the parameters to one; None is all. They must be
        real floating arrays. The others may have any dtype, and `loss_fn` gets them as they are.
      key: draws all random numbers; None is `jax.random.key(0)`.
      keep_perturbations: whether to return the maximisers, one copy of the parameters for each batch.

    Returns:
      A `WorstCase`, with `.sharpness` and `.per_batch`.

    Raises:
      ValueError: If `rho` is negative or not finite, if there is no such norm, if `steps` or `restarts` is not a
        positive integer, if `mask` does not fit or chooses no leaf or one that is not real floating, or if `batches`
        is empty.

    Example:
      >>> import jax.numpy as jnp
      >>> from sam_optax import sharpness
      >>> loss_fn = lambda w, x: 0.5 * jnp.mean((x @ w) ** 2)  # here ½ (w₁² + 4 w₂²)
      >>> w, batch = jnp.array([1.0, -1.0]), jnp.sqrt(2.0) * jnp.diag(jnp.array([1.0, 2.0]))
      >>> result = sharpness.worst_case(loss_fn, w, [batch], rho=0.1)
      >>> print(f"{result.sharpness:.4f}, of which the gradient explains {result.first_order:.4f}")
      0.5250, of which the gradient explains 0.5000
    """
    losses.check("loss_fn", loss_fn)
    hyperparameters.check_nonnegative_number("rho", rho)
    hyperparameters.check_count("steps", steps, "the iterations of an ascent")
    hyperparameters.check_count("restarts", restarts, "the number of ascents for each batch")
    ball = balls.create(norm, adaptive)
    parts = partition.create(mask, params)
    collected = losses.collect_batches(batches)
    rho, key = jnp.asarray(rho, trees.accumulator_dtype(parts.moved)), jax.random.key(0) if key is None else key
    found = []
    for number, batch in enumerate(collected):
        batch_key = jax.random.fold_in(key, number)
        search = Search(parts.restrict(loss_fn), parts.moved, parts.arguments(batch), ball, rho, steps, batch_key)
        draws: list[Any] = [jax.random.fold_in(search.key, start) for start in range(restarts)]
        found.append(_of_batch(search, draws if random_start else [None, *draws[1:]], keep_perturbations))
    return _summary(found, parts, collected)


def _of_batch(search: Search, draws: list[Any], keep: bool) -> _OfBatch:
    """The ascents of one batch, one for each draw; None starts at the parameters themselves."""
    ball, params, rho = search.ball, search.params, search.rho
    centre = trees.widen(params)
    loss, gradient = search.evaluate(centre)
    first_order = rho * ball.dual_norm(gradient, ball.scale(params))
    ascent = begin(centre, loss, gradient, rho) if draws[0] is None else None
    del gradient  # its buffers belong to the ascent now
    highest, best, histories = loss, centre if keep else None, []
    for draw in draws:
        found = ascend(search, _begin_at_random(search, draw) if ascent is None else ascent)
        highest, best = better(highest, best, found.highest, found.best if keep else None)
        histories.append(found.history)
        del found
        ascent = None
    # If the gradient is not finite, no ascent could move from its start.
    highest = jnp.where(jnp.isfinite(first_order), highest, jnp.nan)
    perturbation = jax.tree.map(jnp.subtract, best, centre) if keep else None
    return _OfBatch(loss, first_order, highest, jnp.stack(histories), perturbation)


def _begin_at_random(search: Search, draw: Any) -> Ascent:
    start = _random_point(search.ball, draw, search.params, search.rho)
    return begin(start, *search.evaluate(start), search.rho)


@functools.partial(jax.jit, static_argnums=0)
def _random_point(ball: Ball, key: jax.Array, params: Params, rho: Any) -> Params:
    return jax.tree.map(jnp.add, trees.widen(params), ball.draw(key, ball.scale(params), params, rho))


def _summary(found: list[_OfBatch], parts: Partition, collected: tuple[Any, ...]) -> WorstCase:
    per_batch = jnp.stack([of_batch.highest - of_batch.loss for of_batch in found])
    perturbations = [parts.expand(of_batch.perturbation) for of_batch in found if of_batch.perturbation is not None]
    return WorstCase(
        sharpness=losses.weighted_mean(list(per_batch), collected),
        loss=losses.weighted_mean([of_batch.loss for of_batch in found], collected),
        first_order=losses.weighted_mean([of_batch.first_order for of_batch in found], collected),
        per_batch=per_batch,
        history=jnp.stack([of_batch.history for of_batch in found]),
        perturbations=tuple(perturbations) or None,
    )


def m_sharpness(
    loss_fn: Callable[..., Any], params: Params, batches: Iterable[Any], ms: Sequence[int], *, rho: Any, **options: Any
) -> dict[int, WorstCase]:
    """The worst-case sharpness over parts of m examples, each of which has its own perturbation, for a list of m.

    A perturbation for fewer examples fits them better, so m-sharpness falls as m grows. SAM with small batches
    minimises the sharpness at a small m. From "Sharpness-Aware Minimization for Efficiently Improving Generalization"
    (Foret et al., 2021, https://arxiv.org/abs/2010.01412).

    Args:
      loss_fn: `loss_fn(params, batch)` → scalar, the mean over the batch.
      params: the point where the sharpness is measured.
      batches: pytrees of arrays, whose leading axis counts the examples.
      ms: the sizes of the parts, in examples; each must divide every batch.
      rho: the radius `ρ ≥ 0`.
      **options: the other options of `worst_case`, such as norm, adaptive, steps and mask.

    Returns:
      A `WorstCase` for each m, whose `.per_batch` is that of each part.

    Raises:
      ValueError: If an m is not a positive integer or does not divide a batch, or as `worst_case` does.

    Example:
      >>> import jax.numpy as jnp
      >>> from sam_optax import sharpness
      >>> loss_fn = lambda w, x: 0.5 * jnp.mean((x @ w) ** 2)
      >>> batch = jnp.array([[1.0, 1.0], [1.0, -1.0]])
      >>> found = sharpness.m_sharpness(loss_fn, jnp.array([1.0, 0.5]), [batch], (1, 2), rho=0.1)
      >>> print({m: f"{each.sharpness:.4f}" for m, each in found.items()})
      {1: '0.2200', 2: '0.1600'}
    """
    collected, ms = losses.collect_batches(batches), tuple(ms)
    for m in ms:
        hyperparameters.check_count("ms", m, "the examples of a part")
    if not ms:
        raise ValueError("ms is empty: give at least one number of examples.")
    return {m: worst_case(loss_fn, params, _cut(collected, m), rho=rho, **options) for m in ms}


def _cut(collected: tuple[Any, ...], m: int) -> Iterator[Any]:
    for batch in collected:
        size = losses.batch_size(batch)
        if size % m:
            raise ValueError(f"ms holds {m}, and a batch has {size} examples: give an m that divides it.")
        parts = cut(Call((batch,), {}), size // m).args[0]
        for i in range(size // m):
            yield jax.tree.map(lambda x, i=i: jax.lax.index_in_dim(x, i, keepdims=False), parts)
