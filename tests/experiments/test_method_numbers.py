"""The hyperparameters of a method on the command line, such as WSAM's weight of the sharpness, reach its step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_optax
from experiments.config import Config
from experiments.training import optimizer


@pytest.mark.parametrize(
    ("method", "numbers", "alike"),
    [
        ("wsam", {"gamma": 0.3}, sam_optax.wsam(gamma=0.3)),
        ("vasso", {"theta": 0.3}, sam_optax.vasso(theta=0.3)),
        ("friendly_sam", {"sigma": 0.3}, sam_optax.friendly_sam(sigma=0.3)),
        ("friendly_sam", {"lam": 0.3, "sigma": 0.5}, sam_optax.friendly_sam(lam=0.3, sigma=0.5)),
        ("unified_sam", {"lam": 0.3}, sam_optax.unified_sam(lam=0.3)),
        ("le_sam", {"sigma": 0.1}, sam_optax.le_sam(sigma=0.1)),
        ("asam", {"eta": 0.3}, sam_optax.asam(eta=0.3)),
    ],
    ids=["wsam", "vasso", "friendly_sam_sigma", "friendly_sam_lam", "unified_sam", "le_sam", "asam"],
)
def test_the_hyperparameters_of_a_method_reach_its_step(method: str, numbers: dict[str, float], alike: Any) -> None:
    found = moved(method=method, **numbers)
    np.testing.assert_allclose(found, moved_by(optax.chain(alike, optax.sgd(0.1))), rtol=1e-5)
    for name in numbers:
        others = {other: value for other, value in numbers.items() if other != name}
        assert not np.allclose(found, moved(method=method, **others), rtol=1e-4)


def test_the_weight_of_decoupled_wsam_reaches_its_step() -> None:
    library = sam_optax.wsam_decoupled(optax.sgd(0.1), 0.1, gamma=0.3)
    np.testing.assert_allclose(moved(method="wsam_decoupled", gamma=0.3), moved_by(library), rtol=1e-5)


def moved(**settings: Any) -> jax.Array:
    """The parameters after three steps of a config."""
    config = Config.from_settings(**settings)
    tx = optimizer.create(optimizer.Settings(config.method, constants=config.constants))
    return moved_by(tx, {"rho": config.descent.rho, "alpha": 0.0, "learning_rate": 0.1})


def moved_by(tx: Any, hyperparameters: dict[str, Any] | None = None) -> jax.Array:
    """The parameters after three steps of an optimizer."""
    gradient = jax.grad(lambda w: jnp.sum(w["kernel"] ** 4))
    params = {"kernel": jnp.array([1.0, -2.0, 0.5])}
    state = tx.init(params)
    for _ in range(3):  # the moving average of F-SAM has an effect from the third step on
        state = optimizer.inject(state, hyperparameters) if hyperparameters else state
        updates, state = tx.update(gradient(params), state, params, grad_fn=gradient)
        params = optax.apply_updates(params, updates)
    return params["kernel"]
