"""The results of user-defined perturbations and combiners are checked."""

import jax
import jax.numpy as jnp
import optax
import pytest

import sam_optax

ELSEWHERE = optax.stateless(lambda updates, params: {"b": updates["a"]})
UNPACKED = sam_optax.perturbed_gradient()._replace(update=lambda clean, perturbed, state: (perturbed["a"], state))


@pytest.mark.parametrize(
    ("name", "tx"),
    [
        ("perturbation", sam_optax.sharpness_aware(ELSEWHERE, sam_optax.perturbed_gradient())),
        ("combiner", sam_optax.sharpness_aware(sam_optax.normalized_ascent(), UNPACKED)),
    ],
)
def test_a_perturbation_or_combiner_with_a_wrong_result_is_named(
    name: str, tx: optax.GradientTransformationExtraArgs
) -> None:
    gradient, params = jax.grad(lambda w: jnp.sum(w["a"] ** 2)), {"a": jnp.ones(2)}
    with pytest.raises(ValueError, match=f"^What {name} returned does not have the structure of params"):
        tx.update(gradient(params), tx.init(params), params, grad_fn=gradient)
