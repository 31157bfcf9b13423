"""A network with a body and a head, for tests that freeze the body."""

from typing import Any

import jax
import jax.numpy as jnp

HEAD = {"body": False, "head": True}
LABELS = {"body": "frozen", "head": "trained"}


def params() -> Any:
    body, head = jax.random.split(jax.random.key(0))
    return {"body": jax.random.normal(body, (3, 4)), "head": jax.random.normal(head, (4, 2))}


def gradient(params: Any) -> Any:
    x = jax.random.normal(jax.random.key(1), (8, 3))
    return jax.grad(lambda p: jnp.mean((jnp.tanh(x @ p["body"]) @ p["head"] - 1) ** 2))(params)
