"""Laws of XSAM: the directions between the offset and the perturbed gradient, and the search over them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_optax
from tests import helpers

COMBINER = sam_optax.explicit_direction


def combined(alpha, perturbed, offset):
    combiner = COMBINER(alpha)
    return combiner.update(perturbed, sam_optax.SecondPass(perturbed), offset, combiner.init(perturbed))[0]


def arrays(seed, dtype=jnp.float32):
    return [jax.random.normal(key, (5,), dtype) for key in jax.random.split(jax.random.key(seed))]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0, 1.7])
def test_the_length_is_that_of_the_perturbed_gradient(x64, alpha):
    perturbed, offset = arrays(0, jnp.float64)
    found = combined(alpha, perturbed, offset)
    np.testing.assert_allclose(jnp.linalg.norm(found), jnp.linalg.norm(perturbed), rtol=1e-10)


def test_alpha_is_the_fraction_of_the_angle(x64):
    perturbed, offset = arrays(1, jnp.float64)

    def angle(x, y):
        return jnp.arccos(x @ y / jnp.linalg.norm(x) / jnp.linalg.norm(y))

    whole = angle(perturbed, offset)
    for alpha in (0.25, 0.5, 1.2):
        np.testing.assert_allclose(angle(combined(alpha, perturbed, offset), offset), alpha * whole, rtol=1e-9)


def test_alpha_one_gives_the_perturbed_gradient_and_zero_the_offset_direction(x64):
    perturbed, offset = arrays(2, jnp.float64)
    np.testing.assert_allclose(combined(1.0, perturbed, offset), perturbed, rtol=1e-10)
    along = offset * jnp.linalg.norm(perturbed) / jnp.linalg.norm(offset)
    np.testing.assert_allclose(combined(0.0, perturbed, offset), along, rtol=1e-10)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 2.0])
def test_parallel_and_opposite_directions_and_a_zero_offset_give_the_perturbed_gradient(alpha):
    """The arc cosine of the product of parallel directions is NaN in float32 if the product rounds above 1."""
    perturbed = jax.random.normal(jax.random.key(0), (1000, 5))
    for factor in (0.1, -0.1, 0.0):
        found = jax.vmap(lambda g, factor=factor: combined(alpha, g, factor * g))(perturbed)
        np.testing.assert_allclose(found, perturbed, rtol=1e-5)


def test_a_zero_gradient_gives_zero():
    zero = jnp.zeros(3)
    for offset in (zero, jnp.ones(3)):
        np.testing.assert_array_equal(combined(1.5, zero, offset), zero)


def test_the_radius_of_several_steps_follows_a_schedule(x64):
    """In each update the total length is that of the schedule, and the steps are those of `repeated_ascent`."""
    golden = helpers.golden()
    gradient = jax.grad(lambda w: helpers.golden_loss(w, *golden.batches[0]))
    ascent = sam_optax.k_step_ascent(lambda count: 0.1 * (1 + count), steps=3)
    state = ascent.init(golden.params)
    for number in range(3):
        offset, state = ascent.update(gradient(golden.params), state, golden.params, grad_fn=gradient)
        adversary = optax.chain(sam_optax.normalized_ascent(0.1 * (1 + number) / 3), optax.scale(-1))
        repeated = sam_optax.repeated_ascent(adversary, 3)
        expected, _ = repeated.update(
            gradient(golden.params), repeated.init(golden.params), golden.params, grad_fn=gradient
        )
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-15), offset, expected)


def test_the_search_returns_the_first_of_the_highest_losses():
    def loss(w, sign):
        return sign * (1 + jnp.sum(jnp.array([1.0, 4.0]) * w**2))

    w = jnp.array([3.0, 1.0])
    options = {"rho": 0.5, "rho_max": 1.0}
    tried = [round(0.1 * i, 1) for i in range(21)]
    gradient = jax.grad(loss)
    offset = 0.5 * gradient(w, 1.0) / jnp.linalg.norm(gradient(w, 1.0))
    perturbed = gradient(w + offset, 1.0)
    losses = [loss(w + combined(a, perturbed, offset) / jnp.linalg.norm(perturbed), 1.0) for a in tried]
    assert sam_optax.xsam_alpha(loss, w, 1.0, **options) == pytest.approx(tried[int(np.argmax(losses))])
    assert sam_optax.xsam_alpha(loss, w, -1.0, **options) == 0  # no loss is positive


def test_the_search_is_compiled_once():
    traced = []

    def loss(w, x):
        traced.append(1)
        return jnp.sum(x * w**2)

    w, x = jnp.ones(3), jnp.arange(3.0)
    sam_optax.xsam_alpha(loss, w, x)
    before = len(traced)
    sam_optax.xsam_alpha(loss, 2 * w, x + 1, rho=0.1, rho_max=0.5)
    assert len(traced) == before


def test_the_search_perturbs_the_leaves_of_the_mask_of_the_method(x64):
    """The method's gradient in the masked leaves is not perturbed, and is part of the direction."""

    def loss(w):
        return jnp.sum(jnp.array([1.0, 4.0]) * w["a"] ** 2) / 2 + jnp.sum(jnp.array([2.0, 6.0]) * w["b"] ** 2)

    w, options = {"a": jnp.array([3.0, 1.0]), "b": jnp.array([0.5, 0.2])}, {"rho": 1.0, "rho_max": 0.5}
    mask = {"a": True, "b": False}
    chosen = sam_optax.xsam_alpha(loss, w, mask=mask, spacing=0.01, **options)

    def reached(alpha):
        tx, gradient = sam_optax.xsam(1.0, alpha, mask=mask), jax.grad(loss)
        direction, _ = tx.update(gradient(w), tx.init(w), w, grad_fn=gradient)
        scaled = jax.tree.map(lambda x: 0.5 * x / sam_optax.trees.norm(direction), direction)
        return loss(jax.tree.map(jnp.add, w, scaled))

    losses = [reached(i / 100) for i in range(201)]
    assert chosen == pytest.approx(int(np.argmax(losses)) / 100)
    assert chosen != sam_optax.xsam_alpha(loss, w, spacing=0.01, **options)


def test_a_search_without_a_function_is_refused():
    with pytest.raises(ValueError, match=r"^loss_fn is 3: give a function"):
        sam_optax.xsam_alpha(3, jnp.ones(2))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ["rho", "rho_max", "alpha_max", "spacing"])
@pytest.mark.parametrize("value", [0.0, -1.0, np.inf])
def test_numbers_that_are_not_positive_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"^{name} is {value}: give a finite number above 0"):
        sam_optax.xsam_alpha(lambda w: jnp.sum(w**2), jnp.ones(2), **{name: value})


def test_an_invalid_number_of_steps_is_refused():
    with pytest.raises(ValueError, match="steps is 0: give a positive integer"):
        sam_optax.xsam(steps=0)
