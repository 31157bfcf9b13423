"""Only named and unambiguous batch arguments are split into parts."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sam_optax
import sam_optax.flax
from tests.selection import loops_in_turn

X = jnp.asarray(np.random.default_rng(0).normal(size=(8, 3)), jnp.float32)
Y = jnp.asarray(np.random.default_rng(1).normal(size=8), jnp.float32)
LABELS = jnp.arange(8) % 3
W = jnp.array([1.0, -2.0, 0.5])


def in_parts(loss_fn: Any, *args: Any, **kwargs: Any) -> Any:
    """Loss and both gradients from four parts, with the names of the batches among the keywords."""
    names = {key: kwargs.pop(key) for key in ("batch_argnums", "batch_argnames") if key in kwargs}
    loss, grads, grad_fn = sam_optax.value_and_grad(loss_fn, micro_batches=4, **names)(W, *args, **kwargs)
    return loss, grads, grad_fn(W + 1)


def whole(loss_fn: Any, *args: Any, **kwargs: Any) -> Any:
    loss, grads, grad_fn = sam_optax.value_and_grad(loss_fn)(W, *args, **kwargs)
    return loss, grads, grad_fn(W + 1)


def regression(w: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean((x @ w - y) ** 2)


def agree(found: Any, expected: Any) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@loops_in_turn("names", ["y", ("y",), ["y"]])
def test_a_named_keyword_is_split(names, loop):
    agree(in_parts(regression, X, y=Y, batch_argnames=names), whole(regression, X, Y))


def test_all_batches_may_be_keywords(loop):
    agree(in_parts(regression, x=X, y=Y, batch_argnames=("x", "y")), whole(regression, X, Y))


def test_an_unnamed_keyword_is_passed_whole_to_every_part(loop):
    loss_fn = lambda w, x, *, prior: jnp.mean((x @ w) ** 2) + jnp.sum((w[:, None] - prior) ** 2)  # noqa: E731
    prior = jnp.ones((3, 8))
    agree(in_parts(loss_fn, X, prior=prior, batch_argnames=()), whole(loss_fn, X, prior=prior))


def test_an_array_among_the_keywords_is_refused_without_names():
    message = r"^The keyword argument 'y' is an array, .* batch_argnames=\('y',\) if it is a batch"
    with pytest.raises(ValueError, match=message):
        in_parts(regression, X, y=Y)
    with pytest.raises(ValueError, match=message):
        in_parts(regression, X, y=Y, batch_argnums=0)


def test_scalar_keywords_need_no_name(loop):
    loss_fn = lambda w, x, *, power, scale, key: scale * jnp.mean((x @ w) ** power)  # noqa: E731
    rest = {"power": 2, "scale": jnp.array(0.5), "key": jax.random.key(0)}
    agree(in_parts(loss_fn, X, **rest), whole(loss_fn, X, **rest))


def test_a_name_without_a_keyword_is_refused():
    with pytest.raises(ValueError, match=r"^batch_argnames has 'z', and the keyword arguments are \['y'\]"):
        in_parts(regression, X, y=Y, batch_argnames=("y", "z"))


CLASS_WEIGHTS = jnp.linspace(0.1, 1.0, 8)


def weighted_loss(w: jax.Array, x: jax.Array, labels: jax.Array, table: jax.Array) -> jax.Array:
    """A loss with one number, or one row of numbers, for each class."""
    return jnp.mean(jnp.take(table, labels, axis=0).reshape(len(x), -1).sum(-1) * (x @ w))


AMBIGUOUS = {
    "class_weights": (weighted_loss, (X, LABELS, CLASS_WEIGHTS), (0, 1)),
    "cost_matrix": (weighted_loss, (X, LABELS, jnp.eye(8) + 0.5), (0, 1)),
    "float_targets": (regression, (X, Y), (0, 1)),
    "statistics": (lambda w, x, s: jnp.mean((x @ w - s["mean"].sum()) ** 2), (X, {"mean": Y, "var": Y}), 0),
    "batch_with_a_scalar": (lambda w, b, y: regression(w, b["x"] * b["scale"], y), ({"x": X, "scale": 2.0}, LABELS), 1),
    "key_for_each_example": (
        lambda w, x, keys: jnp.mean(x @ w) + 0 * jax.random.normal(keys[0]),
        (X, jax.random.split(jax.random.key(0), 8)),
        (0, 1),
    ),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_ambiguous_arguments_are_refused(name):
    loss_fn, args, _ = AMBIGUOUS[name]
    with pytest.raises(
        ValueError, match=r"^Argument \d after the parameters has .*: it is unclear whether it is a batch\. Name"
    ):
        in_parts(loss_fn, *args)


@loops_in_turn("name", ["class_weights", "cost_matrix", "float_targets", "statistics"])
def test_named_batches_give_the_value_of_the_whole_batch(name, loop):
    loss_fn, args, names = AMBIGUOUS[name]
    agree(in_parts(loss_fn, *args, batch_argnums=names), whole(loss_fn, *args))


def test_an_old_style_key_as_long_as_the_batch_is_refused():
    with jax.enable_custom_prng(False):
        key = jax.random.PRNGKey(0)
    loss_fn = lambda w, x, key: jnp.mean(x @ w)  # noqa: E731
    with pytest.raises(ValueError, match=r"^Argument 1 after the parameters has uint32\[2\]"):
        sam_optax.value_and_grad(loss_fn, micro_batches=2)(W, X[:2], key)


CERTAIN = {
    "features_and_labels": (lambda w, x, y: jnp.mean((x @ w) * y), (X, LABELS)),
    "features_and_targets": (lambda w, x, y: jnp.mean((x @ w)[:, None] - y), (X, jnp.ones((8, 2)))),
    "images_and_soft_labels": (lambda w, x, y: jnp.mean(x @ w) * jnp.mean(y), (jnp.ones((8, 2, 3)), jnp.ones((8, 5)))),
    "square_features": (lambda w, x, y: jnp.mean((x @ jnp.ones(8)) * w[0] * y), (jnp.eye(8) + 1, LABELS)),
    "one_container": (lambda w, batch: regression(w, *batch), ((X, Y),)),
    "vectors": (lambda w, x, y: jnp.mean((x * w[0] - y) ** 2), (Y, Y + 1)),
    "scalar_and_key": (lambda w, x, s, key: s * jnp.mean(x @ w), (X, 2.0, jax.random.key(0))),
}


@loops_in_turn("name", CERTAIN)
def test_unambiguous_batches_are_split_without_names(name, loop):
    loss_fn, args = CERTAIN[name]
    agree(in_parts(loss_fn, *args), whole(loss_fn, *args))


def test_m_sam_splits_keywords_by_name(loop):
    method = sam_optax.sam(rho=0.5)
    run = lambda *args, **kwargs: sam_optax.sharpness_aware_grad(regression, method, 2, **kwargs.pop("names"))(  # noqa: E731
        W, method.init(W), *args, **kwargs
    )
    by_name = run(X, y=Y, names={"batch_argnames": "y"})
    by_position = run(X, Y, names={"batch_argnums": (0, 1)})
    agree((by_name[0], by_name[2]), (by_position[0], by_position[2]))
    with pytest.raises(ValueError, match=r"^The keyword argument 'y' is an array"):
        run(X, y=Y, names={})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_argnums": "x"}, r"^batch_argnums is 'x': give an integer"),
        ({"batch_argnums": (0, True)}, r"^batch_argnums is \(0, True\): give an integer"),
        ({"batch_argnames": 1}, r"^batch_argnames is 1: give a string"),
    ],
)
@pytest.mark.parametrize("make", [sam_optax.value_and_grad, sam_optax.flax.value_and_grad])
def test_names_of_a_wrong_type_are_refused(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(regression, micro_batches=2, **options)
