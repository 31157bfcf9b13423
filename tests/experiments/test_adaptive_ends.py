"""The end of an adaptive batch plan, what is saved and measured there, and the size of its micro-batches."""

from pathlib import Path
from typing import Any

import pytest

from experiments.config import Config
from experiments.runner import run, sharpness_records
from experiments.runner.program import build
from experiments.sharpness import SharpnessSettings, has_measured, measure_run
from experiments.training.adaptive import AdaptivePlan
from experiments.training.checkpoint import Checkpoints
from experiments.training.epoch_schedule import Saving
from experiments.training.sharding import Sharding
from sam_optax import BatchPlan, NoiseTerms
from tests.experiments.interrupted_runs import execute
from tests.experiments.test_adaptive import SMALL, config


def test_nothing_is_saved_after_the_last_update_of_an_adaptive_plan(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    save = Checkpoints.save
    monkeypatch.setattr(Checkpoints, "save", lambda self, step, *what: saved.append(step) or save(self, step, *what))
    updates = execute(tmp_path, config(tiny), saving=Saving(1)).updates
    assert saved == list(range(1, updates))


def test_sharpness_of_a_finished_run_is_measured_at_its_actual_end(tiny: str, tmp_path: Path) -> None:
    made = config(tiny, batch_plan="adaptive:40ux16..64:noise_scale:0.4")
    settings, result = SharpnessSettings(steps=2, examples=48, batch_size=32), execute(tmp_path, made)
    epochs = BatchPlan.parse(result.batch_plan).epochs
    assert epochs != made.plan.epochs
    measure_run(tmp_path, made, run.load(made), settings)
    assert {(each.epoch, each.step) for each in sharpness_records.read(tmp_path)} == {(epochs, result.updates)}
    assert has_measured(tmp_path, made, run.load(made), settings)


def test_a_micro_batch_counts_the_examples_of_all_processes(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sharding, "part", (0, 2))
    made = config(tiny, on_nonfinite="skip", ema=0.9)  # which no other test compiles
    step: Any = build(made, run.load(made))[1].step
    assert (step.func._size, step.func.micro_batch) == (4, 8)


def test_adaptive_plans_are_parsed_from_text() -> None:
    twice = AdaptivePlan.parse("adaptive:30ux16..250:noise_scale:2")
    assert (twice.sizes, twice.budget, twice.is_in_updates) == ((16, 32, 64, 128), 30, True)
    assert twice.controller.rule(NoiseTerms(1.0, 50.0), 16) == 100.0
    assert twice.spec == "16..250:noise_scale:2"
    assert [twice.is_over(9, updates) for updates in (29, 30)] == [False, True]
    tenth = AdaptivePlan.parse("adaptive:30x16..250:noise_scale:1e-1")
    assert [tenth.is_over(epochs, 99) for epochs in (29, 30)] == [False, True]
    assert tenth.controller.rule(NoiseTerms(1.0, 50.0), 16) == pytest.approx(5.0)
    assert AdaptivePlan.parse("adaptive:3x8..8:norm_test:0.5").controller.rule(NoiseTerms(2.0, 64.0), 16) == 43.0
    assert str(Config.from_settings(method="sam", batch_plan="adaptive:40ux16..64:noise_scale", **SMALL).plan) == "5x16"
