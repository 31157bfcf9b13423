"""A stochastic quadratic: the problem on which theory gives the answer, and many runs of it at once."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from experiments.training import optimizer


class Quadratic(NamedTuple):
    """`f(w) = ½ wᵀ A w` with a diagonal `A`; the gradient of a batch of `b` examples is `A w + s ξ/√b`, `ξ` normal.

    Attributes:
      spectrum: the diagonal of `A`, positive, `(dimensions,)`.
      noise: `s`, the standard deviation of each coordinate of one example's gradient.
    """

    spectrum: np.ndarray
    noise: float

    @property
    def smoothness(self) -> float:
        """`L`, the largest curvature."""
        return float(np.max(self.spectrum))

    @property
    def curvature(self) -> float:
        """`μ`, the least curvature."""
        return float(np.min(self.spectrum))

    @property
    def deviation(self) -> float:
        """`σ = s √d`, of one example's gradient as a whole."""
        return self.noise * float(np.sqrt(len(self.spectrum)))

    def value(self, w: np.ndarray) -> float:
        """`f(w)`, which is 0 at its minimum."""
        return float(np.sum(self.spectrum * np.square(w)) / 2)

    def stationary_square(self, rate: float, batch_size: float) -> float:
        """`E‖∇f‖²` of SGD after any number of updates at a constant rate and batch size, exactly.

        A coordinate moves as `w ← (1 − η a) w − η s ξ/√b`: its variance stops at `η s² / (b a (2 − η a))`.
        """
        return float(np.sum(self.spectrum * rate * self.noise**2 / (batch_size * (2 - rate * self.spectrum))))

    def bouncing_norm(self, rate: float, rho: float) -> float:
        """`‖∇f‖` where SAM ends without noise: `η L² ρ / (2 − η L)`, to and fro along the largest curvature."""
        return rate * self.smoothness**2 * rho / (2 - rate * self.smoothness)


class Descent(NamedTuple):
    """How the parameters descend.

    Attributes:
      method: of `METHODS`, an estimator of the gradient, in front of SGD without momentum.
      rates: the learning rate of each update, `(updates,)`.
      batch_sizes: examples of each update, `(updates,)`.
      rho: the method's radius.
      alpha: its weight.
    """

    method: str
    rates: np.ndarray
    batch_sizes: np.ndarray
    rho: float
    alpha: float


class Norms(NamedTuple):
    """Gradient norms before each update and after the last one.

    Attributes:
      gradient: `‖∇f(w_t)‖`, `(chains, updates + 1)`.
      sam_gradient: `‖∇f(w_t + ρ ∇f/‖∇f‖)‖`, `(chains, updates + 1)`.
    """

    gradient: np.ndarray
    sam_gradient: np.ndarray


def simulate(problem: Quadratic, descent: Descent, *, start: np.ndarray, chains: int, seed: int) -> Norms:
    """Independent runs from one start, each with its own noise; both passes of a step see the same noise.

    Args:
      problem: what is minimised.
      descent: how.
      start: the first parameters, `(dimensions,)`.
      chains: how many runs.
      seed: determines their noise.

    Returns:
      The norms of the full gradient, and of the full SAM gradient at the radius `descent.rho`.
    """
    as_array = functools.partial(jnp.asarray, dtype=jnp.float32)
    noises = problem.noise / np.sqrt(descent.batch_sizes)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(len(noises)))
    steps = (keys, as_array(descent.rates), as_array(noises))
    radius = {"rho": as_array(descent.rho), "alpha": as_array(descent.alpha)}
    first = jnp.broadcast_to(as_array(start), (chains, len(problem.spectrum)))
    norms = _run(descent.method, as_array(problem.spectrum), radius, steps, first)
    return Norms(*map(np.asarray, norms))


_Steps = tuple[Array, Array, Array]  # keys, learning rates and standard deviations of the noise, one for each update


@functools.partial(jax.jit, static_argnums=0)
def _run(method: str, spectrum: Array, radius: dict[str, Array], steps: _Steps, first: Array) -> list[Array]:
    """Both norms before each update and after the last one, `(chains, updates + 1)`."""
    tx = optimizer.create(optimizer.Settings(method))
    measure = jax.vmap(functools.partial(_norms, spectrum, radius["rho"]))

    def update(w: Array, opt_state: Any, noise: Array, rate: Array) -> Any:
        grad_fn = lambda w: spectrum * w + noise  # noqa: E731 - the batch's, for both passes
        opt_state = optimizer.inject(opt_state, {"learning_rate": rate, **radius})
        updates, opt_state = tx.update(grad_fn(w), opt_state, w, grad_fn=grad_fn)
        return optax.apply_updates(w, updates), opt_state

    def step(carry: tuple[Array, Any], now: _Steps) -> Any:
        key, rate, noise = now
        w, opt_state = carry
        drawn = noise * jax.random.normal(key, w.shape)
        return jax.vmap(update, (0, 0, 0, None))(w, opt_state, drawn, rate), measure(w)

    (last, _), along = jax.lax.scan(step, (first, jax.vmap(tx.init)(first)), steps)
    return [jnp.concatenate([each.T, end[:, None]], axis=1) for each, end in zip(along, measure(last), strict=True)]


def _norms(spectrum: Array, rho: Array, w: Array) -> tuple[Array, Array]:
    gradient = spectrum * w
    norm = jnp.linalg.norm(gradient)
    offset = rho * gradient / jnp.where(norm > 0, norm, 1)
    return norm, jnp.linalg.norm(gradient + spectrum * offset)
