"""A batch that is processed in micro-batches gives the same step as the whole batch."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.config import Config
from experiments.runner import program, run
from experiments.runner.image_pipeline import stream_of
from experiments.runner.program import build
from experiments.training.accumulation import MicroBatchStep
from experiments.training.methods import METHODS
from experiments.training.writers import Record
from tests.experiments.each_method import each_of, supported_settings

pytestmark = pytest.mark.usefixtures("unshifted_digits")

TWO_STEPS = {"batch_plan": "1x64", "train_examples": 128, "learning_rate": 0.05, "momentum": 0.9, "rho": 0.3}


@pytest.fixture
def wide_params(monkeypatch: pytest.MonkeyPatch, x64: None) -> None:
    """Makes runs use 64 bits, starting with the parameters."""
    network = program.network

    def widened(*how: Any) -> nnx.Module:
        model = network(*how)
        nnx.update(model, jax.tree.map(lambda x: x.astype(jnp.float64), nnx.state(model, nnx.Param)))
        return model

    monkeypatch.setattr(program, "network", widened)


def trained(**settings: Any) -> tuple[Any, list[Record]]:
    """The state after a run, and its records as plain numbers."""
    config, records = Config.from_settings(**settings), []
    state, _ = run.train(config, run.load(config), write=records.append)
    return state, [{name: float(x) for name, x in record.items() if name != "kind"} for record in records]


@each_of(
    (name for name, method in METHODS.items() if method.constants.ascent_steps is None and not method.bayesian),
    quick=("vasso", "wsam_decoupled", "functional_sam", "msam"),  # the next test runs gsam
)
def test_accumulated_step_equals_the_whole_batch_step_for_every_method(
    plain: str, wide_params: None, method: str
) -> None:
    settings = {"model": plain, "method": method} | supported_settings(method, **TWO_STEPS, weight_decay=1e-3)
    whole, of_whole = trained(**settings)
    parts, of_parts = trained(**settings, micro_batch=16)
    assert {x.dtype for x in jax.tree.leaves(parts.params)} == {jnp.dtype("float64")}
    chex.assert_trees_all_close(parts.params, whole.params, rtol=1e-12, atol=1e-14)
    chex.assert_trees_all_close(parts.opt_state, whole.opt_state, rtol=1e-10, atol=1e-13)
    for part, record in zip(of_parts, of_whole, strict=True):
        assert part == pytest.approx(record, rel=1e-6, nan_ok=True)


@pytest.mark.parametrize(
    "settings",
    [
        {"when": "every:2"},
        pytest.param({"optimizer": "adamw", "momentum": None}, marks=pytest.mark.long),
        {"ema": 0.9},
        pytest.param({"label_smoothing": 0.1}, marks=pytest.mark.long),
    ],
    ids=["skipping", "adamw", "averaged", "smoothed"],
)
def test_accumulated_step_equals_the_whole_batch_step_with_other_settings(
    plain: str, wide_params: None, settings: dict[str, Any]
) -> None:
    settings = TWO_STEPS | {"model": plain, "method": "gsam"} | settings
    whole, parts = trained(**settings)[0], trained(**settings, micro_batch=32)[0]
    chex.assert_trees_all_close(parts, whole, rtol=1e-9, atol=1e-13)


def test_one_micro_batch_of_the_whole_batch_gives_the_same_step_with_batchnorm(tiny: str) -> None:
    settings = TWO_STEPS | {"model": tiny, "method": "gsam"}
    whole, of_whole = trained(**settings)
    for size in (64, 100):
        parts, of_parts = trained(**settings, micro_batch=size)
        chex.assert_trees_all_close(parts, whole, rtol=1e-5, atol=1e-6)
        assert of_parts[-1] == pytest.approx(of_whole[-1], rel=1e-5)


def test_batchnorm_statistics_are_the_mean_over_the_micro_batches(tiny: str) -> None:
    config = Config.from_settings(model=tiny, method="sam", micro_batch=16, batch_plan="1x32", train_examples=32)
    dataset = run.load(config)
    after, _ = run.train(config, dataset)
    step: Any = build(config, dataset)[1].step
    order, found = next(stream_of(config, dataset)), []
    for part in (slice(16), slice(16, 32)):
        images, *_ = step.func.prepare({name: x[part] for name, x in order.items()}, step.keywords["constants"])
        pixels = images.reshape(16, -1)
        found.append((0.01 * pixels.mean(0), 0.99 + 0.01 * pixels.var(0)))
    means, variances = zip(*found, strict=True)
    np.testing.assert_allclose(after.model_state["norm"]["mean"], np.mean(means, 0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(after.model_state["norm"]["var"], np.mean(variances, 0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("plan", ["1x16,1x32,1x64", "adaptive:6x32..128:noise_scale:9"])
def test_all_stages_of_a_plan_share_one_set_of_executables(tiny: str, plan: str) -> None:
    settings = {"method": "gsam", "when": "every:2", "micro_batch": 16, "train_examples": 128}
    config = Config.from_settings(model=tiny, batch_plan=plan, seed=1, **settings)
    dataset = run.load(config)
    step: Any = build(config, dataset)[1].step.func
    assert isinstance(step, MicroBatchStep)
    _, last = run.train(config, dataset)
    assert last.batch_size > config.plan.stages[0].batch_size
    sizes = [each._cache_size() for each in (step._zeros, step._add, step._ascend, step._update)]
    assert sizes == [1, 1, 1, 2]  # one gradient for both passes; the update with a second pass and without


def test_micro_batches_are_sent_one_at_a_time_and_two_are_prefetched(plain: str) -> None:
    config = Config.from_settings(model=plain, method="sam", micro_batch=8, **(TWO_STEPS | {"batch_plan": "1x32"}))
    state, built = build(config, run.load(config))
    step: Any = built.step
    log: list[Any] = []

    def send(part: Any) -> Any:
        log.append(len(part["position"]))
        return part

    def logged(add: Any) -> Any:
        return lambda *args: log.append("used") or add(*args)

    watched = MicroBatchStep(step.func.passes, step.func.tx, step.func.prepare, 8)
    watched._send = send
    watched._add = logged(watched._add)
    batch = next(stream_of(config, run.load(config)))
    assert built.send(batch) is batch
    hyperparameters = {"learning_rate": np.float32(0.1), "rho": np.float32(0.1)}
    watched(state, batch, hyperparameters, step.keywords["constants"], perturb=True)
    assert log == 2 * [8, 8, 8, "used", 8, "used", "used", "used"]


def test_nonfinite_steps_are_skipped_as_with_whole_batches(tiny: str) -> None:
    settings = TWO_STEPS | {"model": tiny, "method": "sam", "learning_rate": 1e38, "on_nonfinite": "skip"}
    (state, records), (_, of_whole) = trained(**settings, micro_batch=32), trained(**settings)
    assert [record["skipped"] for record in records] == [record["skipped"] for record in of_whole]
    assert records[-1]["skipped"] > 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))


@pytest.mark.parametrize(
    ("settings", "refusal"),
    [
        ({"micro_batch": 0}, "micro_batch is 0: give an integer of at least 1"),
        ({"micro_batch": 24}, "micro_batch is 24, which does not divide the batch size 32"),
        ({"micro_batch": 8, "m": 8}, "micro_batch is 8, and m gives each part of a batch its own perturbation"),
        ({"micro_batch": 8, "perturbation": "device"}, "micro_batch is 8, and m gives each part of a batch its own"),
        ({"micro_batch": 8, "when": "ae_sam"}, "micro_batch is 8, and ae_sam decides inside the step"),
        ({"micro_batch": 8, "model": "vit_tiny", "drop_path": 0.1}, "the network draws random numbers"),
    ],
)
def test_indivisible_batches_are_refused(settings: dict[str, Any], refusal: str) -> None:
    with pytest.raises(ValueError, match=refusal):
        Config.from_settings(**{"method": "sam", "batch_plan": "1x16,1x32", **settings})


def test_batches_smaller_than_a_micro_batch_stay_whole() -> None:
    assert Config.from_settings(batch_plan="1x8,1x16,1x32", micro_batch=16).descent.micro_batch == 16
