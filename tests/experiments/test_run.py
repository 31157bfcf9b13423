import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from experiments import augmentation, data, models
from experiments.config import Config
from experiments.runner import run
from experiments.runner.program import build
from experiments.training import checkpoint
from experiments.training.exceptions import UnusableError
from experiments.training.json_files import encode
from experiments.training.writers import read
from sam_optax import BatchPlan
from tests.experiments.conftest import train


def records(output: Path, kind: str) -> list[dict[str, Any]]:
    return list(read(output / "metrics.jsonl", kind))


@pytest.mark.parametrize("lr_schedule", ["constant", "cosine", pytest.param("linear", marks=pytest.mark.long)])
def test_a_growing_plan_makes_its_updates_at_the_rates_of_its_schedule(
    tiny: str, tmp_path: Path, lr_schedule: str
) -> None:
    text = "1x16,1x32,1x64,1x128,1x256"
    result = train(tmp_path, model=tiny, method="sgd", batch_plan=text, lr_schedule=lr_schedule, learning_rate=0.2)
    plan, steps = BatchPlan.parse(text), records(tmp_path, "step")
    assert [record["step"] for record in steps] == list(range(plan.total_steps(512)))
    assert result.updates == plan.total_steps(512) == 32 + 16 + 8 + 4 + 2
    for record in steps:
        epoch = plan.epoch_at(record["step"], 512)
        fall = {"constant": 1.0, "cosine": (1 + math.cos(math.pi * epoch / 5)) / 2, "linear": 1 - epoch / 5}[
            lr_schedule
        ]
        expected = 0.2 * (fall if lr_schedule == "constant" else 0.01 + 0.99 * fall)
        assert record["learning_rate"] == pytest.approx(expected, rel=1e-5)
        assert record["batch_size"] == plan.batch_size_at(epoch)
        assert record["epoch"] == pytest.approx(epoch)


def test_the_same_config_gives_the_same_numbers_and_another_seed_gives_others(tiny: str, tmp_path: Path) -> None:
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        train(tmp_path / name, model=tiny, method="gsam", batch_plan="2x64,1x128", seed=seed)
    first, again, other = ((tmp_path / name / "metrics.jsonl").read_text() for name in ("first", "again", "other"))
    assert first == again
    assert first != other


def test_radius_zero_trains_like_sgd(tiny: str, tmp_path: Path) -> None:
    results = [
        train(tmp_path / method, model=tiny, method=method, rho=0.0, batch_plan="2x64", momentum=0.9)
        for method in ("sgd", "sam", "gsam", "asam")
    ]
    for result in results[1:]:
        assert result.test_loss == pytest.approx(results[0].test_loss, rel=1e-5)
        assert result.gradient_evaluations == 2 * results[0].gradient_evaluations


def test_sam_trains_like_its_formula_in_plain_jax(tiny: str, tmp_path: Path) -> None:
    settings = {"model": tiny, "method": "sam", "rho": 0.1, "batch_plan": "1x128", "weight_decay": 1e-2}
    train(tmp_path, **settings)
    config = Config.from_settings(**settings)
    dataset = run.load(config)
    params, model_state = _by_hand(config, dataset)
    state, _ = build(config, dataset)
    trained = checkpoint.restore(tmp_path / "checkpoint", state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5), trained.params, params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5), trained.model_state, model_state)


def _by_hand(config: Config, dataset: data.Dataset) -> tuple[Any, Any]:
    """SAM with weight decay, and BatchNorm statistics of the clean pass, in plain JAX without the training package."""
    model = models.create(config.network.model, 10, dataset.image_shape, nnx.Rngs(config.seed))
    graphdef, params, model_state = nnx.split(model, nnx.Param, ...)
    params, model_state = nnx.as_pure(params), nnx.as_pure(model_state)
    crop, _ = jax.random.split(jax.random.key(config.seed))

    def loss_fn(params: Any, model_state: Any, images: Any, labels: Any) -> Any:
        net = nnx.merge(graphdef, params, model_state, copy=True)
        losses = optax.softmax_cross_entropy_with_integer_labels(net(images), labels)
        return losses.mean(), nnx.as_pure(nnx.state(net, nnx.Not(nnx.Param)))

    gradient = jax.jit(jax.grad(loss_fn, has_aux=True))
    for batch in data.training_batches(dataset.train, config.plan, config.seed):
        keys = augmentation.example_keys(crop, jnp.asarray(batch["position"], jnp.int32))
        cropped = augmentation.random_crop(keys, jnp.asarray(batch["image"]), 1)
        images = augmentation.normalize(cropped, dataset.mean, dataset.std)
        clean, moved = gradient(params, model_state, images, batch["label"])
        scale = config.descent.rho / optax.tree.norm(clean)
        ahead = jax.tree.map(lambda w, g: w + scale * g, params, clean)  # noqa: B023 - used at once
        perturbed, _ = gradient(ahead, model_state, images, batch["label"])
        params = jax.tree.map(lambda w, g: w - 0.1 * (g + 1e-2 * w), params, perturbed)
        model_state = moved
    return params, model_state


def test_the_checkpoint_holds_the_state_that_was_evaluated(tiny: str, tmp_path: Path) -> None:
    result = train(tmp_path, model=tiny, method="gsam", batch_plan="2x128", optimizer="adamw", learning_rate=1e-3)
    config = Config.load(tmp_path / "config.json")
    fresh, program = build(config, run.load(config))
    tested = program.evaluate(checkpoint.restore(tmp_path / "checkpoint", fresh))
    assert tested["loss"] == pytest.approx(result.test_loss, rel=1e-6)
    assert tested["error"] == pytest.approx(result.test_error)
    assert json.loads((tmp_path / "result.json").read_text()) == encode(result)


def test_an_evaluation_weights_every_test_example_equally(tiny: str) -> None:
    config = Config.from_settings(model=tiny)
    dataset = run.load(config)
    state, program = build(config, dataset)
    model = models.create(tiny, 10, dataset.image_shape, nnx.Rngs(config.seed))
    model.eval()
    logits = model(augmentation.normalize(dataset.test.images, dataset.mean, dataset.std))
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, dataset.test.labels).mean()
    tested = program.evaluate(state)
    assert tested["loss"] == pytest.approx(float(loss), rel=1e-5)
    assert tested["error"] == pytest.approx(float(jnp.mean(jnp.argmax(logits, -1) != dataset.test.labels)))


def test_small_resnet_learns_the_digits(tmp_path: Path) -> None:
    result = train(tmp_path, method="gsam", batch_plan="4x16", train_examples=256)
    assert result.test_error < 0.4
    epochs = records(tmp_path, "epoch")
    assert [record["epoch"] for record in epochs] == [1, 2, 3, 4]
    assert epochs[-1]["train_loss"] < 0.5 * epochs[0]["train_loss"]
    for record in records(tmp_path, "step"):
        assert record["perturbation_norm"] == pytest.approx(0.05, rel=1e-3)
        assert -1 <= record["cosine"] <= 1


@pytest.mark.parametrize("content", ["", "[]", '{"updates": 3}', None], ids=repr)
def test_an_unreadable_result_is_named_with_the_remedy(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "result.json").write_text(content)
    with pytest.raises(
        UnusableError, match=r"result\.json is damaged, or was made by another version \(.*\): remove that run, or"
    ):
        run.result_of(tmp_path)
