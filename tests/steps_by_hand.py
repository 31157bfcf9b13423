"""Steps towards Optax's parabola, composed by hand: the base optimizer is applied to the gradient of the method."""

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tests import methods, optimizers, targets

SHARPNESS = 0.9 / (1 - 0.9)  # the weight of the sharpness in decoupled WSAM
gradient = jax.jit(jax.grad(targets.objective))
loss = jax.jit(targets.objective)


def grad_fn(is_parabola: Any) -> jax.tree_util.Partial:
    """The second pass."""
    return jax.tree_util.Partial(gradient, is_parabola=is_parabola)


@functools.cache
def compiled_base(base: str) -> optax.GradientTransformationExtraArgs:
    """The base optimizer, whose update is traced once for all methods."""
    tx = optax.with_extra_args_support(optimizers.ALL[base]())
    return optax.GradientTransformationExtraArgs(tx.init, jax.jit(tx.update))


@functools.cache
def compiled_method(method: str, rho: float) -> optax.GradientTransformationExtraArgs:
    """The method, whose update is traced once for all base optimizers."""
    tx = methods.METHODS[method](rho=rho)
    return optax.GradientTransformationExtraArgs(tx.init, jax.jit(tx.update))


def steps(method: str, base: str, rho: float, decoupled_rate: float) -> Iterator[tuple[Any, Any]]:
    """The parameters after each step, without MSAM's shift, and the state of the base."""
    if method.startswith("msam"):
        return _msam(method, base, rho)
    if method.startswith("wsam_decoupled"):
        return _decoupled(method, base, rho, decoupled_rate)
    return _in_front(method, base, rho)


def _in_front(method: str, base: str, rho: float) -> Iterator[tuple[Any, Any]]:
    """The method's gradient, then the base."""
    estimator, params = compiled_method(method, rho), targets.INITIAL["parabola"]
    own, state = estimator.init(params), compiled_base(base).init(params)
    while True:
        given, own = estimator.update(gradient(params, True), own, params, grad_fn=grad_fn(True))
        updates, state = _base_update(base, given, state, params, params)
        params = optax.apply_updates(params, updates)
        yield params, state


def _msam(method: str, base: str, rho: float) -> Iterator[tuple[Any, Any]]:
    """The gradient at `w − ρ v / ‖v‖`, then the base at `w`."""
    params, state = targets.INITIAL["parabola"], compiled_base(base).init(targets.INITIAL["parabola"])
    shifted = params
    for count in itertools.count():
        updates, state = _base_update(base, gradient(shifted, True), state, params, shifted)
        params = optax.apply_updates(params, updates)
        shifted = _moved(params, -_at(method, rho, count), optimizers.ALL[base].momentum(state), method)
        yield params, state


def _decoupled(method: str, base: str, rho: float, decoupled_rate: float) -> Iterator[tuple[Any, Any]]:
    """The base on the clean gradient, then the sharpness on leaves that the base moves."""
    params, state = targets.INITIAL["parabola"], compiled_base(base).init(targets.INITIAL["parabola"])
    for count in itertools.count():
        clean = gradient(params, True)
        rise = jax.tree.map(jnp.subtract, gradient(_moved(params, _at(method, rho, count), clean, method), True), clean)
        updates, state = _base_update(base, clean, state, params, params)
        scale = _at(method, decoupled_rate, count) * SHARPNESS
        updates = jax.tree.map(functools.partial(_minus_where_moved, scale), updates, rise)
        params = optax.apply_updates(params, updates)
        yield params, state


def _minus_where_moved(scale: float, update: jax.Array, rise: jax.Array) -> jax.Array:
    return update - scale * rise if np.any(update) else update


def _base_update(base: str, given: Any, state: Any, params: Any, seen_at: Any) -> tuple[Any, Any]:
    extra = targets.extra_arguments(loss(seen_at, True), True)
    return compiled_base(base).update(given, state, params, **extra)


def _moved(params: Any, length: float, direction: Any, method: str) -> Any:
    """The parameters moved by a step of this length along only the leaves of the mask."""
    inside = methods.KERNELS(params) if method.endswith("masked") else jax.tree.map(lambda x: True, params)
    direction = jax.tree.map(lambda d, keep: d * keep, direction, inside)
    return jax.tree.map(lambda w, d: w + length / (optax.tree.norm(direction) + 1e-12) * d, params, direction)


def _at(method: str, value: float, count: int) -> float:
    return methods.rising(value)(count) if method.endswith("scheduled") else value
