"""A run that is stopped and resumed equals a run that was never stopped, bit for bit."""

from pathlib import Path
from typing import Any

import jax
import pytest
from flax import nnx

from experiments import models
from experiments.config import Config
from experiments.models import registry
from experiments.runner import run
from experiments.runner.resume import reopened
from experiments.sharpness import SharpnessSettings, watching
from experiments.training import checkpoint
from experiments.training.epoch_schedule import Saving
from experiments.training.writers import read
from tests.experiments.conftest import TinyNet
from tests.experiments.interrupted_runs import assert_same_run, execute, killed, stopped
from tests.selection import combinations

PLAN = "1x64,1x128,1x256"  # 8, 4 and 2 updates, of 512 images


def config(tiny: str, **settings: Any) -> Config:
    return Config.from_settings(**{"model": tiny, "method": "gsam", "momentum": 0.9, "batch_plan": PLAN} | settings)


@pytest.fixture(scope="module")
def memory() -> dict[Any, Path]:
    return {}


@pytest.fixture
def whole(tiny: str, tmp_path_factory: pytest.TempPathFactory, memory: dict[Any, Path]) -> Any:
    """The folder of the run of a config that was never stopped."""

    def folder(config: Config) -> Path:
        if config not in memory:
            memory[config] = tmp_path_factory.mktemp("whole")
            execute(memory[config], config)
        return memory[config]

    return folder


@combinations(lambda step: step in {0, 8, 13}, step=(0, 3, 8, 10, 13, 14))
def test_a_stopped_and_resumed_run_is_the_same(whole: Any, tiny: str, tmp_path: Path, step: int) -> None:
    stopped(tmp_path, config(tiny), step)
    assert checkpoint.steps(tmp_path / "checkpoints") == [step]
    execute(tmp_path, config(tiny))
    assert_same_run(tmp_path, whole(config(tiny)))


@pytest.mark.parametrize(
    "settings",
    [
        {"ema": 0.9, "when": "every:3"},
        pytest.param(
            {"m": 32, "method": "sam", "optimizer": "adamw", "momentum": None, "learning_rate": 1e-3},
            marks=pytest.mark.long,
        ),
        pytest.param(
            {"m": 128, "method": "sam", "optimizer": "adamw", "momentum": None, "learning_rate": 1e-3, "ema": 0.9},
            marks=pytest.mark.long,
        ),
        pytest.param({"method": "msam"}, marks=pytest.mark.long),
        pytest.param({"method": "look_sam", "lr_schedule": "cosine", "when": "bernoulli:0.5"}, marks=pytest.mark.long),
        pytest.param(
            {"when": "ae_sam", "mixing": 0.5, "random_erasing": 0.5, "passes": 2, "batch_plan": "1x256"},
            marks=pytest.mark.long,
        ),
        pytest.param({"on_nonfinite": "skip", "method": "vasso"}, marks=pytest.mark.long),
    ],
    ids=str,
)
def test_all_state_of_a_run_is_saved(whole: Any, tiny: str, tmp_path: Path, settings: dict[str, Any]) -> None:
    carried = config(tiny, **{"batch_plan": "2x256"} | settings)
    stopped(tmp_path, carried, 1)
    stopped(tmp_path, carried, 3)
    execute(tmp_path, carried)
    assert_same_run(tmp_path, whole(carried))


class DrawingNet(TinyNet):
    """TinyNet with randomly dropped pixels."""

    def __init__(self, num_classes: int, image_shape: tuple[int, int, int], rngs: nnx.Rngs) -> None:
        super().__init__(num_classes, image_shape, rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        return super().__call__(self.drop(images))


def test_a_stochastic_network_resumes_with_its_keys(
    whole: Any, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry._BUILDERS, "drawing", DrawingNet)
    monkeypatch.setattr(models, "NAMES", (*models.NAMES, "drawing"))
    drawing = config("drawing", batch_plan="2x256")
    stopped(tmp_path, drawing, 3)
    execute(tmp_path, drawing)
    assert_same_run(tmp_path, whole(drawing))


@pytest.mark.parametrize(
    ("step", "saved"),
    [
        (4, []),
        pytest.param(7, [5], marks=pytest.mark.long),
        (12, [5, 10]),
        pytest.param(13, [5, 10], marks=pytest.mark.long),
    ],
)
def test_a_killed_run_resumes_from_its_last_save(
    whole: Any, tiny: str, tmp_path: Path, step: int, saved: list[int]
) -> None:
    killed(tmp_path, config(tiny), step, every=5)
    assert checkpoint.steps(tmp_path / "checkpoints") == saved
    start = reopened(tmp_path, config(tiny), run.load(config(tiny)))
    assert start is not None
    assert start.progress.step == (saved or [0])[-1]
    execute(tmp_path, config(tiny), saving=Saving(5))
    assert_same_run(tmp_path, whole(config(tiny)))


def test_a_run_killed_after_the_last_step_resumes(
    whole: Any, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("write_whole", "checkpoint"):  # before the result, before the trained state
        with monkeypatch.context() as dying:
            dying.setattr(run, name, None)
            with pytest.raises((TypeError, AttributeError)):
                execute(tmp_path / name, config(tiny), saving=Saving(6))
        assert not (tmp_path / name / "result.json").exists()
        execute(tmp_path / name, config(tiny))
        assert_same_run(tmp_path / name, whole(config(tiny)))


def test_the_means_of_an_epoch_are_those_of_its_steps(whole: Any, tiny: str) -> None:
    path = whole(config(tiny)) / "metrics.jsonl"
    steps, first = list(read(path, "step")), 0
    for epoch in read(path, "epoch"):
        within = steps[first : epoch["step"]]
        for name in ("loss", "error"):
            assert epoch[f"train_{name}"] == pytest.approx(sum(each[name] for each in within) / len(within), rel=1e-6)
        first = epoch["step"]


def test_a_complete_run_is_unchanged(whole: Any, tiny: str) -> None:
    folder = whole(config(tiny))
    assert reopened(folder, config(tiny), run.load(config(tiny))) is None


def test_sharpness_measured_during_training_is_recorded_once(whole: Any, tiny: str, tmp_path: Path) -> None:
    from experiments.runner import sharpness_records  # noqa: PLC0415

    settings, dataset = SharpnessSettings(steps=1, examples=32, batch_size=32, during=1), run.load(config(tiny))

    def measured(output: Path, **around: Any) -> None:
        watch = watching(config(tiny), dataset, settings, lambda records: sharpness_records.add(output, records))
        execute(output, config(tiny), watch=watch, **around)

    measured(tmp_path / "whole")
    with pytest.raises(BaseException, match="stopped"):
        measured(tmp_path / "stopped", stop=lambda step: step >= 13, saving=Saving(10))
    (tmp_path / "stopped" / "checkpoints" / "13").rename(tmp_path / "gone")  # as if killed: epoch 2 is measured again
    measured(tmp_path / "stopped")
    files = [(tmp_path / name / "sharpness.jsonl").read_text() for name in ("whole", "stopped")]
    assert files[0] == files[1]
    assert_same_run(tmp_path / "stopped", whole(config(tiny)))


def test_the_recorded_seconds_add_up_over_all_attempts(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(run.time, "perf_counter", lambda: now[0])

    def slow(batches: Any) -> Any:
        for batch in batches:
            now[0] += 1.0
            yield batch

    with pytest.raises(BaseException, match="stopped"):
        execute(tmp_path, config(tiny), track=slow, stop=lambda step: step >= 6)
    now[0] += 1000.0
    result = execute(tmp_path, config(tiny), track=slow)
    assert result.seconds == pytest.approx(14)
