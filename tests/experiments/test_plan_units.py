"""Runs whose batch plan is in updates, in examples, or in fractions of an epoch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from experiments.cli.output_folder import make_folder
from experiments.config import Config
from experiments.report.page import publish
from experiments.report.runs_table import table_of
from experiments.runner import run
from experiments.runner.finished_runs import find_runs
from experiments.study import dry_run
from experiments.training.writers import Record, read
from tests.experiments.interrupted_runs import assert_same_run, assert_same_state, execute, stopped

DIGITS = 512  # training images
IN_EPOCHS = "2x16,1x32"
WITHIN_AN_EPOCH = ("updates:10x16,20x32", "examples:160x16,640x32", "0.3125x16,1.25x32")
"""The same batches in three units: the size changes after 160 of 512 examples, and the plan ends within an epoch."""


def trained(tiny: str, plan: str, **settings: Any) -> tuple[Any, list[Record]]:
    config = Config.from_settings(model=tiny, method="sam", batch_plan=plan, **settings)
    records: list[Record] = []
    state, _ = run.train(config, run.load(config), write=records.append)
    return state, records


def of_kind(records: list[Record], kind: str, name: str) -> list[Any]:
    return [record[name] for record in records if record["kind"] == kind]


@pytest.mark.parametrize("lr_schedule", ["constant", "cosine"])
@pytest.mark.parametrize("plan", ["updates:64x16,16x32", "examples:1024x16,512x32"])
def test_the_same_batches_in_any_unit_give_the_same_parameters(tiny: str, plan: str, lr_schedule: str) -> None:
    (state, records), (wanted, expected) = (trained(tiny, each, lr_schedule=lr_schedule) for each in (plan, IN_EPOCHS))
    assert_same_state(state, wanted)
    assert records == expected


@pytest.mark.parametrize("plan", WITHIN_AN_EPOCH)
def test_the_batch_size_changes_within_an_epoch(tiny: str, plan: str) -> None:
    state, records = trained(tiny, plan, lr_schedule="cosine")
    assert of_kind(records, "step", "batch_size") == [16] * 10 + [32] * 20
    positions = [16 * step for step in range(10)] + [160 + 32 * step for step in range(20)]
    np.testing.assert_allclose(of_kind(records, "step", "epoch"), np.asarray(positions) / DIGITS, rtol=1e-6)
    assert of_kind(records, "epoch", "epoch") == [1, 2]
    assert of_kind(records, "epoch", "step") == [21, 30]
    assert of_kind(records, "epoch", "batch_size") == [32, 32]
    assert_same_state(state, trained(tiny, WITHIN_AN_EPOCH[0], lr_schedule="cosine")[0])


def test_a_rate_over_epochs_ends_with_the_plan(tiny: str) -> None:
    _, records = trained(tiny, "updates:10x16,20x32", lr_schedule="linear")
    rates = of_kind(records, "step", "learning_rate")
    left = 0.99 * 32 / 800  # the decay from 1 to 0.01 over the 800 examples of the run, before the last update
    assert rates[-1] == pytest.approx(0.1 * (0.01 + left), rel=1e-5)


def test_a_run_that_ends_within_its_first_epoch(tiny: str) -> None:
    _, records = trained(tiny, "0.5x64")
    assert of_kind(records, "step", "batch_size") == [64] * 4
    assert of_kind(records, "epoch", "step") == [4]


@pytest.mark.parametrize("step", [7, 10, 15, 21, 25])
def test_a_run_resumes_within_an_epoch_with_two_batch_sizes(tiny: str, tmp_path: Path, step: int) -> None:
    config = Config.from_settings(model=tiny, method="sam", batch_plan="updates:10x16,20x32", lr_schedule="cosine")
    stopped(tmp_path / "run", config, step)
    execute(tmp_path / "run", config)
    execute(tmp_path / "whole", config)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_a_finished_run_records_its_epochs_and_examples(tiny: str, tmp_path: Path) -> None:
    config = Config.from_settings(model=tiny, method="sam", batch_plan="updates:10x16,20x32")
    execute(tmp_path / "run", config)
    [found] = find_runs([tmp_path])
    assert (found.epochs, found.result.updates, table_of([found])["examples"][0]) == (2, 30, 800)
    assert len(list(read(tmp_path / "run" / "metrics.jsonl", "step"))) == 30
    estimate = dry_run.estimate(config, DIGITS)
    assert (estimate.updates, estimate.examples, estimate.boundaries) == (30, 800, (10,))


def test_a_report_compares_runs_of_all_units(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, plan in enumerate(["updates:3x16,2x32", "examples:100x16,64x32", "0.25x16,0.5x32", "1x16"]):
        execute(tmp_path / str(number), Config.from_settings(model=tiny, method="sam", batch_plan=plan))
    publish(find_runs([tmp_path]), make_folder(tmp_path / "report"), Console(width=200))
    assert "updates:3x16,2x32" in capsys.readouterr().out
    assert "examples:100x16,64x32" in (tmp_path / "report" / "report.md").read_text()


@pytest.mark.parametrize("plan", ["updates:5x1024", "examples:100x16,4x16,16x16"])
def test_a_plan_that_does_not_fit_the_data_is_refused(plan: str) -> None:
    with pytest.raises(ValueError, match=rf"plan {plan}.*(larger than the data|has no update)"):
        run.load(Config.from_settings(batch_plan=plan))


def test_the_micro_batches_of_a_growing_batch_follow_the_plan(tiny: str) -> None:
    _, records = trained(tiny, "updates:10x16,20x32", micro_batch=16)
    assert of_kind(records, "step", "batch_size") == [16] * 10 + [32] * 20


def test_a_warm_up_longer_than_the_plan_is_refused() -> None:
    with pytest.raises(ValueError, match=r"warmup_epochs is 1.0 of 0\.3125 epochs"):
        Config.from_settings(batch_plan="updates:10x16", warmup_epochs=1.0)


def test_the_length_of_a_run_counts_an_incomplete_epoch_in_part() -> None:
    config = Config.from_settings(batch_plan="updates:40x16")
    assert (config.epoch_size, config.length(DIGITS)) == (DIGITS, 1.25)
