"""Nonfinite steps are skipped or end the run, and never change parameters or state."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments import train
from experiments.cli.errors import start
from experiments.config import Config
from experiments.runner import program, run
from experiments.runner.program import build
from experiments.training import checkpoint, loss_and_update, optimizer
from experiments.training.exceptions import NotFiniteError
from experiments.training.methods import METHODS
from experiments.training.step import TrainState, initial_state, train_step
from experiments.training.writers import read
from tests.experiments.conftest import TinyNet
from tests.experiments.interrupted_runs import assert_same_run, assert_same_state, execute, stopped
from tests.experiments.many_devices import placed
from tests.experiments.test_command_line import call
from tests.selection import combinations

pytestmark = pytest.mark.usefixtures("unshifted_digits")

SETTINGS = {"method": "sam", "momentum": 0.9, "batch_plan": "2x128"}  # 8 updates
BAD = 5  # a step of the second epoch


def net() -> TinyNet:
    return TinyNet(10, (2, 2, 1), nnx.Rngs(0))


def made(method: str, m: int | None = None, ema: float = 0.0, *, guarded: bool = True) -> tuple[Any, TrainState]:
    posterior = optimizer.Posterior(num_examples=100, seed=0)
    settings = optimizer.Settings(method, momentum=0.9, ema=ema, posterior=posterior)
    if METHODS[method].bayesian:
        tx = optimizer.create(settings)
        descend = loss_and_update.bayesian(net(), tx, posterior.seed)
    elif m is None:
        tx = optimizer.create(settings)
        descend = loss_and_update.whole(net(), tx, METHODS[method].functional)
    else:
        tx = optimizer.create_parted(settings)
        descend = loss_and_update.in_shards(net(), tx, m)
    prepare: Callable[..., Any] = lambda batch, constants: (batch["image"], batch["label"], batch["label"])  # noqa: E731
    return train_step(descend, prepare, skips_nonfinite=guarded), initial_state(net(), tx.init)


def batch(value: float | None = None) -> dict[str, jax.Array]:
    images = jax.random.normal(jax.random.key(1), (8, 2, 2, 1))
    return {"image": images if value is None else images.at[3, 1, 1, 0].set(value), "label": jnp.arange(8)}


def hyperparameters(method: str, **other: float) -> dict[str, Any]:
    values = {"learning_rate": 0.1, "rho": METHODS[method].rho, "alpha": 0.3} | other
    return {name: np.float32(value) for name, value in values.items()}


def copy(state: TrainState) -> TrainState:
    return jax.tree.map(jnp.copy, state)


OFTEN = ("gsam", "msam", "wsam_decoupled")
KINDS = [
    *((method, None, 0.0) for method in OFTEN),
    *(pytest.param(method, None, 0.0, marks=pytest.mark.long) for method in METHODS if method not in OFTEN),
    *(pytest.param("gsam", 4, 0.0, marks=pytest.mark.long), ("sam", 4, 0.9)),
]


@pytest.mark.parametrize(("method", "m", "ema"), KINDS)
def test_a_nonfinite_step_changes_nothing(method: str, m: int | None, ema: float) -> None:
    step, state = made(method, m, ema)
    perturb = METHODS[method].makes_second_pass
    state, metrics = step(state, batch(), hyperparameters(method), None, perturb=perturb)
    assert not metrics["skipped"]
    before = copy(state)
    state, metrics = step(state, batch(np.nan), hyperparameters(method, learning_rate=0.2), None, perturb=perturb)
    assert metrics["skipped"]
    assert not np.isfinite(metrics["loss"])
    assert_same_state(state, before)
    after, metrics = step(copy(state), batch(), hyperparameters(method), None, perturb=perturb)
    assert not metrics["skipped"]
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), after.params, before.params)
    assert any(jax.tree.leaves(moved))


@pytest.mark.parametrize("method", ["gsam", "msam"])
def test_finite_steps_are_the_same_as_without_the_guard(method: str) -> None:
    """Up to rounding, because the step is compiled separately."""
    ends = []
    for guarded in (False, True):
        step, state = made(method, guarded=guarded)
        for _ in range(3):
            state, _ = step(state, batch(), hyperparameters(method), None, perturb=method == "gsam")
        ends.append(state)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), *ends)


def test_an_overflow_in_the_second_pass_or_in_the_update_is_detected() -> None:
    step, state = made("sam")
    before = copy(state)
    # logits of ± 1e38 times the pixels: finite in the first pass, not in the second
    state, metrics = step(state, batch(), hyperparameters("sam", rho=3e38), None, perturb=True)
    assert np.isfinite(metrics["loss"])
    assert metrics["skipped"]
    assert_same_state(state, before)
    state, metrics = step(state, batch(), hyperparameters("sam", learning_rate=np.inf), None, perturb=False)
    assert metrics["skipped"]
    assert_same_state(state, before)


def test_after_a_halt_every_step_is_skipped() -> None:
    step, state = made("sam")
    before = copy(state)
    state, metrics = step(state, batch(), hyperparameters("sam"), None, np.bool_(True), perturb=True)
    assert metrics["skipped"]
    assert_same_state(state, before)


@pytest.fixture
def poisoned(tiny: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Makes the batches that begin at these positions nonfinite."""
    preparation, positions = program.image_pipeline.preparation, []

    def poisoning(recipe: Any) -> Any:
        prepare = preparation(recipe)

        def poisoned(batch: Any, constants: Any) -> Any:
            images, *rest = prepare(batch, constants)
            is_bad = jnp.isin(batch["position"][0], jnp.asarray(positions))
            return jnp.where(is_bad, jnp.nan, images), *rest

        return poisoned

    program._training.cache_clear()
    monkeypatch.setattr(program.image_pipeline, "preparation", poisoning)
    yield positions.extend
    program._training.cache_clear()


