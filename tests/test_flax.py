"""NNX: the model's state advances once per step, and the second pass does not change it."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import sam_optax
import sam_optax.flax
from sam_optax import trees


class Scale(nnx.Param):
    """A custom kind of parameter."""


class Net(nnx.Module):
    """Convolution, BatchNorm and dropout on images of 4 × 4."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(params=0, dropout=1)
        self.conv = nnx.Conv(1, 2, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(2, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.scale = Scale(jnp.ones(2))
        self.head = nnx.Linear(2, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.norm(self.conv(x)))
        return self.head(self.dropout(jnp.mean(x, axis=(1, 2))) * self.scale)[:, 0]


def loss_fn(model: Net, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean((model(x) - y) ** 2)


def batches(steps: int) -> list[tuple[jax.Array, jax.Array]]:
    rng = np.random.default_rng(0)
    return [(jnp.asarray(rng.normal(1, 2, (4, 4, 4, 1))), jnp.asarray(rng.normal(size=4))) for _ in range(steps)]


def make_optimizer(model: Net, wrt: Any = nnx.Param, rho: float = 0.5) -> nnx.Optimizer:
    return nnx.Optimizer(model, optax.chain(sam_optax.gsam(rho, 0.1), optax.sgd(0.05, momentum=0.9)), wrt=wrt)


def make_step(**options: Any) -> Callable[..., Any]:
    value_and_grad = sam_optax.flax.value_and_grad(loss_fn, **options)

    def step(model: Net, optimizer: nnx.Optimizer, x: jax.Array, y: jax.Array, perturb: bool | None = None) -> Any:
        value, grads, grad_fn = value_and_grad(model, x, y)
        optimizer.update(model, grads, grad_fn=grad_fn, perturb=perturb)
        return value

    return nnx.jit(step, static_argnames="perturb")


def other_state(model: Any) -> Any:
    return nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))


def params_of(model: Any) -> Any:
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


def arrays(tree: Any) -> Any:
    """Leaves with the numbers of random keys, so that trees can be compared."""
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(lambda x: np.asarray(jax.random.key_data(x) if is_key(x) else x), tree)


@pytest.mark.parametrize("perturb", [None, True, False])
def test_statistics_and_dropout_counts_come_only_from_the_clean_passes(perturb):
    model = Net()
    optimizer, step, clean_pass = make_optimizer(model), make_step(), nnx.jit(loss_fn)
    for i, batch in enumerate(batches(3)):
        clean = nnx.clone(model)
        loss = clean_pass(clean, *batch)
        np.testing.assert_allclose(step(model, optimizer, *batch, perturb=perturb), loss, rtol=1e-5)
        chex.assert_trees_all_close(arrays(other_state(model)), arrays(other_state(clean)), rtol=1e-6)
        assert int(model.dropout.rngs.count[...]) == i + 1
    assert np.all(np.abs(model.norm.mean[...]) > 1e-3)


def test_a_perturbed_step_is_that_of_the_functional_loop():
    model = Net()
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def functional(params: Any, rest: Any, *batch: Any) -> tuple[jax.Array, Any]:
        merged = nnx.merge(graphdef, params, rest, copy=True)
        return loss_fn(merged, *batch), nnx.state(merged, nnx.Not(nnx.Param))

    optimizer, step = make_optimizer(model), make_step()
    tx, value_and_grad = optimizer.tx, sam_optax.value_and_grad(functional, has_aux=True)

    @jax.jit
    def plain_step(params: Any, rest: Any, state: Any, *batch: Any) -> tuple[Any, Any, Any]:
        (_, rest), grads, grad_fn = value_and_grad(params, rest, *batch)
        updates, state = tx.update(grads, state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), rest, state

    params, rest = jax.tree.map(jnp.copy, (params, rest))
    state = tx.init(params)
    for batch in batches(3):
        params, rest, state = plain_step(params, rest, state, *batch)
        step(model, optimizer, *batch)
    chex.assert_trees_all_close(params_of(model), nnx.to_pure_dict(params), rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(arrays(other_state(model)), arrays(nnx.to_pure_dict(rest)), rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(
        sam_optax.diagnostics(optimizer.opt_state), sam_optax.diagnostics(state), rtol=1e-4, atol=1e-6
    )


class Remembering(nnx.Module):
    """A model whose gradient depends on the dropout mask and on the number of earlier calls."""

    def __init__(self) -> None:
        self.weight = nnx.Param(jnp.ones(8))
        self.calls = nnx.BatchStat(jnp.zeros(()))
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))

    def __call__(self) -> jax.Array:
        self.calls[...] += 1
        return jnp.sum(self.dropout(self.weight * self.calls))


@pytest.mark.parametrize("wrap", [lambda f: f, nnx.jit], ids=["plain", "jit"])
def test_the_second_pass_starts_from_the_state_before_the_first(wrap):
    value_and_grad = sam_optax.flax.value_and_grad(lambda model: model())

    @wrap
    def both_passes(model: Remembering) -> Any:
        _, grads, grad_fn = value_and_grad(model)
        return grads["weight"][...], grad_fn(nnx.state(model, nnx.Param))["weight"][...]

    model = Remembering()
    for step in range(1, 4):
        first, second = both_passes(model)
        np.testing.assert_array_equal(second, first)
        assert set(np.unique(first)) == {0, 2 * step}
        assert model.calls[...] == step


def test_the_second_pass_changes_no_state():
    model, (batch,) = Net(), batches(1)
    _, _, grad_fn = sam_optax.flax.value_and_grad(loss_fn)(model, *batch)
    before = arrays(nnx.to_pure_dict(nnx.state(model)))
    grad_fn(nnx.state(model, nnx.Param))
    chex.assert_trees_all_equal(arrays(nnx.to_pure_dict(nnx.state(model))), before)


def test_auxiliary_output_comes_with_the_loss():
    def with_aux(model: Net, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = model(x)
        return jnp.mean((logits - y) ** 2), logits

    model, (batch,) = Net(), batches(1)
    expected = nnx.clone(model)(batch[0])
    (loss, logits), grads, grad_fn = sam_optax.flax.value_and_grad(with_aux, has_aux=True)(model, *batch)
    np.testing.assert_allclose(logits, expected, rtol=1e-5)
    np.testing.assert_allclose(loss, np.mean((expected - batch[1]) ** 2), rtol=1e-5)
    again = grad_fn(nnx.state(model, nnx.Param))
    chex.assert_trees_all_close(nnx.to_pure_dict(again), nnx.to_pure_dict(grads), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("by_name", [False, True])
def test_rngs_and_metrics_among_the_arguments_advance_once_per_step(by_name):
    def noisy_loss(model: Net, x: jax.Array, rngs: nnx.Rngs, average: nnx.metrics.Average) -> jax.Array:
        loss = jnp.mean((model(x) - jax.random.normal(rngs.noise(), (4,))) ** 2)
        average.update(values=loss)
        return loss

    value_and_grad = sam_optax.flax.value_and_grad(noisy_loss)

    @nnx.jit
    def step(model: Net, optimizer: nnx.Optimizer, x: jax.Array, rngs: nnx.Rngs, average: Any) -> jax.Array:
        args, kwargs = ((x,), {"rngs": rngs, "average": average}) if by_name else ((x, rngs, average), {})
        loss, grads, grad_fn = value_and_grad(model, *args, **kwargs)
        optimizer.update(model, grads, grad_fn=grad_fn)
        return loss

    model, rngs, average = Net(), nnx.Rngs(noise=0), nnx.metrics.Average()
    optimizer = make_optimizer(model)
    losses = [step(model, optimizer, x, rngs, average) for x, _ in batches(3)]
    assert int(rngs.noise.count[...]) == 3
    assert len({float(loss) for loss in losses}) == 3
    np.testing.assert_allclose(average.compute(), np.mean(losses), rtol=1e-5)


@pytest.mark.parametrize(
    ("wrt", "moving"),
    [(Scale, {"scale"}), (nnx.PathContains("head"), {"head/bias", "head/kernel"})],
    ids=["kind", "path"],
)
def test_only_the_variables_of_wrt_are_perturbed_and_updated(wrt, moving):
    model = Net()
    optimizer, before = make_optimizer(model, wrt), nnx.state(nnx.clone(model), nnx.Param)
    make_step(wrt=wrt)(model, optimizer, *batches(1)[0])
    after = nnx.state(model, nnx.Param)
    pairs = zip(trees.leaf_paths(before), jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    assert {path for path, x, y in pairs if np.any(x != y)} == moving
    np.testing.assert_allclose(sam_optax.diagnostics(optimizer.opt_state).perturbation_norm, 0.5, rtol=1e-5)


@pytest.mark.parametrize(
    ("of_optimizer", "of_gradient", "message"),
    [
        (nnx.Param, Scale, "updates does not have the structure of params: give the gradient with respect to these"),
        (Scale, nnx.Param, r"grad_fn got 1 parameters where .* by 7, .* give .* the same wrt\."),
    ],
    ids=["narrower", "wider"],
)
def test_another_wrt_than_the_optimizers_is_refused(of_optimizer, of_gradient, message):
    model = Net()
    optimizer = make_optimizer(model, of_optimizer)
    with pytest.raises(ValueError, match=message):
        make_step(wrt=of_gradient)(model, optimizer, *batches(1)[0])


def test_a_second_pass_with_respect_to_other_variables_is_refused():
    model, (batch,) = Net(), batches(1)
    _, _, grad_fn = sam_optax.flax.value_and_grad(loss_fn, wrt=Scale)(model, *batch)
    with pytest.raises(ValueError, match=r"grad_fn got \d parameters where .* give .* the same wrt\."):
        grad_fn(nnx.state(model, nnx.Param))


def test_a_model_without_such_variables_is_refused():
    with pytest.raises(ValueError, match=r"wrt is .*, and the model has no such variable: name a kind that it has"):
        sam_optax.flax.value_and_grad(loss_fn, wrt=nnx.LoRAParam)(Net(), *batches(1)[0])


def test_a_loss_that_is_not_callable_is_refused():
    with pytest.raises(ValueError, match="loss_fn is None: give a function from a model and a batch"):
        sam_optax.flax.value_and_grad(None)
