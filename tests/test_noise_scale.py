"""The noise scale: on a known problem, its two terms are unbiased within their standard error."""

from typing import NamedTuple

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sam_optax

BATCH, PARTS, STEPS = 32, 8, 400
W = np.array([0.3, -0.2, 0.5, 0.1])
CURVATURE = np.array([1.0, 2.0, 0.5, 3.0])
DEVIATION = np.array([1.0, 2.0, 0.5, 1.5])  # of the gradient of one example, leaf by leaf
G = CURVATURE * W
SIGNAL, NOISE = float(np.sum(G**2)), float(np.sum(DEVIATION**2))


def loss_fn(w: jax.Array, z: jax.Array) -> jax.Array:
    """A quadratic whose gradient is `A w + z`, z the mean of the batch."""
    return jnp.sum(CURVATURE * w**2) / 2 + jnp.sum(w * jnp.mean(z, 0))


def examples(seed: int, steps: int = STEPS) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=(steps, BATCH, len(W))) * DEVIATION)


class Variance(NamedTuple):
    """The variance of the estimates of one step. The sample variance of k normal parts is a sum of χ² of k − 1 degrees.

    It is independent of their mean, so that in `signal = ‖g_B‖² − noise/B` the variances add up; that of the square of
    a normal vector is `4 GᵀΣG/B + 2 tr(Σ²)/B²`.
    """

    signal: float
    noise: float
    scale: float


def variance() -> Variance:
    fourth = float(np.sum(DEVIATION**4))
    noise = 2 * fourth / (PARTS - 1)
    signal = 4 * float(np.sum((G * DEVIATION) ** 2)) / BATCH + 2 * fourth / BATCH**2 + noise / BATCH**2
    covariance = -noise / BATCH
    scale = (NOISE / SIGNAL) ** 2 * (noise / NOISE**2 + signal / SIGNAL**2 - 2 * covariance / (NOISE * SIGNAL))
    return Variance(signal, noise, scale)


def measured(seed: int) -> sam_optax.NoiseTerms:
    """The terms of the clean gradient in many steps at one point."""
    value_and_grad = sam_optax.value_and_grad(loss_fn, micro_batches=PARTS, measure_noise=True)
    return jax.jit(jax.vmap(lambda z: value_and_grad(jnp.asarray(W), z)[2].clean_noise))(examples(seed))


def standard_errors_off(estimate: float, truth: float, variance: float, steps: float = STEPS) -> float:
    """The deviation from the true value, in standard errors of the mean over the steps."""
    return abs(float(estimate) - truth) / np.sqrt(variance / steps)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_terms_are_unbiased_within_their_standard_error(seed, x64):
    signal, noise = measured(seed)
    assert standard_errors_off(np.mean(signal), SIGNAL, variance().signal) < 3
    assert standard_errors_off(np.mean(noise), NOISE, variance().noise) < 3
    np.testing.assert_allclose([np.var(signal), np.var(noise)], variance()[:2], rtol=0.3)
    # a formula that ignores the noise in the gradient of the batch would fail
    assert standard_errors_off(np.mean(signal + noise / BATCH), SIGNAL, variance().signal) > 8


@pytest.mark.parametrize("seed", [0, 1])
def test_the_ratio_of_averages_estimates_the_noise_scale_and_the_average_of_ratios_does_not(seed, x64):
    terms, decay, average = measured(seed), 0.99, sam_optax.NoiseAverage.start()
    for signal, noise in zip(*terms, strict=True):
        average = average.add(sam_optax.NoiseTerms(signal, noise), decay)
    weights = decay ** np.arange(STEPS)
    steps = np.sum(weights) ** 2 / np.sum(weights**2)  # this number of equally weighted steps would be as precise
    assert standard_errors_off(average.terms.scale, NOISE / SIGNAL, variance().scale, steps) < 3
    assert standard_errors_off(np.mean(terms.noise / terms.signal), NOISE / SIGNAL, variance().scale) > 5


