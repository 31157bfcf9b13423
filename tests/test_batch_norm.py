"""A convolutional network with BatchNorm: its statistics come only from the clean passes, for every method."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx

import sam_optax
import sam_optax.flax
from tests import helpers, methods
from tests.selection import combinations

STEPS = 3
OPTIMIZERS = [*methods.NAMED, "look_sam", *methods.WRAPPERS]


def optimizer(name: str) -> optax.GradientTransformationExtraArgs:
    if name == "look_sam":
        return optax.chain(sam_optax.look_sam(0.5, k=2), helpers.BASES["momentum"]())
    return helpers.optimizer(name, rho=0.5)


class NnxNet(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(1, 3, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.head = nnx.Linear(3, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(jnp.mean(nnx.relu(self.norm(self.conv(x))), (1, 2)))[:, 0]


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = linen.relu(linen.BatchNorm(use_running_average=False)(linen.Conv(3, (3, 3))(x)))
        return linen.Dense(1)(jnp.mean(x, (1, 2)))[:, 0]


class State(sam_optax.flax.TrainState):
    batch_stats: Any


def batches() -> list[tuple[jax.Array, jax.Array]]:
    rng = np.random.default_rng(0)
    return [(jnp.asarray(rng.normal(1, 2, (4, 5, 5, 1))), jnp.asarray(rng.normal(size=4))) for _ in range(STEPS)]


def nnx_run(name: str) -> tuple[list[Any], list[Any]]:
    """The statistics after each step, and the statistics that only a clean pass would have given."""
    loss_fn = lambda model, x, y: jnp.mean((model(x) - y) ** 2)  # noqa: E731
    model = NnxNet()
    tx = nnx.Optimizer(model, optimizer(name), wrt=nnx.Param)
    value_and_grad = sam_optax.flax.value_and_grad(loss_fn)

    @nnx.jit
    def step(model: NnxNet, tx: nnx.Optimizer, x: jax.Array, y: jax.Array) -> None:
        _, grads, grad_fn = value_and_grad(model, x, y)
        tx.update(model, grads, grad_fn=grad_fn)

    def statistics(model: NnxNet) -> Any:
        return nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    recorded, expected = [], []
    for x, y in batches():
        clean = nnx.clone(model)
        clean(x)
        expected.append(statistics(clean))
        step(model, tx, x, y)
        recorded.append(statistics(model))
    return recorded, expected


def linen_run(name: str, functional: bool = False) -> tuple[list[Any], list[Any]]:
    net = LinenNet()

    def forward(params: Any, batch_stats: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        out, moved = net.apply({"params": params, "batch_stats": batch_stats}, x, mutable=["batch_stats"])
        return out, moved["batch_stats"]

    def loss_fn(params: Any, batch_stats: Any, x: jax.Array, y: jax.Array) -> tuple[jax.Array, Any]:
        out, moved = forward(params, batch_stats, x)
        return jnp.mean((out - y) ** 2), moved

    value_and_grad = sam_optax.value_and_grad(loss_fn, has_aux=True)
    if functional:
        model_fn = lambda params, batch_stats, x, y: forward(params, batch_stats, x)  # noqa: E731
        logits_loss = lambda out, batch_stats, x, y: jnp.mean((out - y) ** 2)  # noqa: E731
        value_and_grad = sam_optax.functional_value_and_grad(model_fn, logits_loss, has_aux=True)

    @jax.jit
    def step(state: State, x: jax.Array, y: jax.Array) -> State:
        (_, batch_stats), grads, grad_fn = value_and_grad(state.params, state.batch_stats, x, y)
        return state.apply_gradients(grads=grads, grad_fn=grad_fn, batch_stats=batch_stats)

    state = State.create(apply_fn=None, tx=optimizer(name), **net.init(jax.random.key(0), batches()[0][0]))
    recorded, expected = [], []
    for x, y in batches():
        expected.append(forward(state.params, state.batch_stats, x)[1])
        state = step(state, x, y)
        recorded.append(state.batch_stats)
    return recorded, expected


RUNS = {"nnx": nnx_run, "linen": linen_run}
NNX = ("asam", "vasso", "gsam", "msam")
LINEN = ("look_sam", "msam", "wsam_decoupled")


def check_statistics(recorded: list[Any], expected: list[Any]) -> None:
    chex.assert_trees_all_close(recorded, expected, rtol=1e-5, atol=1e-6)
    moved = jax.tree.map(lambda x, y: np.max(np.abs(x - y)), recorded[-1], recorded[0])
    assert all(x > 1e-3 for x in jax.tree.leaves(moved))


@combinations(
    lambda name, run: name in (NNX if run == "nnx" else LINEN),
    name=OPTIMIZERS,
    run=RUNS,
)
def test_statistics_come_only_from_the_clean_passes(name, run):
    check_statistics(*RUNS[run](name))


def test_statistics_of_functional_sam_come_only_from_the_clean_passes():
    check_statistics(*linen_run("sam", functional=True))
