"""NNX has the options of the plain function, with the same memory, and can train only some layers."""

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
from tests import helpers


class Net(nnx.Module):
    def __init__(self) -> None:
        self.body, self.head = nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.Linear(4, 2, rngs=nnx.Rngs(1))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(jnp.tanh(self.body(x)))


def loss_fn(model: Net, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean((model(x) - y) ** 2)


def both_passes(value_and_grad: Any, model: nnx.Module, *args: Any, **kwargs: Any) -> Any:
    loss, grads, grad_fn = value_and_grad(model, *args, **kwargs)
    second = grad_fn(jax.tree.map(lambda w: w + 0.5, nnx.state(model, nnx.Param)))
    return loss, nnx.to_pure_dict(grads), nnx.to_pure_dict(second)


@pytest.mark.parametrize("traced", [False, True])
def test_a_loss_scale_is_divided_out_of_each_pass(traced):
    def run(scale: Any) -> Any:
        value_and_grad = sam_optax.flax.value_and_grad(loss_fn, loss_scale=scale)
        return both_passes(value_and_grad, Net(), *helpers.batch_of(8))

    found = jax.jit(run)(jnp.float32(512.0)) if traced else run(512.0)
    chex.assert_trees_all_close(found, run(1.0), rtol=1e-5)


def test_the_second_pass_can_have_its_own_arguments():
    other = lambda x, y: (2 * x, y)  # noqa: E731
    value_and_grad, (x, y) = sam_optax.flax.value_and_grad(loss_fn, second_pass_args=other), helpers.batch_of(8)
    _, grads, second = both_passes(value_and_grad, Net(), x, y)
    plain = sam_optax.flax.value_and_grad(loss_fn)
    chex.assert_trees_all_equal(grads, both_passes(plain, Net(), x, y)[1])
    chex.assert_trees_all_close(second, both_passes(plain, Net(), 2 * x, y)[2], rtol=1e-6)


def test_the_second_pass_uses_the_rngs_it_is_given():
    def noisy(model: Net, x: jax.Array, rngs: nnx.Rngs) -> jax.Array:
        return jnp.mean(model(x) * jax.random.normal(rngs.noise(), (len(x), 2)))

    (x, _), first, second = helpers.batch_of(8), nnx.Rngs(noise=0), nnx.Rngs(noise=1)
    value_and_grad = sam_optax.flax.value_and_grad(noisy, second_pass_args=lambda x, rngs: (x, second))
    found = both_passes(value_and_grad, Net(), x, first)
    plain = sam_optax.flax.value_and_grad(noisy)
    chex.assert_trees_all_close(found[1], both_passes(plain, Net(), x, nnx.Rngs(noise=0))[1], rtol=1e-6)
    chex.assert_trees_all_close(found[2], both_passes(plain, Net(), x, nnx.Rngs(noise=1))[2], rtol=1e-6)
    assert (int(first.noise.count[...]), int(second.noise.count[...])) == (1, 0)


def test_keywords_are_split_by_name(loop):
    x, y = helpers.batch_of(8)
    in_parts = sam_optax.flax.value_and_grad(loss_fn, micro_batches=4, batch_argnames=("y",))
    whole = both_passes(sam_optax.flax.value_and_grad(loss_fn), Net(), x, y)
    chex.assert_trees_all_close(both_passes(in_parts, Net(), x, y=y), whole, rtol=1e-5)
    with pytest.raises(ValueError, match=r"^The keyword argument 'y' is an array"):
        sam_optax.flax.value_and_grad(loss_fn, micro_batches=4)(Net(), x, y=y)


def test_a_batch_in_one_argument_with_variables_is_refused():
    loss = lambda model, call: jnp.mean(model(call["x"]) * jax.random.normal(call["rngs"].noise()))  # noqa: E731
    call = {"x": helpers.batch_of(8)[0], "rngs": nnx.Rngs(noise=0)}
    assert np.isfinite(sam_optax.flax.value_and_grad(loss)(Net(), call)[0])
    with pytest.raises(ValueError, match=r"^An argument holds both variables and arrays"):
        sam_optax.flax.value_and_grad(loss, micro_batches=2)(Net(), call)


class Drawing(nnx.Module):
    """Dropout and statistics: a state with a key and a count, which is carried from part to part."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.dense, self.norm = nnx.Linear(3, 2, rngs=rngs), nnx.BatchNorm(2, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.dropout(self.norm(self.dense(x)))


def test_the_state_is_carried_from_part_to_part_in_both_passes(loop):
    x, y = helpers.batch_of(8)
    model, clean = Drawing(), Drawing()
    value_and_grad = sam_optax.flax.value_and_grad(loss_fn, micro_batches=4, batch_argnums=(0, 1))
    loss, grads, grad_fn = nnx.jit(value_and_grad)(model, x, y)
    parts = zip(jnp.split(x, 4), jnp.split(y, 4), strict=True)
    np.testing.assert_allclose(loss, np.mean([loss_fn(clean, *part) for part in parts]), rtol=1e-5)
    statistics = [nnx.to_pure_dict(nnx.state(net, nnx.BatchStat)) for net in (model, clean)]
    chex.assert_trees_all_close(*statistics, rtol=1e-5)
    assert int(model.dropout.rngs.count[...]) == 4
    again = nnx.to_pure_dict(grad_fn(nnx.state(model, nnx.Param)))
    chex.assert_trees_all_close(again, nnx.to_pure_dict(grads), rtol=1e-4, atol=1e-6)


def test_parts_are_scanned_on_accelerators_at_the_memory_of_one(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    wide = nnx.Sequential(nnx.Linear(4, 4096, rngs=nnx.Rngs(0)), jnp.tanh, nnx.Linear(4096, 1, rngs=nnx.Rngs(1)))
    graphdef, state = nnx.split(wide)

    def peak(parts: int) -> int:
        value_and_grad = sam_optax.flax.value_and_grad(lambda model, x: jnp.mean(model(x) ** 2), micro_batches=parts)

        def passes(state: Any, x: jax.Array) -> Any:
            model = nnx.merge(graphdef, state, copy=True)
            loss, grads, grad_fn = value_and_grad(model, x)
            return loss, grad_fn(grads)

        return jax.jit(passes).lower(state, jnp.ones((1024, 4))).compile().memory_analysis().temp_size_in_bytes

    assert peak(16) < peak(1) / 8


HEAD = sam_optax.by_path(lambda path: path.startswith("head"))


def head_labels(params: Any) -> Any:
    return jax.tree.map(lambda is_head: "trained" if is_head else "frozen", HEAD(params))


def frozen_body() -> optax.GradientTransformation:
    """The labels as a function, as in docs/frameworks.md."""
    partition = {"trained": optax.sgd(0.1), "frozen": optax.set_to_zero()}
    return optax.chain(sam_optax.sam(rho=0.5, mask=HEAD), optax.multi_transform(partition, head_labels))


IN_HEAD = nnx.All(nnx.Param, nnx.PathContains("head"))
FROZEN = {
    "labels": (frozen_body, nnx.Param),
    "wrt": (lambda: optax.chain(sam_optax.sam(rho=0.5), optax.sgd(0.1)), IN_HEAD),
}


@pytest.mark.parametrize("form", FROZEN)
def test_only_the_head_is_trained(form):
    """Both forms equal SAM on the head with a constant body."""
    make, wrt = FROZEN[form]
    model, (x, y) = Net(), helpers.batch_of(8)
    optimizer = nnx.Optimizer(model, make(), wrt=wrt)
    value_and_grad = sam_optax.flax.value_and_grad(loss_fn, wrt=wrt)

    @nnx.jit
    def step(model: Net, optimizer: nnx.Optimizer, *batch: jax.Array) -> None:
        _, grads, grad_fn = value_and_grad(model, *batch)
        optimizer.update(model, grads, grad_fn=grad_fn)

    step(model, optimizer, x, y)
    before = Net()
    hidden = jnp.tanh(before.body(x))
    of_head = lambda w: jnp.mean((hidden @ w["kernel"] + w["bias"] - y) ** 2)  # noqa: E731
    w = nnx.to_pure_dict(nnx.state(before.head))
    gradient = jax.grad(of_head)
    norm = optax.tree.norm(gradient(w))
    second = gradient(jax.tree.map(lambda w, g: w + 0.5 * g / norm, w, gradient(w)))
    expected = jax.tree.map(lambda w, g: w - 0.1 * g, w, second)
    chex.assert_trees_all_close(nnx.to_pure_dict(nnx.state(model.head)), expected, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_equal(nnx.to_pure_dict(nnx.state(model.body)), nnx.to_pure_dict(nnx.state(before.body)))
