"""The neighbourhoods in which sharpness is measured: ℓ∞ and ℓ2 balls, absolute or relative to the size of weights."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam_optax import trees
from sam_optax.typing import Params, Updates

_uniform = functools.partial(jax.random.uniform, minval=-1.0, maxval=1.0)


class Ball(NamedTuple):
    """`{δ : ‖δ / s‖ ≤ ρ}`, in the norm ℓ∞ or ℓ2, with the scale `s` = 1, or `s` = |w| if adaptive.

    A ball is hashable, so it can be a static argument of `jax.jit`. Offsets are trees in the accumulator's dtype.

    Attributes:
      norm: `linf` or `l2`.
      adaptive: whether the offset of each weight is measured in units of |w|.
    """

    norm: str
    adaptive: bool

    def scale(self, params: Params) -> Updates:
        """The scale `s` of each weight, or one scalar per leaf if the ball is not adaptive."""
        return jax.tree.map(jnp.abs if self.adaptive else lambda x: jnp.ones((), x.dtype), trees.widen(params))

    def direction(self, gradient: Updates, scale: Updates, key: jax.Array) -> Updates:
        """The ascent direction: `s sign(g)`, or `s · s g / (‖s g‖ + 1e-12)`; a random one if the gradient is zero.

        In the coordinates `δ / s` it is the ascent direction of a ball that is not adaptive. The published ascent in
        the adaptive ℓ2 ball steps along `s g` and projects to the nearest point of the ellipsoid. It does not converge
        to the maximum.
        """
        steepest = _scaled(gradient, scale)
        is_zero = _largest(steepest) == 0
        steepest = jax.lax.cond(is_zero, lambda: self.noise(key, scale, steepest), lambda: steepest)
        if self.norm == "linf":
            return jax.tree.map(lambda g, s: s * jnp.sign(g), steepest, scale)
        length = _length(steepest) + 1e-12
        return jax.tree.map(lambda g, s: s * (g / length), steepest, scale)

    def project(self, offset: Updates, scale: Updates, rho: Any) -> Updates:
        """The point of the ball that is nearest to `offset` in the coordinates `δ / s`."""
        if self.norm == "linf":
            return jax.tree.map(lambda d, s: jnp.clip(d, -rho * s, rho * s), offset, scale)
        length = trees.norm(jax.tree.map(_divide, offset, scale))
        shrunk = jnp.where(length > rho, rho / jnp.where(length > rho, length, 1), 1)
        return jax.tree.map(lambda d: d * shrunk, offset)

    def noise(self, key: jax.Array, scale: Updates, like: Params) -> Updates:
        """Random offsets `s z`, where `z` is standard normal for ℓ2, and uniform from −1 to 1 for ℓ∞."""
        sample: Any = jax.random.normal if self.norm == "l2" else _uniform
        drawn = optax.tree.random_like(key, trees.widen(like), sample)
        return jax.tree.map(jnp.multiply, drawn, scale)

    def draw(self, key: jax.Array, scale: Updates, params: Params, rho: Any) -> Updates:
        """A random point: uniform in the ℓ∞ ball, or on the boundary of the ℓ2 ball in a random direction."""
        noise = self.noise(key, scale, params)
        if self.norm == "linf":
            return jax.tree.map(lambda z: rho * z, noise)
        length = trees.norm(jax.tree.map(_divide, noise, scale))
        return jax.tree.map(lambda z: rho * z / jnp.where(length > 0, length, 1), noise)

    def dual_norm(self, gradient: Updates, scale: Updates) -> jax.Array:
        """The largest increase of a linear function in the ball of radius 1: `‖s g‖₁`, or `‖s g‖₂`."""
        scaled = _scaled(gradient, scale)
        if self.norm == "l2":
            return _length(scaled)
        return sum((jnp.sum(jnp.abs(x)) for x in jax.tree.leaves(scaled)), start=jnp.zeros(()))


def create(norm: str, adaptive: bool) -> Ball:
    """The ball with the given norm.

    Raises:
      ValueError: If `norm` is not `linf` or `l2`, or if `adaptive` is not a bool.
    """
    if norm not in ("linf", "l2"):
        raise ValueError(f"norm is {norm!r}: choose 'linf' or 'l2'.")
    if not isinstance(adaptive, bool):
        raise ValueError(f"adaptive is {adaptive!r}: give True for a ball in units of each weight, or False.")
    return Ball(norm, adaptive)


def _scaled(gradient: Updates, scale: Updates) -> Updates:
    """The product `s g`; it is 0 for a weight whose scale is 0, even if the gradient is not finite."""
    return jax.tree.map(lambda g, s: jnp.where(s == 0, 0, s * g), trees.widen(gradient), scale)


def _length(tree: Updates) -> jax.Array:
    """The L2 norm, computed relative to the largest entry, so that no square overflows."""
    largest = _largest(tree)
    unit = jnp.where(largest > 0, largest, 1)
    return unit * trees.norm(jax.tree.map(lambda x: x / unit, tree))


def _largest(tree: Updates) -> jax.Array:
    return jnp.stack([jnp.max(jnp.abs(x), initial=0) for x in jax.tree.leaves(tree)]).max()


def _divide(a: jax.Array, b: jax.Array) -> jax.Array:
    """The quotient `a / b`; it is 0 where `b` is 0."""
    return jnp.where(b == 0, jnp.zeros_like(a), a / jnp.where(b == 0, 1, b))
