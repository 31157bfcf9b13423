"""A step under JAX's transformations: differentiated, exported, scanned over batches and mapped over seeds."""

import functools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax

from tests import helpers, methods
from tests.selection import some_of

few_optimizers = some_of((*methods.SHORT, *methods.WRAPPERS), ("vasso", "sam_every_2", "msam", "wsam_decoupled"))
"""`make test` runs one optimizer for each kind of state and of decision."""


def start(name: str) -> tuple[Any, Any]:
    params = helpers.small_params()
    return params, helpers.optimizer(name).init(params)


def new_step(name: str) -> Callable[..., Any]:
    """A new function without a cached trace. A cached one would be the same on both sides of a comparison."""
    return helpers.make_step(helpers.optimizer(name))


compiled_step = functools.cache(new_step)
"""The step that exported, scanned and mapped steps are compared with."""


def loop(name: str, made: tuple[Any, Any], batches: Any) -> tuple[Any, Any]:
    for batch in batches:
        made = compiled_step(name)(*made, *batch)
    return made


def meta_loss(name: str, settings: dict[str, Any]) -> jax.Array:
    """The loss on a third batch, after a step on each of two."""
    *batches, last = helpers.small_batches(3)
    base = optax.sgd(settings["rate"], momentum=0.9)
    tx, params = helpers.optimizer(name, base, settings["rho"]), settings["params"]
    step, state = helpers.make_step(tx), tx.init(params)
    for batch in batches:
        params, state = step(params, state, *batch)
    return helpers.small_loss(params, *last)


@some_of((*methods.SHORT, *methods.WRAPPERS), ("asam", "gsam", "look_sam", "msam"))
def test_the_gradient_through_two_steps_equals_finite_differences(name, x64):
    settings = {"params": helpers.small_params(), "rho": jnp.asarray(0.3, float), "rate": jnp.asarray(0.2, float)}
    value_and_grad = jax.jit(jax.value_and_grad(functools.partial(meta_loss, name)))
    _, grads = value_and_grad(settings)
    for key, value in settings.items():
        slope = optax.tree.vdot(grads[key], direction(value))
        assert abs(slope) > 1e-6
        ahead, behind = (value_and_grad(settings | {key: moved(value, length)})[0] for length in (1e-5, -1e-5))
        np.testing.assert_allclose(slope, (ahead - behind) / 2e-5, rtol=1e-5)


def direction(tree: Any) -> Any:
    """A direction with the shapes of the tree."""
    return jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size)).reshape(x.shape), tree)


def moved(tree: Any, length: float) -> Any:
    return jax.tree.map(lambda x, d: x + length * d, tree, direction(tree))


@few_optimizers
def test_an_exported_step_gives_the_same_result(name, x64):
    """It takes and returns leaves, since JAX does not serialize the NamedTuples of Optax's and of our states."""
    made, (batch,) = start(name), helpers.small_batches(1)
    leaves, structure = jax.tree.flatten(made)

    def step_on_leaves(leaves: Any, *batch: Any) -> Any:
        return jax.tree.leaves(new_step(name)(*jax.tree.unflatten(structure, leaves), *batch))

    written = jax.export.export(jax.jit(step_on_leaves))(leaves, *batch).serialize()
    read = jax.jit(jax.export.deserialize(written).call)(leaves, *batch)
    chex.assert_trees_all_close(jax.tree.unflatten(structure, read), compiled_step(name)(*made, *batch), rtol=1e-12)


@few_optimizers
def test_a_scan_over_batches_equals_a_loop_over_them(name, x64):
    batches, step = helpers.small_batches(3), new_step(name)

    @jax.jit
    def scanned(params: Any, state: Any, *stacked: Any) -> Any:
        return jax.lax.scan(lambda made, batch: (step(*made, *batch), None), (params, state), stacked)[0]

    made = scanned(*start(name), *(jnp.stack(x) for x in zip(*batches, strict=True)))
    chex.assert_trees_all_close(made, loop(name, start(name), batches), rtol=1e-12)


@few_optimizers
def test_a_vmap_over_seeds_equals_a_loop_over_them(name, x64):
    params, batches = helpers.small_params(), helpers.small_batches(4)
    seeds = [jax.tree.map(lambda x: x + 0.1 * seed, params) for seed in range(2)]  # noqa: B023
    per_seed = [batches[:2], batches[2:]]
    tx = helpers.optimizer(name)
    expected = [loop(name, (w, tx.init(w)), own) for w, own in zip(seeds, per_seed, strict=True)]
    mapped, stacked = jax.jit(jax.vmap(new_step(name))), stack(seeds)
    made = (stacked, jax.vmap(tx.init)(stacked))
    for batch in zip(*per_seed, strict=True):
        made = mapped(*made, *stack(batch))
    chex.assert_trees_all_close(made, stack(expected), rtol=1e-12)


def stack(trees: Any) -> Any:
    return jax.tree.map(lambda *x: jnp.stack(x), *trees)
