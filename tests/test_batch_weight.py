"""Parts of unequal weight: a mean over tokens is the same for the whole batch, in parts, and over devices."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import sam_optax
import sam_optax.flax
from tests import methods
from tests.selection import LOOPS, combinations, loops_in_turn, some_of
from tests.test_devices import SPREAD

LENGTHS = [3, 1, 0, 4, 2, 0, 1, 4, 4, 4, 0, 0, 1, 2, 3, 0]
"""The number of tokens in each of 16 sequences of at most 4."""


def tokens() -> tuple[jax.Array, jax.Array]:
    x = jnp.asarray(np.random.default_rng(0).normal(size=(16, 4, 3)))
    return x, jnp.arange(4)[None] < jnp.array(LENGTHS)[:, None]


def params() -> dict[str, jax.Array]:
    return {"w": jnp.array([0.5, -1.0, 2.0]), "b": jnp.array(0.25)}


def token_mean(params: Any, x: jax.Array, mask: jax.Array) -> jax.Array:
    squares = (jnp.tanh(x @ params["w"]) - params["b"]) ** 2
    return jnp.sum(mask * squares) / jnp.sum(mask)


def with_aux(params: Any, x: jax.Array, mask: jax.Array) -> Any:
    loss = token_mean(params, x, mask)
    return loss, {"mean": jnp.sum(mask * x[..., 0]) / jnp.sum(mask), "tokens": jnp.sum(mask)}


def count(x: jax.Array, mask: jax.Array) -> jax.Array:
    return jnp.sum(mask)


def both_passes(value_and_grad: Any, *batch: jax.Array) -> Any:
    value, grads, grad_fn = value_and_grad(params(), *batch)
    return value, grads, grad_fn(jax.tree.map(lambda w: w + 0.5, params()))


def floating(tree: Any) -> list[jax.Array]:
    return [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]


NAMED: dict[str, Any] = {"batch_argnums": (0, 1), "batch_weight": count}


@loops_in_turn("parts", [2, 4, 8])
def test_a_mean_over_tokens_is_the_same_in_parts(parts, loop, x64):
    whole = both_passes(sam_optax.value_and_grad(with_aux, has_aux=True), *tokens())
    value_and_grad = sam_optax.value_and_grad(with_aux, has_aux=True, micro_batches=parts, **NAMED)
    chex.assert_trees_all_close(jax.jit(both_passes, static_argnums=0)(value_and_grad, *tokens()), whole, rtol=1e-12)


def test_without_the_weight_the_mean_differs(x64):
    whole = both_passes(sam_optax.value_and_grad(token_mean), *tokens())
    kept = tuple(x[jnp.array(LENGTHS) > 0][:8] for x in tokens())  # every part has tokens
    unweighted = sam_optax.value_and_grad(token_mean, micro_batches=2, batch_argnums=(0, 1))
    exact = both_passes(sam_optax.value_and_grad(token_mean), *kept)
    assert abs(both_passes(unweighted, *kept)[0] - exact[0]) > 1e-3
    assert np.isfinite(whole[0])


@combinations(
    lambda how, micro_batches: micro_batches == (2 if how == "shard_map" else 1), how=SPREAD, micro_batches=(1, 2)
)
def test_a_mean_over_tokens_is_the_same_over_devices(how, micro_batches, x64):
    """The four devices have 8, 7, 12 and 6 tokens, and one of their eight halves has only one."""
    whole = both_passes(sam_optax.value_and_grad(with_aux, has_aux=True), *tokens())
    options = {"has_aux": True, "axis_name": "data", "micro_batches": micro_batches, **NAMED}
    value_and_grad = sam_optax.value_and_grad(with_aux, **options)
    step = lambda params, state, *batch: both_passes(value_and_grad, *batch)  # noqa: E731
    chex.assert_trees_all_close(SPREAD[how](step)(params(), jnp.zeros(()), *tokens()), whole, rtol=1e-12)


def test_the_weight_of_an_undivided_batch_changes_no_bit():
    whole = both_passes(sam_optax.value_and_grad(with_aux, has_aux=True), *tokens())
    weighted = sam_optax.value_and_grad(with_aux, has_aux=True, batch_weight=lambda x, mask: jnp.sum(mask) / 7)
    chex.assert_trees_all_equal(both_passes(weighted, *tokens()), whole)


@some_of(SPREAD, quick=("shard_map", "vmap"), argument="how")
def test_a_device_without_tokens_adds_nothing(how, x64):
    x, mask = tokens()
    mask = mask.at[4:8].set(False)
    whole = both_passes(sam_optax.value_and_grad(token_mean), x, mask)
    value_and_grad = sam_optax.value_and_grad(token_mean, axis_name="data", **NAMED)
    step = lambda params, state, *batch: both_passes(value_and_grad, *batch)  # noqa: E731
    chex.assert_trees_all_close(SPREAD[how](step)(params(), jnp.zeros(()), x, mask), whole, rtol=1e-12)


@loops_in_turn("parts", [1, 4])
def test_a_batch_without_weight_has_no_loss_and_no_gradient(parts, loop):
    value_and_grad = sam_optax.value_and_grad(with_aux, has_aux=True, micro_batches=parts, **NAMED)
    x, mask = tokens()
    (loss, aux), *gradients = both_passes(value_and_grad, jnp.full_like(x, jnp.nan), jnp.zeros_like(mask))
    zero = jax.tree.map(jnp.zeros_like, params())
    chex.assert_trees_all_equal((loss, aux["mean"], *gradients), (jnp.zeros(()), jnp.zeros(()), zero, zero))


def test_each_pass_has_the_weights_of_its_own_arguments(x64):
    x, mask = tokens()
    other = lambda x, mask: (x, mask[:, ::-1])  # noqa: E731
    value_and_grad = sam_optax.value_and_grad(token_mean, micro_batches=2, second_pass_args=other, **NAMED)
    _, grads, second = both_passes(value_and_grad, x, mask)
    at = jax.tree.map(lambda w: w + 0.5, params())
    chex.assert_trees_all_close(grads, jax.grad(token_mean)(params(), x, mask), rtol=1e-12)
    chex.assert_trees_all_close(second, jax.grad(token_mean)(at, x, mask[:, ::-1]), rtol=1e-12)


def test_integer_aux_is_summed_over_parts_without_weight_too():
    loss_fn = lambda w, x, mask: (token_mean(w, x, mask), {"sequences": len(x)})  # noqa: E731
    value_and_grad = sam_optax.value_and_grad(loss_fn, has_aux=True, micro_batches=8, **NAMED)
    assert int(both_passes(value_and_grad, *tokens())[0][1]["sequences"]) == 16


@combinations(
    lambda name, loop: (name, loop) in {("gsam", "scanned"), ("vasso", "unrolled")},
    indirect=["loop"],
    name=("sam", "gsam", "vasso", "friendly_sam"),
    loop=LOOPS,
)
def test_m_sam_weights_its_shards(name, loop, x64):
    method, (x, mask) = methods.METHODS[name](rho=0.5), tokens()
    fn = sam_optax.sharpness_aware_grad(token_mean, method, 4, **NAMED)
    loss, _, grads, state = fn(params(), method.init(params()), x, mask)
    found, weights = [], []
    for start in range(0, 16, 4):
        part = x[start : start + 4], mask[start : start + 4]
        value, clean, grad_fn = sam_optax.value_and_grad(token_mean)(params(), *part)
        made, after = method.update(clean, method.init(params()), params(), grad_fn=grad_fn, value=value)
        found.append((value, made, floating(after)))
        weights.append(float(jnp.sum(part[1])))
    mean = lambda *xs: sum(w * x for w, x in zip(weights, xs, strict=True)) / sum(weights)  # noqa: E731
    expected = [jax.tree.map(mean, *parts) for parts in zip(*found, strict=True)]
    chex.assert_trees_all_close([loss, grads, floating(state)], expected, rtol=1e-12)
    assert int(state.count) == 1


@some_of(("gsam", "vasso"), quick=("vasso",))
def test_m_sam_weights_its_shards_on_several_devices_as_on_one(name, x64):
    method = methods.METHODS[name](rho=0.5)

    def step_with(axis_name: str | None) -> Any:
        return sam_optax.sharpness_aware_grad(token_mean, method, 2, axis_name=axis_name, **NAMED)

    on_one_device = step_with(None)(params(), method.init(params()), *tokens())
    found = SPREAD["shard_map"](step_with("data"))(params(), method.init(params()), *tokens())
    chex.assert_trees_all_close(found, on_one_device, rtol=1e-12)


@loops_in_turn("m", [None, 4])
def test_m_sam_keeps_the_state_of_its_method_without_weight(m, loop):
    method, (x, mask) = sam_optax.vasso(0.5), tokens()
    fn = sam_optax.sharpness_aware_grad(token_mean, method, m, **NAMED)
    *_, state = fn(params(), method.init(params()), x, mask)
    loss, _, grads, after = fn(params(), state, x, jnp.zeros_like(mask))
    assert float(loss) == 0
    chex.assert_trees_all_equal(grads, jax.tree.map(jnp.zeros_like, params()))
    chex.assert_trees_all_equal(after.perturbation.average, state.perturbation.average)
    assert int(after.count) == 2


@some_of(SPREAD, quick=("shard_map", "vmap"), argument="how")
def test_functional_sam_weights_the_devices(how, x64):
    model_fn = lambda params, x, mask: jnp.tanh(x @ params["w"]) - params["b"]  # noqa: E731
    logits_loss = lambda logits, x, mask: jnp.sum(mask * logits**2) / jnp.sum(mask)  # noqa: E731
    passes = sam_optax.functional_value_and_grad
    spread = passes(model_fn, logits_loss, axis_name="data", batch_weight=count)
    step = lambda params, state, *batch: both_passes(spread, *batch)[:2]  # noqa: E731
    whole = both_passes(passes(model_fn, logits_loss), *tokens())
    chex.assert_trees_all_close(SPREAD[how](step)(params(), jnp.zeros(()), *tokens()), whole[:2], rtol=1e-12)


def test_functional_sam_weights_the_second_pass_of_the_devices(x64):
    """By hand: each device pulls its own clean slope back, weighted by its tokens."""
    model_fn = lambda params, x, mask: jnp.tanh(x @ params["w"]) - params["b"]  # noqa: E731
    logits_loss = lambda logits, x, mask: jnp.sum(mask * logits**2) / jnp.sum(mask)  # noqa: E731
    options = {"axis_name": "data", "batch_weight": count}
    spread = sam_optax.functional_value_and_grad(model_fn, logits_loss, **options)
    step = lambda params, state, *batch: both_passes(spread, *batch)[2]  # noqa: E731
    found = SPREAD["vmap"](step)(params(), jnp.zeros(()), *tokens())
    whole = both_passes(sam_optax.functional_value_and_grad(model_fn, logits_loss), *tokens())[2]
    chex.assert_trees_all_close(found, whole, rtol=1e-12)


def test_nnx_weights_its_parts():
    class Net(nnx.Module):
        def __init__(self) -> None:
            self.dense = nnx.Linear(3, 1, rngs=nnx.Rngs(0))

        def __call__(self, x: jax.Array) -> jax.Array:
            return jnp.tanh(self.dense(x))[..., 0]

    def loss_fn(model: Net, x: jax.Array, mask: jax.Array) -> jax.Array:
        return jnp.sum(mask * model(x) ** 2) / jnp.sum(mask)

    found = []
    for options in ({}, {"micro_batches": 4, **NAMED}):
        model = Net()
        loss, grads, grad_fn = sam_optax.flax.value_and_grad(loss_fn, **options)(model, *tokens())
        second = grad_fn(jax.tree.map(lambda w: w + 0.5, nnx.state(model, nnx.Param)))
        found.append((loss, nnx.to_pure_dict(grads), nnx.to_pure_dict(second)))
    chex.assert_trees_all_close(found[1], found[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (lambda x, mask: mask, r"^batch_weight returned .*: return one real number"),
        (lambda x, mask: "many", r"^batch_weight returned 'many': return one real number"),
        (lambda x, mask: -1.0, r"^batch_weight returned -1.0: return a number of at least 0"),
    ],
)
def test_an_invalid_weight_is_refused(weight, message):
    value_and_grad = sam_optax.value_and_grad(token_mean, micro_batches=2, batch_argnums=(0, 1), batch_weight=weight)
    with pytest.raises(ValueError, match=message):
        value_and_grad(params(), *tokens())


def test_a_traced_weight_below_zero_gives_nan():
    weight = lambda x, mask: jnp.sum(mask) - 100.0  # noqa: E731
    value_and_grad = sam_optax.value_and_grad(token_mean, micro_batches=2, batch_argnums=(0, 1), batch_weight=weight)
    assert np.isnan(value_and_grad(params(), *tokens())[0])


@pytest.mark.parametrize("make", [sam_optax.value_and_grad, sam_optax.flax.value_and_grad])
def test_noise_of_weighted_parts_is_refused(make):
    with pytest.raises(ValueError, match=r"^measure_noise is True, and batch_weight is given"):
        make(token_mean, micro_batches=2, measure_noise=True, **NAMED)
    with pytest.raises(ValueError, match=r"^batch_weight is 3: give a function from the arguments"):
        make(token_mean, micro_batches=2, batch_weight=3)


def test_noise_of_weighted_shards_is_refused():
    with pytest.raises(ValueError, match=r"^measure_noise is True, and batch_weight is given"):
        sam_optax.sharpness_aware_grad(token_mean, sam_optax.sam(), 2, measure_noise=True, **NAMED)
