"""Batch plans that are decided during training by the noise of the gradients."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.config import Config
from experiments.runner import run
from experiments.runner.image_pipeline import stream_of
from experiments.runner.program import build
from experiments.sharpness import SharpnessSettings, measure_runs, watching
from experiments.training.adaptive import AdaptivePlan
from experiments.training.exceptions import UnusableError
from experiments.training.progress import EpochNoise, Progress, Total
from experiments.training.sharding import Sharding, mesh_of
from experiments.training.writers import Record
from sam_optax import BatchPlan, NoiseTerms
from tests.experiments.interrupted_runs import assert_same_run, assert_same_state, execute, killed, stopped
from tests.experiments.interrupted_runs import trained as trained_state
from tests.selection import combinations

GROWING = "adaptive:8x16..64:noise_scale:0.4"
SMALL = {"train_examples": 128, "micro_batch": 8, "learning_rate": 0.02, "rho": 0.1}


def config(tiny: str, **settings: Any) -> Config:
    return Config.from_settings(**{"model": tiny, "method": "sam", "batch_plan": GROWING, **SMALL, **settings})


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("whole") / "run"


@pytest.fixture
def whole(tiny: str, memory: Path) -> Path:
    """The folder of the growing plan's run, which was never stopped."""
    if not memory.exists():
        execute(memory, config(tiny))
    return memory


def trained(of: Config, sharding: Sharding = Sharding()) -> tuple[Any, list[Record]]:
    records: list[Record] = []
    state, _ = run.train(of, run.load(of), run.RunContext(sharding=sharding), records.append)
    return state, records


def plan_of(records: list[Record]) -> str:
    sizes = [(1, record["batch_size"]) for record in records if record["kind"] == "epoch"]
    merged: list[list[int]] = []
    for epochs, size in sizes:
        if merged and merged[-1][1] == size:
            merged[-1][0] += epochs
        else:
            merged.append([epochs, size])
    return ",".join(f"{epochs}x{size}" for epochs, size in merged)


def test_the_recorded_plan_replays_the_run_bit_for_bit(whole: Path, tiny: str) -> None:
    decided = config(tiny)
    result = run.result_of(whole)
    assert len(BatchPlan.parse(result.batch_plan).stages) > 1
    assert run.plan_followed(decided, result) == BatchPlan.parse(result.batch_plan)
    for lost in (dataclasses.replace(result, batch_plan=plan) for plan in (None, "", "1x")):
        with pytest.raises(UnusableError, match=f"{GROWING} does not say which plan it followed: remove that run"):
            run.plan_followed(decided, lost)
    fixed = config(tiny, batch_plan=result.batch_plan)
    state, records = trained(fixed)
    assert_same_state(state, trained_state(whole, decided))
    assert result.updates == records[-1]["step"]
    for name in ("gradient_evaluations", "test_loss", "train_loss"):
        assert getattr(result, name) == pytest.approx(records[-1][name], rel=1e-6)
    assert not any("signal" in name for record in records for name in record)


@pytest.mark.parametrize(
    ("settings", "every"),
    [({}, 1), ({"method": "sgd", "rho": None}, None), ({"when": "every:3"}, 3)],
    ids=["sam", "sgd", "every third"],
)
def test_each_epoch_decides_by_the_separate_means_of_signal_and_noise(
    tiny: str, settings: dict[str, Any], every: int | None
) -> None:
    decided = config(tiny, **settings)
    _, records = trained(decided)
    controller = AdaptivePlan.parse(GROWING).controller
    state = controller.start()
    steps: list[Record] = []
    for record in records:
        if record["kind"] == "step":
            steps.append(record)
            continue
        assert record["batch_size"] == state.batch_size
        with_second = [each for each in steps if each["step"] % every == 0] if every else []
        assert [each for each in steps if "perturbed_noise" in each] == with_second
        measured, which = (with_second, "perturbed") if with_second else (steps, "clean")
        signal, noise = (np.mean([each[f"{which}_{term}"] for each in measured]) for term in ("signal", "noise"))
        assert record["noise_scale"] == pytest.approx(noise / signal if signal > 0 else math.inf, rel=1e-4)
        state, steps = controller.after_epoch(state, NoiseTerms(signal, noise)), []
    assert plan_of(records) == str(controller.plan(state))


