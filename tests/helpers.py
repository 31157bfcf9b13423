"""What the tests share: the table of methods, the golden network and a problem that is quick to compile."""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_optax
from sam_optax.policies import Policy, always


def scheduled_sam(rho: float, when: Policy = always()) -> optax.GradientTransformationExtraArgs:
    return sam_optax.sam(optax.linear_schedule(rho, 2 * rho, 10), when=when)


def scheduled_gsam(rho: float, when: Policy = always()) -> optax.GradientTransformationExtraArgs:
    alpha = optax.linear_schedule(0.1, 0.0, 10)
    return sam_optax.gsam(optax.linear_schedule(rho, 2 * rho, 10), alpha, when=when)


def smoothed_sam(rho: float, when: Policy = always()) -> optax.GradientTransformationExtraArgs:
    """Put together by hand, from a perturbation with a state of the parameters' shape."""
    ascent = optax.chain(optax.trace(0.9), sam_optax.normalized_ascent(rho))
    return sam_optax.sharpness_aware(ascent, sam_optax.perturbed_gradient(), when)


BASES: dict[str, Callable[[], optax.GradientTransformation]] = {
    "momentum": lambda: optax.sgd(0.1, momentum=0.9),
    "adamw": lambda: optax.adamw(0.01, weight_decay=0.05),
}

KERNELS = sam_optax.by_path(lambda path: path.endswith("kernel"))

METHODS: dict[str, Callable[..., optax.GradientTransformationExtraArgs]] = {
    "sam": sam_optax.sam,
    "asam": sam_optax.asam,
    "gsam": sam_optax.gsam,
    "gsam_clean": functools.partial(sam_optax.gsam, minimize="clean"),
    "sam_masked": functools.partial(sam_optax.sam, mask=KERNELS),
    "sam_scheduled": scheduled_sam,
    "gsam_scheduled": scheduled_gsam,
    "sam_every_2": functools.partial(sam_optax.sam, when=sam_optax.every(2)),
    "sam_smoothed": smoothed_sam,
}
"""Every method, as a function of the keywords `rho` and `when`: what the shared promises are asked of."""

every_method = pytest.mark.parametrize("name", METHODS)


def optimizer(
    name: str, base: optax.GradientTransformation | None = None, rho: float = 0.05, **options: Any
) -> optax.GradientTransformationExtraArgs:
    """The method of the table in front of `base`, by default momentum."""
    return optax.chain(METHODS[name](rho=rho, **options), BASES["momentum"]() if base is None else base)


def small_params(dtype: Any = float) -> dict[str, dict[str, jax.Array]]:
    """A layer whose names are those of Flax; `float` is JAX's default width."""
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


def golden() -> Golden:
    with np.load(Path(__file__).parent / "golden" / "sam_family_mlp.npz") as stored:
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
