"""Shared helpers: optimizers with each method, the golden network, and a problem that compiles quickly."""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp

import sam_optax
from tests.methods import METHODS, WRAPPERS

BASES: dict[str, Callable[[], optax.GradientTransformation]] = {
    "momentum": lambda: optax.sgd(0.1, momentum=0.9),
    "adamw": lambda: optax.adamw(0.01, weight_decay=0.05),
}


def optimizer(
    name: str, base: optax.GradientTransformation | None = None, rho: float = 0.05, **options: Any
) -> optax.GradientTransformationExtraArgs:
    """The method of this name from the tables, before or around `base`, which is SGD with momentum by default."""
    base = BASES["momentum"]() if base is None else base
    if name in WRAPPERS:
        return WRAPPERS[name](base, rho=rho, **options)
    return optax.chain(METHODS[name](rho=rho, **options), base)


def restored(run: Any, like: Any, folder: Path) -> Any:
    """A tree that Orbax has saved into a folder and restored; `like` has its structure."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "run", run)
        checkpointer.wait_until_finished()
        return checkpointer.restore(folder / "run", like)


def small_params(dtype: Any = float) -> dict[str, dict[str, jax.Array]]:
    """The parameters of a layer with the names of Flax, in JAX's default width of floats."""
    kernel, bias = jax.random.normal(jax.random.key(0), (3, 2), float), jnp.array([0.5, -0.25])
    return jax.tree.map(lambda x: x.astype(dtype), {"dense": {"kernel": kernel, "bias": bias}})


def small_loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean((jnp.tanh(x @ params["dense"]["kernel"] + params["dense"]["bias"]) - y) ** 2)


def small_batches(steps: int) -> list[tuple[jax.Array, jax.Array]]:
    rng = np.random.default_rng(1)
    return [(jnp.asarray(rng.normal(size=(4, 3))), jnp.asarray(rng.uniform(size=(4, 2)))) for _ in range(steps)]


class Golden(NamedTuple):
    """The network of tests/golden, in 64 bits."""

    params: dict[str, jax.Array]
    batches: list[tuple[jax.Array, jax.Array]]
    trajectories: dict[str, np.ndarray]


def golden(name: str = "sam_family_mlp") -> Golden:
    with np.load(Path(__file__).parent / "golden" / f"{name}.npz") as stored:
        arrays = {key: stored[key] for key in stored}
    return Golden(
        params={name: jnp.asarray(arrays[f"init_{name}"]) for name in ("w1", "b1", "w2", "b2")},
        batches=[(jnp.asarray(x), jnp.asarray(y)) for x, y in zip(arrays["X"], arrays["Y"], strict=True)],
        trajectories={key.removeprefix("traj_"): x for key, x in arrays.items() if key.startswith("traj_")},
    )


def golden_loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    logits = jnp.tanh(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y))


def golden_vector(params: Any) -> np.ndarray:
    return np.concatenate([np.ravel(params[name]) for name in ("w1", "b1", "w2", "b2")])


def make_step(tx: optax.GradientTransformation, loss_fn: Callable[..., Any] = small_loss) -> Callable[..., Any]:
    """The compiled step `(params, state, *batch, perturb=None) → (params, state)`, as the README writes it."""
    value_and_grad = sam_optax.value_and_grad(loss_fn)
    tx = optax.with_extra_args_support(tx)

    @functools.partial(jax.jit, static_argnames="perturb")
    def step(params: Any, state: Any, *batch: Any, perturb: bool | None = None) -> tuple[Any, Any]:
        value, grads, grad_fn = value_and_grad(params, *batch)
        extra = {} if perturb is None else {"perturb": perturb}
        updates, state = tx.update(grads, state, params, grad_fn=grad_fn, value=value, **extra)
        return optax.apply_updates(params, updates), state

    return step


def descend(
    tx: optax.GradientTransformation,
    params: Any,
    batches: Iterable[tuple[Any, ...]],
    loss_fn: Callable[..., Any] = small_loss,
) -> list[Any]:
    """The parameters after each step."""
    step, state, history = make_step(tx, loss_fn), tx.init(params), []
    for batch in batches:
        params, state = step(params, state, *batch)
        history.append(params)
    return history


def quadratic_gradient(matrix: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """The gradient of `½ wᵀ A w` for a symmetric `A`."""
    return lambda w: matrix @ w


def shapes(tree: Any) -> Any:
    """Structure, shapes and dtypes, for comparing states."""
    return jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), tree)


def one_call(name: str, steps: int = 1, **call: Any) -> tuple[Any, Any]:
    """The updates and the state of the last of a few plain calls."""
    tx, params = optimizer(name), small_params()
    state = tx.init(params)
    for batch in small_batches(steps):
        _, grads, grad_fn = sam_optax.value_and_grad(small_loss)(params, *batch)
        updates, state = tx.update(grads, state, params, **({"grad_fn": grad_fn} | call))
    return updates, state


def batch_of(size: int, seed: int = 0) -> tuple[jax.Array, jax.Array]:
    """A batch for `small_loss`."""
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(size, 3))), jnp.asarray(rng.uniform(size=(size, 2)))
