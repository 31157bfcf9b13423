"""A network with BatchNorm and Dropout as docs/sharpness.md writes it, and all measures of it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import sam_optax
from sam_optax import sharpness

MASK = sam_optax.by_path(lambda path: path.startswith("weights"))

model = nnx.Sequential(
    nnx.Linear(2, 3, use_bias=False, rngs=nnx.Rngs(0)),
    nnx.BatchNorm(3, use_running_average=True, rngs=nnx.Rngs(0)),
    nnx.tanh,
    nnx.Dropout(0.25, rngs=nnx.Rngs(1)),
    nnx.Linear(3, 2, use_bias=False, rngs=nnx.Rngs(2)),
)
graphdef, weights, state = nnx.split(model, nnx.Param, ...)


def variables() -> dict[str, Any]:
    """Weights and state, with floating leaves of JAX's default width, and a uint32 count and a key in the state."""
    parts = {"weights": nnx.as_pure(weights), "state": nnx.as_pure(state)}
    return jax.tree.map(lambda x: x.astype(float) if jnp.issubdtype(x.dtype, jnp.floating) else x, parts)


def other_state(of: dict[str, Any]) -> dict[str, Any]:
    """The same weights with other statistics, another count and another key."""

    def change(x: Any) -> Any:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.key(5)
        return (3 * x + 1).astype(x.dtype)

    return of | {"state": jax.tree.map(change, of["state"])}


def batches() -> list[dict[str, jax.Array]]:
    draw = lambda n: {"x": jax.random.normal(jax.random.key(n), (n, 2), float), "y": jnp.arange(n) % 2}  # noqa: E731
    return [draw(6), draw(4)]


def outputs(of: dict[str, Any], batch: dict[str, jax.Array]) -> jax.Array:
    return nnx.merge(graphdef, of["weights"], of["state"], copy=True)(batch["x"])


def loss_of_outputs(logits: jax.Array, batch: dict[str, jax.Array]) -> jax.Array:
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"]))


def loss(of: dict[str, Any], batch: dict[str, jax.Array]) -> jax.Array:
    return loss_of_outputs(outputs(of, batch), batch)


def real_variables() -> dict[str, Any]:
    """Weights and statistics without counts and keys, so that all leaves are real floating arrays."""
    of = variables()
    return of | {"state": {"layers": {1: of["state"]["layers"][1]}}}


def outputs_of_real(of: dict[str, Any], batch: dict[str, jax.Array]) -> jax.Array:
    """`outputs` of `real_variables`, with the other state closed over."""
    layers = variables()["state"]["layers"] | of["state"]["layers"]
    return outputs(of | {"state": {"layers": layers}}, batch)


def loss_of_real(of: dict[str, Any], batch: dict[str, jax.Array]) -> jax.Array:
    return loss_of_outputs(outputs_of_real(of, batch), batch)


Measure = Callable[..., Any]
"""`measure(loss_fn, outputs_fn, params, batches, mask=None)` → a tuple of values, and a list of trees like `params`."""

AT = {"coordinates": (-0.5, 1.0)}


def _worst_case(loss_fn: Any, outputs_fn: Any, *call: Any, **mask: Any) -> Any:
    options = {"rho": 0.3, "steps": 2, "restarts": 2, "keep_perturbations": True}
    found = sharpness.worst_case(loss_fn, *call, norm="l2", **options, **mask)
    return found._replace(perturbations=None), list(found.perturbations or ())


def _curve(loss_fn: Any, outputs_fn: Any, *call: Any, **mask: Any) -> Any:
    found = sharpness.curve(loss_fn, *call, rhos=(0.1, 0.3), steps=3, adaptive=True, error_fn=loss_fn, **mask)
    return found[:-1], []  # without the name of the norm


def _eigenpairs(loss_fn: Any, outputs_fn: Any, *call: Any, **mask: Any) -> Any:
    found = sharpness.eigenpairs(loss_fn, *call, 2, steps=4, **mask)
    return (found.values, sharpness.top_eigenvalue(loss_fn, *call, steps=4, **mask)), list(found.vectors)


def _gauss_newton(loss_fn: Any, outputs_fn: Any, *call: Any, **mask: Any) -> Any:
    matrix = sharpness.gauss_newton(outputs_fn)
    return sharpness.trace(loss_of_outputs, *call, matrix=matrix, samples=2, **mask), []


def _landscape(loss_fn: Any, outputs_fn: Any, params: Any, batches: Any, **mask: Any) -> Any:
    drawn = sharpness.random_directions(params, jax.random.key(1), **mask)
    other = jax.tree.map(lambda x: x if jnp.ndim(x) < 1 else 0.5 * x + 0.1, params)
    across = sharpness.toward(params, other, **mask)
    planes = [
        sharpness.landscape(loss_fn, params, batches, directions, **AT, **mask).loss
        for directions in (None, drawn, [across])
    ]
    return planes, [*drawn, across]


MEASURES: dict[str, Measure] = {
    "worst_case": _worst_case,
    "curve": _curve,
    "m_sharpness": lambda loss_fn, _, *call, **mask: (
        sharpness.m_sharpness(loss_fn, *call, (2,), rho=0.3, steps=2, **mask)[2].per_batch,
        [],
    ),
    "average_case": lambda loss_fn, _, *call, **mask: (
        sharpness.average_case(loss_fn, *call, rho=0.3, samples=3, **mask),
        [],
    ),
    "surrogate_gap": lambda loss_fn, _, *call, **mask: (sharpness.surrogate_gap(loss_fn, *call, rho=0.3, **mask), []),
    "eigenpairs and top_eigenvalue": _eigenpairs,
    "trace": lambda loss_fn, _, *call, **mask: (sharpness.trace(loss_fn, *call, samples=2, **mask), []),
    "spectral_density": lambda loss_fn, _, *call, **mask: (
        sharpness.spectral_density(loss_fn, *call, steps=3, samples=1, **mask),
        [],
    ),
    "gauss_newton": _gauss_newton,
    "landscape": _landscape,
}
