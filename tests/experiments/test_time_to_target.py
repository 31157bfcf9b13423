"""The cost of a run until its test accuracy or its gradient norm reaches a target."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments import train
from experiments.config import Config
from experiments.convergence.document import target_tables
from experiments.convergence.network_study import NetworkStudy, TimesToTarget, execute, times_to_targets
from experiments.runner import run
from experiments.runner.time_to_target import Cost, Target, cost_to, target_rows
from experiments.training.writers import Record, read

ERRORS = [0.9, 0.4, 0.5, 0.05, None]
RECORDS: list[Record] = [
    {
        "epoch": e,
        "step": 10 * e,
        "examples": 160 * e,
        "gradient_evaluations": 20 * e,
        "test_error": x,
        "grad_norm": 4 / e,
    }
    for e, x in enumerate(ERRORS, start=1)
]


@pytest.mark.parametrize(
    ("quantity", "value", "epoch"),
    [
        ("test_accuracy", 0.1, 1),
        ("test_accuracy", 0.6, 2),
        ("test_accuracy", 0.61, 4),
        ("test_accuracy", 0.96, None),
        ("grad_norm", 4.0, 1),
        ("grad_norm", 1.9, 3),
        ("grad_norm", 0.1, None),
    ],
)
def test_the_cost_is_that_of_the_first_epoch_that_reaches_the_target(
    quantity: Any, value: float, epoch: int | None
) -> None:
    expected = None if epoch is None else Cost(epoch, 10 * epoch, 160 * epoch, 20 * epoch)
    assert cost_to(RECORDS, Target(quantity, value)) == expected


def test_the_records_of_earlier_versions_have_no_examples() -> None:
    record = {"epoch": 1, "step": 10, "test_error": 0.2}
    assert cost_to([record], Target("test_accuracy", 0.5)) == Cost(1, 10, None, None)


@pytest.mark.parametrize(
    ("method", "plan", "gradients"), [("sgd", "1x16,1x32", 1), ("sam", "updates:10x16,20x32", 2), ("sam", "3x100", 2)]
)
def test_the_epochs_of_a_run_have_their_examples(tiny: str, method: str, plan: str, gradients: int) -> None:
    config = Config.from_settings(model=tiny, method=method, batch_plan=plan)
    records: list[Record] = []
    run.train(config, run.load(config), write=records.append)
    sizes = [record["batch_size"] for record in records if record["kind"] == "step"]
    for record in records:
        if record["kind"] == "epoch":
            assert record["examples"] == sum(sizes[: record["step"]])
            assert record["gradient_evaluations"] == gradients * record["step"]


def test_the_program_writes_the_cost_of_each_target(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", tiny, "--batch-plan", "3x16", "--output", str(tmp_path / "run"), "--targets", "0.2", "1.0"]
    monkeypatch.setattr(sys, "argv", ["train", *words])
    train.main()
    epochs = list(read(tmp_path / "run" / "metrics.jsonl", "epoch"))
    found = json.loads((tmp_path / "run" / "targets.json").read_text())
    cost = cost_to(epochs, Target("test_accuracy", 0.2))
    assert cost is not None
    assert found == [
        {"quantity": "test_accuracy", "value": 0.2, **vars(cost)},
        {"quantity": "test_accuracy", "value": 1.0, **dict.fromkeys(vars(cost))},
    ]
    assert f"{cost.examples:,}" in capsys.readouterr().out


def test_a_target_that_is_not_reached_has_dashes() -> None:
    rows = target_rows([(Target("test_accuracy", 0.9), None), (Target("test_accuracy", 0.5), Cost(1, 10, 1600, 20))])
    assert rows[1:] == [("90%", "–", "–", "–", "–"), ("50%", "1", "10", "1,600", "20")]


@pytest.mark.parametrize(
    ("targets", "message"), [((90.0,), "give accuracies as fractions"), ((0.9, 0.9), "each value")]
)
def test_impossible_accuracies_are_refused(tmp_path: Path, targets: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"accuracy_targets.*{message}"):
        NetworkStudy(output=tmp_path, accuracy_targets=targets)


def test_the_convergence_study_counts_until_accuracies_and_norms(tiny: str, tmp_path: Path) -> None:
    study = NetworkStudy.from_settings(
        output=tmp_path,
        model=tiny,
        methods=("sam",),
        strategies=("increasing",),
        seeds=(0, 1),
        increasing_plan="2x64,1x128",
        accuracy_targets=(0.05, 1.0),
        norm_targets=(1e9, 0.0),
    )
    specs = study.run_specs()
    for spec in specs:
        execute(spec, study, run.load(spec.config))
    reached = Cost(1, 8, 512, 16)
    assert [each.costs for each in times_to_targets(specs, study)] == [[reached] * 2, [None] * 2] * 2


def test_a_table_has_the_means_over_the_runs_that_reach_the_target() -> None:
    target = Target("test_accuracy", 0.9)
    costs = [Cost(1, 10, 1600, 20), Cost(3, 30, 4800, 60), None]
    [(caption, rows)] = target_tables({("sam", "constant"): [TimesToTarget(target, costs)]})
    assert "at least 90.0%" in caption
    assert rows[1] == ("SAM", "constant", "2 of 3", "2", "3,200", "20", "40")