def test_noise_terms_are_computed_from_the_micro_batch_gradients(tiny: str) -> None:
    made = config(tiny, batch_plan="adaptive:1x32..32:noise_scale", train_examples=32)
    dataset = run.load(made)
    state, program = build(made, dataset)
    step: Any = program.step
    batch = next(stream_of(made, dataset))
    now = {name: np.float32(schedule(0.0)) for name, schedule in program.schedules.items()}
    params, model_state = jax.tree.map(jnp.array, state[:2])
    _, metrics = program.step(state, batch, now, perturb=True)

    def gradients(moved: Any) -> np.ndarray:
        parts = [{name: rows[i : i + 8] for name, rows in batch.items()} for i in range(0, 32, 8)]
        prepared = [step.func.prepare(part, step.keywords["constants"]) for part in parts]
        passes = [step.func.passes(params, model_state, *each) for each in prepared]
        found = [each[1] if moved is None else each[2](moved) for each in passes]
        return np.stack([np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]) for tree in found])

    clean = gradients(None)
    length = float(np.linalg.norm(clean.mean(0)))
    ascent = gradients_as(params, 0.1 * clean.mean(0) / length)
    for name, rows in (("clean", clean), ("perturbed", gradients(ascent))):
        noise = 8 * np.var(rows, axis=0, ddof=1).sum()
        assert metrics[f"{name}_noise"] == pytest.approx(noise, rel=1e-3)
        assert metrics[f"{name}_signal"] == pytest.approx((rows.mean(0) ** 2).sum() - noise / 32, rel=1e-3)


def gradients_as(params: Any, offset: np.ndarray) -> Any:
    """The parameters, moved by a vector."""
    leaves, structure = jax.tree.flatten(params)
    cuts = np.cumsum([leaf.size for leaf in leaves])[:-1]
    moved = [leaf + part.reshape(leaf.shape) for leaf, part in zip(leaves, np.split(offset, cuts), strict=True)]
    return jax.tree.unflatten(structure, moved)


@combinations(lambda step: step in {3, 17}, step=(3, 16, 17, 21))
def test_a_run_stopped_around_a_growth_resumes_bit_for_bit(whole: Path, tiny: str, tmp_path: Path, step: int) -> None:
    result = run.result_of(whole)
    grows = BatchPlan.parse(result.batch_plan).boundaries(128)[0]
    assert grows == 16  # two epochs of eight updates: the stops are before, at and after their end
    stopped(tmp_path / "parts", config(tiny), step)
    execute(tmp_path / "parts", config(tiny))
    assert_same_run(tmp_path / "parts", whole)


def test_a_run_killed_at_a_growth_or_at_its_end_resumes_bit_for_bit(whole: Path, tiny: str, tmp_path: Path) -> None:
    updates = run.result_of(whole).updates
    for step in (18, updates - 1):
        parts = tmp_path / str(step)
        killed(parts, config(tiny), step, every=2)
        execute(parts, config(tiny))
        assert_same_run(parts, whole)


def test_an_update_budget_ends_at_the_epoch_that_reaches_it(tiny: str) -> None:
    for budget in (1, 8, 9, 33):
        made = config(tiny, batch_plan=f"adaptive:{budget}ux16..64:noise_scale")
        _, records = trained(made)
        ends = [record["step"] for record in records if record["kind"] == "epoch"]
        assert ends[-1] >= budget
        assert [0, *ends][-2] < budget
        assert ends[-1] <= run.total_updates(made, run.load(made))


