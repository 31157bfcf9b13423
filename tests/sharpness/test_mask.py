"""Masked measures of a network with BatchNorm and Dropout are the measures of only its weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from sam_optax import sharpness, trees
from tests.selection import some_of
from tests.sharpness import batch_norm
from tests.sharpness.batch_norm import MASK, MEASURES

every_measure = pytest.mark.parametrize("name", MEASURES)
few_measures = some_of(MEASURES, quick=("worst_case", "average_case", "gauss_newton", "landscape"))
"""One measure of each kind of ascent, draw, matrix and plane in `make test`, and all in `make test-long`."""


def measured(name, params, mask=MASK, loss=batch_norm.loss, outputs=batch_norm.outputs):
    return MEASURES[name](loss, outputs, params, batch_norm.batches(), mask=mask)


def of_weights_alone(name, variables):
    """The measure of the weights, with the state closed over."""
    whole = lambda weights: variables | {"weights": weights}  # noqa: E731
    return MEASURES[name](
        lambda weights, batch: batch_norm.loss(whole(weights), batch),
        lambda weights, batch: batch_norm.outputs(whole(weights), batch),
        variables["weights"],
        batch_norm.batches(),
    )


def close(found, expected):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-12), found, expected)


def measured_of_real(name, mask):
    call = (batch_norm.loss_of_real, batch_norm.outputs_of_real, batch_norm.real_variables(), batch_norm.batches())
    return MEASURES[name](*call, mask=mask)


@few_measures
def test_a_masked_measure_equals_that_of_the_weights_with_the_state_closed_over(name, x64):
    variables = batch_norm.variables()
    values, vectors = measured(name, variables)
    expected, expected_vectors = of_weights_alone(name, variables)
    close(values, expected)
    for vector, expected_vector in zip(vectors, expected_vectors, strict=True):
        trees.check_alike("vector", vector, variables, "")
        close(vector["weights"], expected_vector)
        for x in jax.tree.leaves(vector["state"]):
            assert x.dtype == jnp.float64
            assert not x.any()


@some_of(MEASURES, quick=("average_case", "gauss_newton"))
def test_without_the_mask_the_statistics_affect_the_measure(name, x64):
    masked, unmasked = (jax.tree.leaves(measured_of_real(name, mask)[0]) for mask in (MASK, None))
    change = max(np.abs(x - y).max() / np.abs(x).max() for x, y in zip(masked, unmasked, strict=True))
    assert change > 0.01


@some_of(MEASURES, quick=("average_case", "gauss_newton", "landscape"))
def test_a_mask_that_chooses_everything_changes_nothing(name, x64):
    everything = lambda tree: jax.tree.map(lambda _: True, tree)  # noqa: E731
    found, expected = (measured_of_real(name, mask) for mask in (everything, None))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@few_measures
def test_other_statistics_are_measured_without_a_second_trace(name, x64):
    traced = []

    def loss(variables, batch):
        traced.append(None)
        return batch_norm.loss(variables, batch)

    def outputs(variables, batch):
        traced.append(None)
        return batch_norm.outputs(variables, batch)

    variables = batch_norm.variables()
    before, _ = measured(name, variables, loss=loss, outputs=outputs)
    count = len(traced)
    assert count > 0
    other = batch_norm.other_state(variables)
    after, _ = measured(name, other, loss=loss, outputs=outputs)
    assert len(traced) == count
    close(after, measured(name, other)[0])
    assert any(np.abs(x - y).max() > 1e-6 for x, y in zip(*map(jax.tree.leaves, (before, after)), strict=True))


@every_measure
def test_a_chosen_leaf_that_is_not_real_is_refused_by_its_path(name):
    with pytest.raises(ValueError, match=r"^params has a leaf of dtype uint32 at 'state/.*/count': .*mask="):
        measured(name, batch_norm.variables(), mask=None)
    with pytest.raises(ValueError, match=r"^params has a leaf of dtype key<.*> at 'state/.*/key': .*mask="):
        measured(name, batch_norm.variables(), mask=lambda tree: jax.tree.map(lambda x: x.dtype != jnp.uint32, tree))


@every_measure
def test_a_mask_that_chooses_nothing_is_refused(name):
    with pytest.raises(ValueError, match=r"^mask chooses no leaf"):
        measured(name, batch_norm.variables(), mask=lambda tree: jax.tree.map(lambda _: False, tree))


def test_a_leaf_that_is_not_an_array_is_refused_by_its_path():
    variables = batch_norm.variables() | {"activation": jnp.tanh}
    with pytest.raises(ValueError, match=r"^params has .* at 'activation', where an array is expected"):
        sharpness.trace(batch_norm.loss, variables, batch_norm.batches(), mask=MASK)


@jax.jit
def dense_blocks(variables, batch):
    """The Hessian and the Gauss-Newton matrix of the weights, entry by entry."""
    flat, unravel = ravel_pytree(variables["weights"])
    logits_at = lambda v: batch_norm.outputs(variables | {"weights": unravel(v)}, batch)  # noqa: E731
    hessian = jax.hessian(lambda v: batch_norm.loss_of_outputs(logits_at(v), batch))(flat)
    logits = logits_at(flat)
    jacobian = jax.jacobian(lambda v: logits_at(v).ravel())(flat)
    of_logits = lambda z: batch_norm.loss_of_outputs(z.reshape(logits.shape), batch)  # noqa: E731
    return hessian, jacobian.T @ jax.hessian(of_logits)(logits.ravel()) @ jacobian


@pytest.mark.parametrize("name", ["hessian", pytest.param("gauss_newton", marks=pytest.mark.long)])
def test_the_spectrum_is_that_of_the_dense_block_of_the_weights(name, x64):
    variables, (first, second) = batch_norm.variables(), batch_norm.batches()
    matrix, loss = sharpness.hessian, batch_norm.loss
    if name == "gauss_newton":
        matrix, loss = sharpness.gauss_newton(batch_norm.outputs), batch_norm.loss_of_outputs
    of_first, of_second = (dense_blocks(variables, batch)[name == "gauss_newton"] for batch in (first, second))
    block = np.asarray(0.6 * of_first + 0.4 * of_second)  # they have six and four examples
    values, size = np.linalg.eigvalsh(block), len(block)

    call, options = (loss, variables, [first, second]), {"matrix": matrix, "mask": MASK}
    found = sharpness.eigenpairs(*call, 2, steps=50, **options)
    np.testing.assert_allclose(found.values, values[::-1][:2], rtol=0, atol=1e-12)
    vector, _ = ravel_pytree(found.vectors[0]["weights"])
    np.testing.assert_allclose(block @ vector, values[-1] * vector, rtol=0, atol=1e-11)
    exact = sharpness.trace(*call, samples=size, **options)  # as many samples as there are weights
    np.testing.assert_allclose(exact, (np.trace(block), 0.0), rtol=1e-12)
    density = sharpness.spectral_density(*call, steps=2, samples=1, **options)
    probe = jax.random.rademacher(jax.random.split(jax.random.key(0), 1)[0], (size,), float)
    moments = [np.sum(np.asarray(density.weights) * np.asarray(density.nodes) ** power) for power in (1, 2)]
    np.testing.assert_allclose(
        moments, [probe @ block @ probe / size, probe @ block @ block @ probe / size], rtol=1e-10
    )


def test_steps_are_counted_against_the_weights_of_the_mask():
    call = (batch_norm.loss, batch_norm.variables(), batch_norm.batches())
    with pytest.raises(ValueError, match="number is 19, and 18 steps on 18 parameters find at most 18 eigenvalues"):
        sharpness.eigenpairs(*call, 19, steps=50, mask=MASK)


def test_a_user_defined_matrix_is_projected_on_the_block_of_the_mask(x64):
    structures = []

    def own(loss_fn, params, batch, vector):
        structures.append(jax.tree.structure((params, vector)))
        return sharpness.hessian(loss_fn, params, batch, vector)

    variables = batch_norm.real_variables()
    call = (batch_norm.loss_of_real, variables, batch_norm.batches())
    found, expected = (sharpness.trace(*call, samples=4, matrix=m, mask=MASK) for m in (own, sharpness.hessian))
    close(found, expected)
    assert structures[0] == jax.tree.structure((variables, variables))


def test_a_user_defined_matrix_refuses_integers_in_the_tree():
    own = lambda loss_fn, params, batch, vector: vector  # noqa: E731
    with pytest.raises(ValueError, match=r"uint32 at 'state/.*/count', and matrix is a function of your own.*mask="):
        sharpness.trace(batch_norm.loss, batch_norm.variables(), batch_norm.batches(), matrix=own, mask=MASK)


def test_two_gauss_newton_matrices_of_one_function_are_compiled_once():
    traced = []

    def outputs(variables, batch):
        traced.append(None)
        return batch_norm.outputs(variables, batch)

    counts = []
    for _ in range(2):
        MEASURES["gauss_newton"](batch_norm.loss, outputs, batch_norm.variables(), batch_norm.batches(), mask=MASK)
        counts.append(len(traced))
    assert counts[0] == counts[1] > 0


def test_a_direction_is_ignored_outside_the_mask(x64):
    variables = batch_norm.real_variables()
    (direction,) = sharpness.random_directions(variables, jax.random.key(0), 1, mask=MASK)
    noisy = direction | {"state": jax.tree.map(lambda x: x + jnp.nan, direction["state"])}
    found, expected = (
        sharpness.landscape(
            batch_norm.loss_of_real, variables, batch_norm.batches(), [d], coordinates=[0, 1], mask=MASK
        )
        for d in (noisy, direction)
    )
    np.testing.assert_array_equal(found.loss, expected.loss)


def test_directions_toward_other_weights_do_not_move_the_state(x64):
    here = batch_norm.variables()
    there = batch_norm.other_state(here) | {"weights": jax.tree.map(lambda x: 0.3 - x, here["weights"])}
    call = (batch_norm.loss, here, batch_norm.batches()[:1], [sharpness.toward(here, there, mask=MASK)])
    found = sharpness.landscape(*call, coordinates=[0, 1], mask=MASK)
    ends = [batch_norm.loss(here | {"weights": each["weights"]}, batch_norm.batches()[0]) for each in (here, there)]
    np.testing.assert_allclose(found.loss, np.asarray(ends), rtol=1e-12)
    integers = jax.tree.map(lambda x: x.astype(jnp.int32), here["weights"])
    with pytest.raises(ValueError, match=r"^other has a leaf of dtype int32 at 'weights/.*mask="):
        sharpness.toward(here, here | {"weights": integers}, mask=MASK)


def test_narrow_weights_are_widened_for_curvature_and_the_state_is_not():
    dtypes = []

    def loss(params, batch):
        dtypes.append((params["w"].dtype, params["mean"].dtype, params["count"].dtype))
        return jnp.mean((batch * params["w"] - params["mean"]) ** 2)

    params = {"w": jnp.ones((), jnp.bfloat16), "mean": jnp.zeros((), jnp.float16), "count": jnp.uint8(3)}
    mask = {"w": True, "mean": False, "count": False}
    found = sharpness.eigenpairs(loss, params, [jnp.ones(2)], mask=mask)
    assert {jnp.dtype(x) for x in dtypes[0]} == {jnp.dtype(x) for x in (jnp.float32, jnp.float16, jnp.uint8)}
    assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype(jnp.float32)}
    assert float(found.values[0]) == pytest.approx(2.0)
