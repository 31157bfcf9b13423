"""The tests of Optax's `contrib/_common_test.py`, for every method with every base optimizer.

Optax requires that its optimizers take extra arguments, are traced once, work with `tree.map_params` and
`inject_hyperparams`, keep shapes and dtypes under `lax.cond`, and reach its targets. A pair is compiled once for
all numerical tests: the radius is an injected hyperparameter, so that one program takes a large radius, at which
its steps are compared with steps composed by hand, and a small one, at which it reaches the targets.
"""

import functools
import itertools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax
import optax.contrib

import sam_optax
from tests import methods, optimizers, steps_by_hand, targets

STEPS = 10_000  # as many as in Optax's test
LARGE = {"rho": 0.1, "decoupled_rate": 0.1}
# Sharpness-aware methods do not converge exactly: they oscillate around a minimum with an amplitude that grows with the
# radius, and drift towards flatter points of the valley. At this radius both stay within Optax's own tolerance.
SMALL = {"rho": 1e-5, "decoupled_rate": 1e-3}


def pair(method: str, base: str) -> optax.GradientTransformationExtraArgs:
    """The pair of a method and a base optimizer, which are each traced once for all pairs."""
    made = steps_by_hand.compiled_base(base)
    if method in methods.WRAPPERS:
        return optimizers.combine(method, base, made, **LARGE)
    return optax.chain(steps_by_hand.compiled_method(method, LARGE["rho"]), made)


def avals(tree: Any) -> Any:
    """Structure, shapes, dtypes and weak types: `jax.jit` traces a function again if one of them changes."""
    return jax.tree.map(jax.typeof, tree)


def check_stability(method: str, base: str, dtype: Any) -> None:
    """Check that a step in one branch of a `lax.cond` keeps the types of parameters and state."""
    tx, start = pair(method, base), jax.tree.map(lambda x: x.astype(dtype), targets.INITIAL["parabola"])

    def step(params: Any, state: Any, flag: Any) -> Any:
        value = steps_by_hand.loss(params, True).astype(jnp.float16)  # of another dtype, as in Optax's test
        extra = targets.extra_arguments(value, True) | {"grad_fn": steps_by_hand.grad_fn(True)}
        update = functools.partial(tx.update, steps_by_hand.gradient(params, True), state, params, **extra)
        return jax.lax.cond(flag, update, lambda: (params, state))

    before = jax.eval_shape(lambda params: (params, tx.init(params)), start)
    assert avals(jax.eval_shape(step, *before, True)) == avals(before)


@optimizers.every_short_pair  # the other pairs are compiled in float32, in a loop whose state must keep its types
def test_updates_and_states_keep_their_shapes_and_dtypes_under_cond(method, base):
    check_stability(method, base, jnp.float32)


@optimizers.every_pair
def test_updates_and_states_of_bfloat16_keep_their_shapes_and_dtypes_under_cond(method, base):
    check_stability(method, base, jnp.bfloat16)


def marked(tx: optax.GradientTransformation) -> Any:
    """The state of `tx`, with True where `map_params` finds a leaf shaped like the parameters."""
    state = jax.eval_shape(tx.init, targets.INITIAL["parabola"])
    return optax.tree.map_params(tx, lambda x: True, state, transform_non_params=lambda x: False)


@functools.cache
def marked_base(base: str) -> Any:
    return marked(optimizers.ALL[base]())


@optimizers.every_pair
def test_map_params_finds_the_leaves_of_the_method_and_those_of_the_base(method, base):
    tx = pair(method, base)
    own, of_base = optimizers.own_and_base(method, marked(tx))
    shapes, _ = optimizers.own_and_base(method, jax.eval_shape(tx.init, targets.INITIAL["parabola"]))
    assert own == jax.tree.map(lambda x: x.ndim > 0, shapes)
    assert of_base == marked_base(base)