def test_the_noise_of_the_perturbed_gradient_of_a_quadratic_is_that_of_the_clean_one(x64):
    """`A (w + ε) + z`: the parts differ only in `z`, and along `g` itself the norm grows by ρ."""
    value_and_grad = sam_optax.value_and_grad(
        lambda w, z: jnp.sum(w**2) / 2 + jnp.sum(w * jnp.mean(z, 0)), micro_batches=PARTS, measure_noise=True
    )
    tx, w, z = sam_optax.track_noise(sam_optax.sam(rho=0.5)), jnp.asarray(W), examples(0, steps=1)[0]
    _, grads, grad_fn = value_and_grad(w, z)
    clean, perturbed = sam_optax.measured_noise(tx.update(grads, tx.init(w), w, grad_fn=grad_fn)[1])
    np.testing.assert_allclose(perturbed.noise, clean.noise, rtol=1e-10)
    length = np.linalg.norm(W + np.mean(z, 0)) + 0.5
    np.testing.assert_allclose(perturbed.signal, length**2 - clean.noise / BATCH, rtol=1e-10)


SIZES = st.tuples(st.integers(1, 50), st.integers(2, 20)).map(lambda x: (x[0], x[0] * x[1]))


@hypothesis.given(SIZES, st.floats(0.01, 100), st.floats(0.01, 100))
def test_the_terms_are_recovered_from_expected_squares(sizes, signal, noise):
    small, large = sizes
    terms = sam_optax.noise_terms(signal + noise / small, small, signal + noise / large, large)
    np.testing.assert_allclose(terms, (signal, noise), rtol=1e-6)
    assert float(terms.scale) == pytest.approx(noise / signal, rel=1e-5)


@hypothesis.given(SIZES, st.integers(0, 100))
def test_the_terms_are_the_sample_variance_and_the_remaining_squared_norm(sizes, seed):
    small, large = sizes
    parts = np.random.default_rng(seed).normal(1.0, size=(large // small, 3))
    mean = np.mean(parts, 0)
    found = sam_optax.noise_terms(np.mean(np.sum(parts**2, 1)), small, np.sum(mean**2), large)
    noise = small * np.sum(np.var(parts, axis=0, ddof=1))
    np.testing.assert_allclose(found, (np.sum(mean**2) - noise / large, noise), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("signal", "scale"), [(2.0, 4.0), (0.0, np.inf), (-1.0, np.inf), (np.nan, np.nan), (np.float32(4), 2.0)]
)
def test_the_scale_is_infinite_without_signal_and_nan_without_measurements(signal, scale):
    np.testing.assert_array_equal(sam_optax.NoiseTerms(signal, 8.0).scale, scale)
    np.testing.assert_array_equal(sam_optax.NoiseTerms(signal, 0.0).scale, 0.0)


@hypothesis.settings(max_examples=10)
@hypothesis.given(st.lists(st.floats(0.5, 2), min_size=1, max_size=5), st.sampled_from([0.0, 0.5, 0.99]))
def test_the_average_is_the_weighted_mean(numbers, decay):
    average = sam_optax.NoiseAverage.start()
    for number in numbers:
        average = average.add(sam_optax.NoiseTerms(number, 2 * number), decay)
    expected = np.average(numbers, weights=[decay**age for age in reversed(range(len(numbers)))])
    np.testing.assert_allclose(average.terms, (expected, 2 * expected), rtol=1e-5)


def test_an_empty_average_is_nan_and_steps_without_measurements_do_not_change_it():
    average = sam_optax.NoiseAverage.start()
    assert np.all(np.isnan(average.terms))
    measured = average.add(sam_optax.NoiseTerms(1.0, 3.0), 0.9)
    for nothing in [(np.nan, np.nan), (1.0, np.inf), (np.nan, 1.0)]:
        chex.assert_trees_all_equal(measured.add(sam_optax.NoiseTerms(*nothing), 0.9), measured)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"small": 0}, r"^small is 0: give a positive integer\.$"),
        ({"large": 2.5}, r"^large is 2\.5: give a positive integer\.$"),
        ({"small": 16}, "^small is 16, and large 16: the noise shows between a batch and its parts, give two or more"),
        ({"small": 32}, "^small is 32, and large 16: "),
    ],
)
def test_batch_sizes_that_show_no_noise_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        sam_optax.noise_terms(**({"small_square": 2.0, "small": 4, "large_square": 1.0, "large": 16} | sizes))


@pytest.mark.parametrize(("small", "large"), [(8, 16), (12, 84), (100, 4100), (65536, 131072)])
def test_sizes_may_be_traced(small, large):
    """A batch of any number of parts, from one compiled function."""
    terms = jax.jit(sam_optax.noise_terms)(jnp.float32(3.1), small, jnp.float32(0.7), large)
    np.testing.assert_allclose(terms, sam_optax.noise_terms(3.1, small, 0.7, large), rtol=1e-6)