def test_sharpness_is_measured_after_an_end_set_by_the_update_budget(
    tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, epochs = config(tiny, batch_plan="adaptive:40ux16..64:noise_scale:0.4"), []
    monkeypatch.setattr(measure_runs, "measure", lambda network, settings, epoch, step: [epoch])
    dataset = run.load(made)
    watch = watching(made, dataset, SharpnessSettings(during=3), epochs.extend)
    _, last = run.train(made, dataset, run.RunContext(watch=watch))
    assert last.epoch % 3
    assert last.epoch > made.plan.epochs  # the updates of a batch that never grows
    assert epochs == [*range(3, last.epoch, 3), last.epoch]


def test_several_devices_measure_the_same_noise_as_one(tiny: str) -> None:
    made = config(tiny, batch_plan="adaptive:1x16..32:noise_scale", train_examples=64)
    (one, of_one), (spread, of_spread) = trained(made), trained(made, Sharding(mesh_of(jax.devices()[:4])))
    chex.assert_trees_all_close(jax.device_get(spread.params), one.params, rtol=1e-4, atol=1e-6)
    for record, alike in zip(of_one, of_spread, strict=True):
        for name in ("clean_noise", "perturbed_noise"):
            assert record.get(name) == (None if name not in alike else pytest.approx(float(alike[name]), rel=1e-3))


def test_skipped_steps_and_steps_without_measurements_do_not_count() -> None:
    finite = {"loss": 1.0, "error": 0.5, "clean_signal": 2.0, "clean_noise": 8.0}
    progress = Progress().after(finite, 1)
    assert progress.after({**finite, "skipped": 1, "clean_noise": 1e9}, 1).noise == progress.noise
    for name, value in (("clean_noise", math.inf), ("clean_signal", math.nan)):
        assert progress.after({**finite, name: value}, 1).noise == progress.noise
    both = progress.after({**finite, "perturbed_signal": 1.0, "perturbed_noise": 3.0}, 2)
    assert both.noise == EpochNoise(Total(4.0, 16.0, 2), Total(1.0, 3.0, 1))
    assert (both.noise.deciding, progress.noise.deciding) == (NoiseTerms(1.0, 3.0), NoiseTerms(2.0, 8.0))
    assert EpochNoise().deciding is None
    assert both.closed().noise == EpochNoise()


def test_a_position_survives_json_and_older_positions_load() -> None:
    state = AdaptivePlan.parse(GROWING).controller.start()
    full = Progress(step=3, noise=EpochNoise(Total(0.1, 0.2, 3)), growth=json.loads(json.dumps(state._asdict())))
    assert Progress.of(json.loads(json.dumps(full._asdict()))) == full
    older = {name: value for name, value in Progress(step=3)._asdict().items() if name not in ("noise", "growth")}
    assert Progress.of(older) == Progress(step=3)


@pytest.mark.parametrize(
    ("settings", "refusal"),
    [
        ({"batch_plan": "adaptive"}, "batch_plan is 'adaptive': give adaptive:25x16..256:noise_scale"),
        ({"batch_plan": "adaptive:8x16..64:noise"}, "give adaptive:25x16"),
        ({"batch_plan": "adaptive:0x16..64:noise_scale"}, "give adaptive:25x16"),
        ({"batch_plan": "adaptive:8x64..16:noise_scale"}, "maximum is 16, below initial, 64"),
        (
            {"batch_plan": "adaptive:8x16..64:noise_scale:0"},
            r"scale:0': multiple is 0\.0: give a finite number above 0\.$",
        ),
        (
            {"batch_plan": "adaptive:8x16..64:noise_scale:1e"},
            "batch_plan is 'adaptive:8x16..64:noise_scale:1e': give ad",
        ),
        ({"batch_plan": "adaptive:8ux256..512:noise_scale"}, "scale': batch size 256 is larger than the data, 128 ex"),
        ({"batch_plan": "adaptive:8x16..64:norm_test"}, "norm_test:0.5"),
        ({"batch_plan": "adaptive:8x16..64:norm_test:2"}, "norm_test:2': theta is 2.0"),
        ({"micro_batch": None}, "its noise is measured between the parts of a batch"),
        ({"micro_batch": 16}, "a value below 16"),
        ({"batch_plan": "adaptive:8x1..64:noise_scale", "micro_batch": 1}, "first batch of 1 has no parts"),
        ({"micro_batch": 5}, "micro_batch is 5, which does not divide the batch size 16"),
        ({"when": "last:0.5"}, "this policy needs a fixed plan"),
        ({"when": "ae_sam"}, "ae_sam decides inside the step"),
        ({"m": 8}, "m gives each part of a batch its own perturbation"),
        ({"batch_plan": "adaptive:99ux16..64:noise_scale", "lr_schedule": "cosine"}, "a schedule over epochs needs"),
    ],
)
def test_impossible_settings_are_refused_with_a_message(settings: dict[str, Any], refusal: str) -> None:
    with pytest.raises(ValueError, match=refusal):
        Config.from_settings(**{"method": "sam", "batch_plan": GROWING, **SMALL, **settings})


def test_a_maximum_batch_larger_than_the_data_is_refused_before_the_run() -> None:
    with pytest.raises(ValueError, match=r"noise_scale': batch size 256 is larger than the data, 128 examples"):
        run.load(Config.from_settings(method="sam", batch_plan="adaptive:8x16..256:noise_scale", **SMALL))
