"""The update for a batch, and the parameters that are evaluated: shards, weight averages, soft targets."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.config import Config
from experiments.runner import run
from experiments.runner.program import build, evaluated
from experiments.training import checkpoint, loss_and_update, optimizer
from experiments.training.optimizer import average_weights, weight_average
from experiments.training.step import TrainState, initial_state
from tests.experiments.conftest import TinyNet, train

SETTINGS = optimizer.Settings("gsam", momentum=0.9, weight_decay=1e-2)
HYPERPARAMETERS = {"learning_rate": jnp.float32(0.1), "rho": jnp.float32(0.5), "alpha": jnp.float32(0.3)}


def net() -> TinyNet:
    from flax import nnx  # noqa: PLC0415

    return TinyNet(10, (4, 4, 1), nnx.Rngs(0))


def batch(size: int) -> tuple[jax.Array, jax.Array]:
    images = jax.random.normal(jax.random.key(1), (size, 4, 4, 1))
    return images, jnp.arange(size) % 10


def updates(
    descend: loss_and_update.LossAndUpdate, init: Any, images: jax.Array, labels: jax.Array, targets: Any = None
) -> Any:
    state = initial_state(net(), init)
    opt_state = optimizer.inject(state.opt_state, HYPERPARAMETERS)
    call = (state.model_state, images, labels if targets is None else targets, labels)
    return jax.jit(descend, static_argnums=3)(state.params, opt_state, call, True)


def assert_close(found: Any, wanted: Any, rtol: float = 1e-5) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-7), found, wanted)


def test_a_batch_of_at_most_m_examples_is_one_shard() -> None:
    tx, parted, examples = optimizer.create(SETTINGS), optimizer.create_parted(SETTINGS), batch(32)
    whole = updates(loss_and_update.whole(net(), tx), tx.init, *examples)
    for m in (32, 64):
        in_shards = updates(loss_and_update.in_shards(net(), parted, m), parted.init, *examples)
        for name in ("loss", "error", "updates", "model_state"):
            assert_close(getattr(in_shards, name), getattr(whole, name))


def test_shards_give_the_mean_of_their_separate_updates() -> None:
    settings = optimizer.Settings("gsam")
    tx, parted, (images, labels) = optimizer.create(settings), optimizer.create_parted(settings), batch(32)
    in_shards = updates(loss_and_update.in_shards(net(), parted, 8), parted.init, images, labels)
    descend = loss_and_update.whole(net(), tx)
    parts = [slice(k, k + 8) for k in range(0, 32, 8)]
    separate = [updates(descend, tx.init, images[part], labels[part]) for part in parts]
    for name in ("loss", "error", "updates", "model_state"):  # without momentum an update is linear in the gradient
        mean = jax.tree.map(lambda *x: sum(x) / 4, *(getattr(each, name) for each in separate))
        assert_close(getattr(in_shards, name), mean, rtol=1e-4)
    whole = updates(descend, tx.init, images, labels)
    gap = optax.tree.norm(jax.tree.map(jnp.subtract, in_shards.updates, whole.updates))
    assert gap > 1e-3 * optax.tree.norm(whole.updates)


@pytest.mark.parametrize("way", ["whole", "functional", "in shards", "a shard of each device"])
def test_both_passes_use_the_same_trace_of_the_network(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    traced: list[jax.Array] = []
    forward = TinyNet.__call__
    monkeypatch.setattr(TinyNet, "__call__", lambda self, images: traced.append(images) or forward(self, images))
    tx, parted = optimizer.create(SETTINGS), optimizer.create_parted(SETTINGS)
    descend, init = {
        "whole": lambda: (loss_and_update.whole(net(), tx), tx.init),
        "functional": lambda: (loss_and_update.whole(net(), tx, functional=True), tx.init),
        "in shards": lambda: (loss_and_update.in_shards(net(), parted, 8), parted.init),
        "a shard of each device": lambda: (loss_and_update.in_shards(net(), parted), parted.init),
    }[way]()
    updates(descend, init, *batch(32))
    assert len(traced) == 1


def test_one_hot_targets_equal_labels_and_soft_targets_weight_the_losses() -> None:
    tx, (images, labels) = optimizer.create(SETTINGS), batch(16)
    descend = loss_and_update.whole(net(), tx)
    hard = updates(descend, tx.init, images, labels)
    one_hot = updates(descend, tx.init, images, labels, jax.nn.one_hot(labels, 10))
    assert_close(one_hot.updates, hard.updates)
    even = updates(descend, tx.init, images, labels, jnp.full((16, 10), 0.1))
    state = initial_state(net(), tx.init)
    model = net()
    model.train()
    losses = -jax.nn.log_softmax(model(images)).mean()
    assert float(even.loss) == pytest.approx(float(losses), rel=1e-5)
    assert float(even.error) == pytest.approx(float(hard.error))  # errors are counted with the labels
    assert jax.tree.structure(state.params) == jax.tree.structure(even.updates)


def test_the_weight_average_follows_its_recurrence_and_does_not_affect_updates() -> None:
    plain, tx = optax.sgd(0.1, momentum=0.9), average_weights(optax.sgd(0.1, momentum=0.9), 0.75)
    params = {"w": jnp.asarray([1.0, -2.0])}
    state, plain_state, by_hand = tx.init(params), plain.init(params), np.asarray(params["w"])
    for t in range(1, 40):
        grads = jax.tree.map(lambda w, t=t: w * t % 3, params)
        step, state = tx.update(grads, state, params)
        expected, plain_state = plain.update(grads, plain_state, params)
        assert_close(step, expected)
        params = optax.apply_updates(params, step)
        kept = min(0.75, t / (t + 9))
        by_hand = kept * by_hand + (1 - kept) * np.asarray(params["w"])
        np.testing.assert_allclose(weight_average(state)["w"], by_hand, rtol=1e-5)


def test_averaged_weights_are_evaluated_with_their_own_batchnorm_statistics(tiny: str, tmp_path: Path) -> None:
    result = train(tmp_path, model=tiny, method="sam", ema=0.9, batch_plan="3x64")
    config = Config.load(tmp_path / "config.json")
    dataset = run.load(config)
    fresh, program = build(config, dataset)
    state: TrainState = checkpoint.restore(tmp_path / "checkpoint", fresh)
    assert program.evaluate(state)["loss"] == pytest.approx(result.test_loss, rel=1e-6)
    params, model_state = evaluated(config, dataset, state)
    assert_close(params, weight_average(state.opt_state))
    assert float(optax.tree.norm(jax.tree.map(jnp.subtract, params, state.params))) > 0
    pixels = (dataset.train.images.astype(np.float32) - dataset.mean) / dataset.std
    flat = pixels.reshape(len(pixels), -1)
    np.testing.assert_allclose(model_state["norm"]["mean"], flat.mean(0), rtol=1e-4, atol=1e-5)
    # batches of 500 and 12: the mean of the batches' variances, weighted by size
    variance = (500 * flat[:500].var(0) + 12 * flat[500:].var(0)) / 512
    np.testing.assert_allclose(model_state["norm"]["var"], variance, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"method": "msam", "m": 16}, "m is 16, and msam cannot be computed shard by shard"),
        ({"method": "functional_sam", "m": 16}, "m is 16"),
        ({"method": "sam", "m": 24, "batch_plan": "1x64"}, "does not divide the batch size 64"),
        ({"method": "sam", "m": 0}, "m is 0"),
        ({"method": "msam", "ema": 0.9}, "ema is 0.9"),
        ({"ema": 1.0}, "ema is 1.0"),
        ({"label_noise": 1.0}, "label_noise is 1.0"),
        ({"mixing": 1.5}, "mixing is 1.5"),
        ({"passes": 0}, "passes is 0"),
        ({"train_examples": 0}, "train_examples is 0"),
        ({"warmup_epochs": 25.0}, "warmup_epochs is 25"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Config.from_settings(**settings)


def test_shards_of_a_growing_batch_train(tiny: str, tmp_path: Path) -> None:
    result = train(tmp_path, model=tiny, method="gsam", m=32, batch_plan="1x16,1x32,1x128")
    assert result.gradient_evaluations == 2 * result.updates
    assert result.test_error < 0.5