def test_skipped_steps_are_counted_and_reported(poisoned: Any, tiny: str, tmp_path: Path) -> None:
    poisoned([BAD * 128])
    config = Config.from_settings(model=tiny, on_nonfinite="skip", **SETTINGS)
    result = execute(tmp_path / "run", config)
    steps = list(read(tmp_path / "run" / "metrics.jsonl", "step"))
    assert [record["step"] for record in steps if record["skipped"]] == [BAD]
    assert steps[BAD]["loss"] is None
    first, second = read(tmp_path / "run" / "metrics.jsonl", "epoch")
    assert (first["skipped"], second["skipped"], result.skipped) == (0, 1, 1)
    finite = [record["loss"] for record in steps[4:] if not record["skipped"]]
    assert second["train_loss"] == pytest.approx(np.mean(finite), rel=1e-6)
    assert result.gradient_evaluations == 16
    assert run.outcome(result).endswith("%, non-finite steps skipped: 1")
    stopped(tmp_path / "stopped", config, 7)
    execute(tmp_path / "stopped", config)
    assert_same_run(tmp_path / "stopped", tmp_path / "run")


def test_an_epoch_without_a_finite_step_has_no_training_loss(poisoned: Any, tiny: str, tmp_path: Path) -> None:
    poisoned(range(512, 1024))
    result = execute(tmp_path, Config.from_settings(model=tiny, on_nonfinite="skip", **SETTINGS))
    assert (result.skipped, result.train_loss) == (4, None)
    assert result.diverged
    assert result.test_loss is not None


def test_without_the_setting_a_run_diverges_as_before(poisoned: Any, tiny: str, tmp_path: Path) -> None:
    poisoned([BAD * 128])
    result = execute(tmp_path, Config.from_settings(model=tiny, **SETTINGS))
    assert result.diverged
    assert result.skipped is None
    assert "skipped" not in (tmp_path / "metrics.jsonl").read_text()


