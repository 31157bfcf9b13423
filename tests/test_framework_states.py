"""The states of Haiku, Linen and Equinox: counters and statistics are carried from part to part over many steps."""

from collections.abc import Callable
from typing import Any

import chex
import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen

import sam_optax
import sam_optax.equinox
from tests.selection import LOOPS, combinations, loop_in_turn

STEPS, PARTS = 40, 2


def batches(steps: int = STEPS) -> list[tuple[jax.Array, jax.Array]]:
    rng = np.random.default_rng(0)
    return [(jnp.asarray(rng.normal(1, 2, (8, 3)), jnp.float32), jnp.ones((8, 2))) for _ in range(steps)]


def parts_of(batch: tuple[jax.Array, jax.Array]) -> list[Any]:
    return list(zip(*(jnp.split(x, PARTS) for x in batch), strict=True))


class Problem:
    """A loss of a framework: `loss_fn(params, state, x, y)` → `(loss, (metric, state))`."""

    def __init__(self, params: Any, state: Any, loss_fn: Callable[..., Any]) -> None:
        self.params, self.state, self.loss_fn = params, state, loss_fn


def haiku_problem() -> Problem:
    def forward(x: jax.Array) -> jax.Array:
        return hk.Linear(2)(hk.BatchNorm(True, True, decay_rate=0.9)(hk.Linear(4)(x), is_training=True))

    net = hk.without_apply_rng(hk.transform_with_state(forward))
    params, state = net.init(jax.random.key(0), batches(1)[0][0])

    def loss_fn(params: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
        out, state = net.apply(params, state, x)
        return jnp.mean((out - y) ** 2), (jnp.mean(out), state)

    return Problem(params, state, loss_fn)


def linen_problem() -> Problem:
    class Net(linen.Module):
        @linen.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            calls = self.variable("counts", "calls", lambda: jnp.zeros((), jnp.int32))
            calls.value += 1
            return linen.Dense(2)(linen.BatchNorm(use_running_average=False)(linen.Dense(4)(x)))

    variables = Net().init(jax.random.key(0), batches(1)[0][0])
    state = {name: x for name, x in variables.items() if name != "params"}

    def loss_fn(params: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
        out, state = Net().apply({"params": params, **state}, x, mutable=["batch_stats", "counts"])
        return jnp.mean((out - y) ** 2), (jnp.mean(out), state)

    return Problem(variables["params"], state, loss_fn)


def equinox_problem(mode: str) -> Problem:
    class Net(eqx.Module):
        first: eqx.nn.Linear
        norm: eqx.nn.BatchNorm
        last: eqx.nn.Linear

        def __init__(self) -> None:
            one, two = jax.random.split(jax.random.key(0))
            self.first, self.last = eqx.nn.Linear(3, 4, key=one), eqx.nn.Linear(4, 2, key=two)
            self.norm = eqx.nn.BatchNorm(4, "batch", momentum=0.9, mode=mode)

        def __call__(self, x: jax.Array, state: Any) -> Any:
            hidden, state = self.norm(self.first(x), state)
            return self.last(hidden), state

    model, state = eqx.nn.make_with_state(Net)()
    params, rest = eqx.partition(model, eqx.is_inexact_array)

    def loss_fn(params: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
        forward = jax.vmap(eqx.combine(params, rest), axis_name="batch", in_axes=(0, None), out_axes=(0, None))
        out, state = forward(x, state)
        return jnp.mean((out - y) ** 2), (jnp.mean(out), state)

    return Problem(params, state, loss_fn)


PROBLEMS = {
    "haiku": haiku_problem,
    "linen": linen_problem,
    "equinox_batch": lambda: equinox_problem("batch"),
    "equinox_ema": lambda: equinox_problem("ema"),
}


@combinations(
    lambda name, loop: loop == loop_in_turn(list(PROBLEMS).index(name)),
    indirect=["loop"],
    name=PROBLEMS,
    loop=LOOPS,
)
def test_counters_and_statistics_come_only_from_the_clean_passes_over_the_parts(name, loop):
    problem = PROBLEMS[name]()
    tx = optax.chain(sam_optax.gsam(rho=0.1), optax.sgd(0.05))
    options = {"has_aux": True, "micro_batches": PARTS, "batch_argnums": (1, 2), "state_argnum": 0}
    value_and_grad = sam_optax.value_and_grad(problem.loss_fn, **options)

    @jax.jit
    def step(params: Any, state: Any, opt_state: Any, *batch: Any) -> Any:
        (_, (metric, state)), grads, grad_fn = value_and_grad(params, state, *batch)
        updates, opt_state = tx.update(grads, opt_state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), state, opt_state, metric

    clean_pass = jax.jit(lambda params, state, *batch: problem.loss_fn(params, state, *batch)[1])
    params, state, opt_state = problem.params, problem.state, tx.init(problem.params)
    for batch in batches():
        expected, metrics = state, []
        for part in parts_of(batch):
            metric, expected = clean_pass(params, expected, *part)
            metrics.append(metric)
        params, state, opt_state, metric = step(params, state, opt_state, *batch)
        chex.assert_trees_all_close(state, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(metric, np.mean(metrics), rtol=1e-4, atol=1e-5)
    ends = [
        int(after) - int(before)
        for after, before in zip(jax.tree.leaves(state), jax.tree.leaves(problem.state), strict=True)
        if jnp.issubdtype(after.dtype, jnp.integer)
    ]
    assert ends == [STEPS * PARTS] * len(ends)
    assert bool(ends) == (name != "equinox_ema")  # the framework that has a flag instead
    chex.assert_tree_all_finite(params)


def test_equinox_accepts_the_state_option():
    model, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(3, "batch", mode="batch")

    def loss_fn(model: Any, state: Any, x: jax.Array) -> Any:
        out, state = jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)
        return jnp.mean(out**2), state

    options = {"micro_batches": 2, "batch_argnums": 1, "state_argnum": 0}
    (x, _) = batches(1)[0]
    (_, after), _, _ = sam_optax.equinox.value_and_grad(loss_fn, has_aux=True, **options)(model, state, x)
    for part in jnp.split(x, 2):
        _, state = loss_fn(model, jax.tree.map(lambda x: x, state), part)
    chex.assert_trees_all_close(jax.tree.leaves(after), jax.tree.leaves(state), rtol=1e-5)
