"""Randomness that does not count as gradient noise, and invalid noise arguments."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sam_optax
from tests.test_noise_tracking import of_a_step

PARTS = 4
TERMS = sam_optax.NoiseTerms(2.0, 64.0)


def additive(w: Any, x: Any, z: Any) -> Any:
    """A loss whose gradient is the mean of `x + z`, where z is the effect of a mask."""
    return jnp.mean((x + z) @ w)


def test_randomness_shared_by_all_parts_counts_as_signal(x64):
    """A dropout key that all parts share therefore makes the noise scale too small."""
    x, z = (jax.random.normal(jax.random.key(i), (16, 3)) + 1 for i in range(2))

    def measured(z: jax.Array) -> sam_optax.NoiseTerms:
        value_and_grad = sam_optax.value_and_grad(
            additive, micro_batches=PARTS, batch_argnums=(0, 1), measure_noise=True
        )
        return of_a_step(value_and_grad, jnp.ones(3), x, z).clean

    none, shared, own = measured(jnp.zeros_like(x)), measured(jnp.tile(z[:4], (PARTS, 1))), measured(z)
    np.testing.assert_allclose(shared.noise, none.noise, rtol=1e-12)
    assert own.noise > 1.2 * none.noise
    gradient = jnp.mean(x, 0) + jnp.mean(z[:4], 0)  # the gradient of the batch, including masks
    np.testing.assert_allclose(shared.signal, jnp.sum(gradient**2) - none.noise / 16, rtol=1e-12)


@pytest.mark.parametrize("noise", [TERMS, (TERMS, TERMS), 3.0, (), sam_optax.Noise(2.0, 64.0)], ids=repr)
def test_invalid_noise_is_refused_with_the_remedy(noise):
    tx, w = sam_optax.track_noise(), jnp.zeros(2)
    with pytest.raises(ValueError, match=r"noise is .*: give sam_optax\.Noise\(clean=…, perturbed=…\), each of it a"):
        tx.update(w, tx.init(w), w, noise=noise)