def test_a_run_whose_parameters_are_nan_has_diverged_even_if_its_losses_are_finite(
    tiny: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trained = run._train

    def lost(*arguments: Any) -> Any:
        found = trained(*arguments)
        params = jax.tree.map(lambda x: x.at[0].set(np.nan), found.state.params)
        return found._replace(state=found.state._replace(params=params))

    monkeypatch.setattr(run, "_train", lost)
    result = execute(tmp_path, Config.from_settings(model=tiny, **SETTINGS))
    assert result.diverged
    assert (result.train_loss is None, result.test_loss) == (False, None)


@pytest.mark.parametrize(
    "more",
    [
        {},
        pytest.param({"m": 32, "ema": 0.9, "method": "gsam"}, marks=pytest.mark.long),
        pytest.param({"micro_batch": 64}, marks=pytest.mark.long),
    ],
    ids=str,
)
def test_a_run_that_stops_at_a_nonfinite_step_is_saved_as_before_it(
    poisoned: Any, tiny: str, tmp_path: Path, more: dict[str, Any]
) -> None:
    config = Config.from_settings(model=tiny, on_nonfinite="stop", **SETTINGS | more)
    poisoned([BAD * 128])
    stopped(
        tmp_path / "wanted", config, BAD
    )  # before the bad step, with the same program, because another one may round differently
    for _ in range(2):  # the resumed run arrives at the same step
        with pytest.raises(NotFiniteError, match=f"step {BAD} is not finite"):
            execute(tmp_path / "run", config)
        assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [BAD]
        files = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("run", "wanted")]
        assert files[0] == files[1]
        like, _ = build(config, run.load(config))
        states = [checkpoint.restore_save(tmp_path / name / "checkpoints", BAD, like) for name in ("run", "wanted")]
        assert_same_state(*states)
    assert not (tmp_path / "run" / "result.json").exists()


@combinations(lambda more, devices: more == {} and devices == 2, more=({}, {"micro_batch": 64}), devices=(1, 2))
def test_a_run_that_stops_at_a_nonfinite_step_compiles_each_step_once(
    tiny: str, tmp_path: Path, devices: int, more: dict[str, Any]
) -> None:
    """The flag for an earlier halt is first an array on the host, then one on a device."""
    config, sharding = (
        Config.from_settings(model=tiny, on_nonfinite="stop", **SETTINGS | {"batch_plan": "1x128"} | more),
        placed(devices),
    )
    with pytest.raises(BaseException, match="stopped after 1 updates"):  # the resumed run starts from a restored state
        execute(tmp_path, config, sharding=sharding, stop=lambda step: step >= 1)
    program._training.cache_clear()
    execute(tmp_path, config, sharding=sharding)
    step: Any = build(config, run.load(config), sharding)[1].step
    made = [step.compiled] if more == {} else [getattr(step.func, f"_{name}") for name in ("add", "update")]
    assert [each._cache_size() for each in made] == [1] * len(made)


def test_the_program_has_an_exit_code_for_a_nonfinite_stop(
    poisoned: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    poisoned([BAD * 128])
    arguments = ["--model", "tiny", "--batch-plan", "2x128", "--output", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as stop:
        start(partial(call, train, monkeypatch, *arguments, "--on-nonfinite", "stop"))
    assert stop.value.code == 3
    output = capsys.readouterr().err
    assert output.startswith(f"error: step {BAD} is not finite")
    assert output.count("\n") == 1
    start(partial(call, train, monkeypatch, *arguments[:-1], str(tmp_path / "other"), "--on-nonfinite", "skip"))
    assert "non-finite steps skipped: 1" in capsys.readouterr().out
    assert json.loads((tmp_path / "other" / "result.json").read_text())["skipped"] == 1


def test_an_unknown_choice_is_refused() -> None:
    with pytest.raises(ValueError, match="on_nonfinite is 'ignore': choose one of skip, stop"):
        Config.from_settings(on_nonfinite="ignore")