def to_evaluate(method: str, base: str, state: Any, params: Any) -> Any:
    """The parameters of a pair to evaluate: without MSAM's shift, and averaged where the base averages."""
    params = sam_optax.msam_eval_params(state, params) if method.startswith("msam") else params
    return optimizers.averaged(base, optimizers.own_and_base(method, state)[1], params)


def by_hand(method: str, base: str) -> Any:
    """The parameters to evaluate after three steps composed by hand."""
    params, state = next(itertools.islice(steps_by_hand.steps(method, base, **LARGE), 2, None))
    return optimizers.averaged(base, state, params)


@optimizers.every_short_pair
def test_three_steps_equal_the_base_on_the_gradient_of_the_method(method, base):
    tx, params = pair(method, base), targets.INITIAL["parabola"]
    state = tx.init(params)
    for _ in range(3):
        extra = targets.extra_arguments(steps_by_hand.loss(params, True), True)
        grads, grad_fn = steps_by_hand.gradient(params, True), steps_by_hand.grad_fn(True)
        updates, state = tx.update(grads, state, params, grad_fn=grad_fn, **extra)
        params = optax.apply_updates(params, updates)
    chex.assert_trees_all_close(to_evaluate(method, base, state, params), by_hand(method, base), rtol=1e-5, atol=1e-6)


class Program:
    """A pair with injected hyperparameters, compiled once for any radius, number of steps and target."""

    def __init__(self, method: str, base: str) -> None:
        self.traces = 0
        self.method, self.base = method, base
        factory = optax.inject_hyperparams(
            lambda rate, rho, decoupled_rate: optimizers.combine(
                method, base, optimizers.ALL[base](rate), rho, decoupled_rate
            )
        )
        self.tx = factory(rate=optimizers.ALL[base].rate, **LARGE)
        self.start = functools.cache(lambda target: self.tx.init(targets.INITIAL[target]))
        self.run = jax.jit(self._run)

    def _run(self, params: Any, state: Any, is_parabola: Any, steps: Any) -> tuple[Any, Any]:
        return jax.lax.fori_loop(0, steps, lambda i, made: self._step(*made, is_parabola), (params, state))

    def _step(self, params: Any, state: Any, is_parabola: Any) -> tuple[Any, Any]:
        self.traces += 1
        extra = targets.extra_arguments(steps_by_hand.loss(params, is_parabola), is_parabola)
        grads, grad_fn = steps_by_hand.gradient(params, is_parabola), steps_by_hand.grad_fn(is_parabola)
        updates, state = self.tx.update(grads, state, params, grad_fn=grad_fn, **extra)
        return optax.apply_updates(params, updates), state

    def descend(self, target: str, hyperparameters: dict[str, float], calls: int, steps: int) -> Any:
        """The parameters to evaluate after this number of calls with this number of steps each."""
        params, state = targets.INITIAL[target], self.start(target)
        changed = {name: jnp.asarray(x, jnp.float32) for name, x in hyperparameters.items()}
        state = state._replace(hyperparams=state.hyperparams | changed)
        for _ in range(calls):
            params, state = self.run(params, state, target == "parabola", steps)
        return to_evaluate(self.method, self.base, state.inner_state, params)


def small(method: str) -> dict[str, float]:
    """The small hyperparameters; a rising schedule reaches them with the last step."""
    rise = float(methods.rising(1.0)(STEPS)) if method.endswith("scheduled") else 1.0
    return {name: x / rise for name, x in SMALL.items()}


@optimizers.every_compiled_pair
def test_a_pair_is_traced_once_follows_its_base_and_reaches_the_targets(method, base):
    program = Program(method, base)
    made = program.descend("parabola", LARGE, calls=3, steps=1)
    chex.assert_trees_all_close(made, by_hand(method, base), rtol=1e-4, atol=1e-5)
    for target in optimizers.ALL[base].targets:
        reached = program.descend(target, small(method), calls=1, steps=STEPS)
        chex.assert_trees_all_close(reached, targets.FINAL[target], rtol=3e-2, atol=3e-2)
    assert program.traces == 1
