import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.models.layers import StochasticDepth
from experiments.models.vit import Size, ViT
from experiments.training import checkpoint, loss_and_update, optimizer
from experiments.training.step import TrainState, initial_state, train_step

SHAPE = (8, 8, 1)
IMAGES = jax.random.normal(jax.random.key(1), (16, *SHAPE))
BATCH = {"image": IMAGES, "label": jnp.arange(16) % 10}


def vit(drop_path: float = 0.5) -> ViT:
    """A small network with changeable options."""
    return nnx.clone(initial(drop_path))


@functools.cache
def initial(drop_path: float) -> ViT:
    return ViT(Size(8, 2, 2), 10, SHAPE, rngs=nnx.Rngs(0), drop_path=drop_path)


def forward(model: ViT) -> jax.Array:
    return nnx.jit(lambda model: model(IMAGES))(model)


def count(state: TrainState) -> int:
    return int(state.model_state["stochastic_depth"]["stream"]["count"])


@functools.cache
def compiled() -> tuple[Any, Any]:
    """The update of SAM, and the function that creates its optimizer state."""
    tx = optimizer.create(optimizer.Settings("sam"))
    return train_step(
        loss_and_update.whole(vit(), tx), lambda batch, constants: (batch["image"], batch["label"], batch["label"])
    ), tx.init


def sam_step() -> tuple[Any, TrainState]:
    """The compiled update of SAM, and an initial state whose buffers can be donated to it."""
    step, init = compiled()
    return step, jax.tree.map(jnp.copy, initial_state(vit(), init))


def hyperparameters(rho: float) -> dict[str, np.ndarray]:
    return {"learning_rate": np.float32(0.1), "rho": np.float32(rho)}


def test_a_branch_is_dropped_at_its_rate_and_kept_in_expectation() -> None:
    factors = np.asarray(StochasticDepth(0.25, rngs=nnx.Rngs(0))(40, 1000))
    np.testing.assert_allclose(np.unique(factors), [0, 4 / 3], rtol=1e-6)
    np.testing.assert_allclose(factors.mean(), 1, atol=0.02)
    # each example and each branch is drawn independently
    assert 0 < factors.mean(0).std() < 0.2
    assert 0 < factors.mean(1).std() < 0.05
    assert abs(np.corrcoef(factors[:2])[0, 1]) < 0.15


def test_each_branch_of_each_block_is_dropped_independently() -> None:
    logits = np.asarray(nnx.jit(lambda model: model(jnp.broadcast_to(IMAGES[:1], (400, *SHAPE))))(vit()))
    assert len(np.unique(logits.round(3), axis=0)) == 2**4  # for one image: two blocks with two branches each


def test_every_pass_draws_new_branches_and_advances_the_count() -> None:
    depth = StochasticDepth(0.5, rngs=nnx.Rngs(0))
    first, second = depth(4, 32), depth(4, 32)
    assert not np.array_equal(first, second)
    assert depth.stream.count[...] == 2


def test_inference_drops_nothing() -> None:
    with_it, without = vit(), vit(drop_path=0.0)
    with_it.eval()
    np.testing.assert_array_equal(forward(with_it), forward(without))  # the initial parameters are the same, too
    assert with_it.stochastic_depth.stream.count[...] == 0
    with_it.train()
    assert not np.allclose(forward(with_it), forward(without))


def test_a_vit_without_stochastic_depth_has_no_state() -> None:
    assert not jax.tree.leaves(nnx.state(vit(drop_path=0.0), nnx.Not(nnx.Param)))


def test_a_dropped_branch_has_no_gradient() -> None:
    model = vit(drop_path=0.999)
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    assert not np.any(model.stochastic_depth(4, 1))
    grads = jax.jit(jax.grad(lambda params: nnx.merge(graphdef, params, rest, copy=True)(IMAGES[:1]).sum()))(params)
    for block in (0, 1):
        assert not np.any(grads["blocks"][block]["mlp_out"]["kernel"][...])
        assert not np.any(grads["blocks"][block]["attention"]["qkv"]["kernel"][...])
    assert np.any(grads["head"]["bias"][...])


def test_both_passes_of_a_step_drop_the_same_branches_and_the_next_step_others() -> None:
    step, state = sam_step()
    losses = []
    for done in range(3):
        assert count(state) == done
        params = jax.tree.map(jnp.copy, state.params)
        state, metrics = step(state, BATCH, hyperparameters(rho=1e-5), None, perturb=True)
        # at this small radius both gradients are equal; with other branches they would differ
        np.testing.assert_allclose(metrics["cosine"], 1, atol=1e-5)
        np.testing.assert_allclose(metrics["perturbed_grad_norm"], metrics["grad_norm"], rtol=1e-3)
        losses.append(float(metrics["loss"]))
        state = state._replace(params=params)
    assert len(set(losses)) == 3


def test_a_step_without_a_second_pass_also_advances_the_count() -> None:
    step, state = sam_step()
    state, _ = step(state, BATCH, hyperparameters(rho=0.05), None, perturb=False)
    assert count(state) == 1


def test_a_run_resumes_bit_for_bit_from_its_checkpoint(tmp_path: pathlib.Path) -> None:
    step, state = sam_step()
    state, _ = step(state, BATCH, hyperparameters(rho=0.05), None, perturb=True)
    checkpoint.save(tmp_path / "state", state)
    restored = checkpoint.restore(tmp_path / "state", sam_step()[1])
    ends = [step(each, BATCH, hyperparameters(rho=0.05), None, perturb=True)[0] for each in (state, restored)]
    assert [count(end) for end in ends] == [2, 2]
    jax.tree.map(np.testing.assert_array_equal, *(end.params for end in ends))


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_invalid_probabilities_are_refused(rate: float) -> None:
    with pytest.raises(ValueError, match=r"drop_path is .*: give a probability"):
        vit(drop_path=rate)
