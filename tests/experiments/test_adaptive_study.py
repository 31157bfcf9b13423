"""Adaptive plans in a study, together with fixed plans and controls, and in its report."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from experiments.convergence.network_study import NetworkStudy
from experiments.report.answers import columns_of
from experiments.report.claims import Claim, Kind, claims
from experiments.report.curve_pictures import main_pictures
from experiments.report.matches import all_matches, papers_groups, shown_matches
from experiments.report.paired import measures_of
from experiments.report.study_tables import error_table, followed_table, setting_table
from experiments.report.summary import limits, sentences
from experiments.runner.run_curves import Curve, curves_of, mean_curves
from experiments.study import Grid
from experiments.study.dry_run import estimate, show_runs
from experiments.study.strategies import NAMES
from tests.experiments.conftest import blank_or_drawn
from tests.experiments.written_runs import only_study, write_run

ADAPTIVE = "adaptive:4x64..256:noise_scale"
FIXED = {"constant": "4x128", "first": "4x64", "last": "4x256", "increasing": "2x64,2x256"}
CAME_OUT = ("1x64,3x256", "1x64,3x256", "3x64,1x256")


def grid(**settings: Any) -> Grid:
    return Grid.from_settings(
        output=Path("study"), **{"seeds": (0,), "methods": ("sgd", "sam"), "micro_batch": 8, **settings}
    )


def write(
    folder: Path, adaptive: str = ADAPTIVE, fixed: dict[str, str] = FIXED, plans: tuple[str, ...] = CAME_OUT
) -> Path:
    """A study of three seeds, in which the adaptive plan does best."""
    for seed, came_out in enumerate(plans):
        shared: dict[str, Any] = {"method": "sgd", "micro_batch": 16, "seed": seed}
        error = 0.02 + 0.001 * seed**2
        write_run(folder / f"adaptive-{seed}", error, came_out=came_out, batch_plan=adaptive, **shared)
        for number, (name, plan) in enumerate(fixed.items(), start=1):
            own = error + 0.01 * number + 0.0001 * number * seed
            write_run(folder / f"{name}-{seed}", own, batch_plan=plan, **shared)
    return folder


def of_kind(kind: Kind, folder: Path) -> list[Claim]:
    return [claim for claim in claims(only_study(folder)) if claim.kind == kind]


def printed_text(folder: Path) -> str:
    study = only_study(folder)
    found = claims(study)
    columns = columns_of(found)
    return " ".join([*sentences(study, columns, measures_of(study)), *limits(study, found, columns, is_planned=False)])


def test_matches_treat_adaptive_plans_like_fixed_plans() -> None:
    specs = grid(
        match=("epochs", "updates", "gradients"),
        strategies=NAMES,
        adaptive_rule="norm_test:0.5",
        tuned_rates=(("sgd", 0.1),),
    ).run_specs()
    plans = {spec.folder.name: spec.config.batch_plan for spec in specs if "adaptive" in spec.folder.name}
    assert plans == {
        "sgd-adaptive-0": "adaptive:25x16..256:norm_test:0.5",
        "sam-adaptive-0": "adaptive:25x16..256:norm_test:0.5",
        "sgd-adaptive-equal_updates-0": "adaptive:310ux16..256:norm_test:0.5",
        "sam-adaptive-equal_updates-0": "adaptive:310ux16..256:norm_test:0.5",
        "sgd-adaptive-equal_gradients-0": "adaptive:620ux16..256:norm_test:0.5",
    }
    assert {spec.config.descent.micro_batch for spec in specs} == {8}
    assert {spec.config.batch_plan for spec in specs if "constant_mean-0" in spec.folder.name} == {"25x40"}


def test_the_estimate_of_an_adaptive_plan_assumes_a_constant_batch() -> None:
    specs = {spec.folder.name: spec.config for spec in grid(strategies=("adaptive",), methods=("sam",)).run_specs()}
    assert estimate(specs["sam-adaptive-0"], 512)[:3] == (25 * 32, 25 * 512, ())


def test_the_dry_run_of_an_adaptive_plan_says_what_is_not_known_yet() -> None:
    specs, printed = grid(strategies=("increasing", "adaptive"), methods=("sam",)).run_specs(), io.StringIO()
    show_runs(specs, 512, Path("study"), Console(file=printed))
    planned, adaptive = (line for line in printed.getvalue().splitlines() if "sam-" in line)
    assert "decided by the noise" in adaptive
    assert "decided by the noise" not in planned
    assert "counted as if their batch never grew" in " ".join(printed.getvalue().split())
    printed.truncate(0)
    show_runs(specs[:1], 512, Path("study"), Console(file=printed))
    assert "never grew" not in printed.getvalue()


@pytest.mark.parametrize(
    ("settings", "refusal"),
    [
        ({"micro_batch": None}, "micro_batch is None, and adaptive is one of the strategies"),
        ({"micro_batch": 16}, "a value below 16"),
        ({"adaptive_rule": "noise"}, "batch_plan is 'adaptive:25x16..256:noise'"),
        ({"increasing_plan": "5x256,5x16"}, "maximum is 16, below initial, 256"),
    ],
)
def test_impossible_adaptive_studies_are_refused(settings: dict[str, Any], refusal: str) -> None:
    with pytest.raises(ValueError, match=refusal):
        grid(strategies=("adaptive",), **settings)


def test_the_convergence_study_refuses_adaptive_plans() -> None:
    with pytest.raises(ValueError, match="strategies has 'adaptive'"):
        NetworkStudy.from_settings(output=Path("study"), strategies=("adaptive",), micro_batch=8)


def test_the_report_shows_the_recorded_plans_next_to_the_requested_ones(tmp_path: Path) -> None:
    study = only_study(write(tmp_path))
    assert followed_table(study).rows[1:] == [("SGD", ADAPTIVE, "1x64,3x256 (seeds 0, 1); 3x64,1x256 (seed 2)")]
    (group,) = [each for each in study.groups if each.column == "adaptive"]
    assert (group.epochs, group.mean("updates"), group.mean("examples")) == (4, round((14 + 14 + 26) / 3), 2048)
    assert study.columns == ["constant 64", "constant 128", "constant 256", "increasing", "adaptive"]
    assert group in all_matches(study)[0].groups
    rows = error_table(shown_matches(study)[0], study).rows
    assert rows[0][-1] == "adaptive"
    assert rows[-1][-1] == "18"
    assert any(ADAPTIVE in row[1] for row in setting_table(study).rows)
    titles = [picture.title for picture in main_pictures(study, tmp_path)]
    assert titles == ["Test error over epochs", "Noise scale and batch size over epochs"]


def test_two_rules_are_two_columns(tmp_path: Path) -> None:
    write(tmp_path)
    other = "adaptive:4x64..256:noise_scale:0.5"
    write_run(tmp_path / "other", 0.03, method="sgd", micro_batch=16, batch_plan=other, came_out="4x64")
    named = {group.column for group in only_study(tmp_path).groups}
    assert {"adaptive, 64..256:noise_scale", "adaptive, 64..256:noise_scale:0.5"} <= named


def test_it_is_compared_with_the_best_constant_batch_and_the_increasing_plan(tmp_path: Path) -> None:
    write(tmp_path)
    increasing, adaptive = of_kind(Kind.BEST, tmp_path)
    assert (increasing.group.column, adaptive.group.column) == ("increasing", "adaptive")
    assert adaptive.candidates == 3
    (decided,) = of_kind(Kind.PLAN, tmp_path)
    assert (decided.group.column, decided.baselines[0].column) == ("adaptive", "increasing")
    assert [claim.group.column for claim in of_kind(Kind.GROWTH, tmp_path)] == ["increasing"]  # the paper's claim
    text = printed_text(tmp_path)
    compared = "a batch that the noise decides on (adaptive) compared with the best of 3 constant batches"
    assert f"{compared}, at equal epochs: lower" in text
    headings = [column.heading() for column in columns_of(claims(only_study(tmp_path)))]
    assert headings[-2:] == ["adaptive − best constant batch", "adaptive − increasing (+B)"]


def test_no_comparison_without_a_constant_control_at_the_first_batch_size(tmp_path: Path) -> None:
    fixed = {name: plan for name, plan in FIXED.items() if name != "first"}
    text = printed_text(write(tmp_path, fixed=fixed))
    compared = (
        "a batch that the noise decides on (adaptive) compared with the best of 2 constant batches, at equal epochs"
    )
    assert f"{compared}: no answer (a control is missing)" in text


def test_batch_sizes_without_a_constant_control_are_named(tmp_path: Path) -> None:
    text = printed_text(write(tmp_path, "adaptive:4x64..512:noise_scale"))
    assert "At least one comparison lacks a constant batch of 96 or 512." in text


def test_an_adaptive_plan_with_the_sizes_of_the_increasing_plan_stays_a_group_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, fixed=FIXED | {"increasing": "2x64,1x128,1x256"})
    for kind in (Kind.GROWTH, Kind.PLAN):
        assert [each.column for claim in of_kind(kind, tmp_path) for each in claim.baselines].count("adaptive") == 0
    assert [claim.group.column for claim in of_kind(Kind.BEST, tmp_path)] == ["increasing", "adaptive"]


def test_mean_curves_of_seeds_with_different_plans_end_with_the_shortest(tmp_path: Path) -> None:
    study = only_study(write(tmp_path))
    (group,) = [each for each in study.groups if each.column == "adaptive"]
    mean = mean_curves(curves_of(run.folder) for run in group.recorded())
    np.testing.assert_allclose(mean["batch_size"].values, [64, 192, 192, 256, 256])
    assert np.isposinf(mean["noise_scale"].values[0]) or np.isnan(mean["noise_scale"].values[0])
    shorter = {
        name: Curve(curve.epoch[:2], curve.step[:2], curve.values[:2], curve.spread[:2])
        for name, curve in curves_of(group.recorded()[0].folder).items()
    }
    assert len(mean_curves([shorter, curves_of(group.recorded()[1].folder)])["train_loss"].values) == 2


def test_in_a_large_study_the_adaptive_plan_is_drawn_with_the_papers_cells(tmp_path: Path) -> None:
    write(
        tmp_path, fixed=FIXED | {f"other {size}": f"2x512,2x{size}" for size in (8, 16, 32, 48, 80, 96, 160, 192, 224)}
    )
    study = only_study(tmp_path)
    assert study.is_large
    assert {"increasing", "adaptive"} <= {group.column for group in papers_groups(study)}
    assert any("3 of 14 groups are drawn" in each.caption for each in main_pictures(study, tmp_path))


def test_a_run_without_its_recorded_plan_is_not_counted(tmp_path: Path) -> None:
    path = write(tmp_path) / "adaptive-1" / "result.json"
    path.write_text(json.dumps({name: x for name, x in json.loads(path.read_text()).items() if name != "batch_plan"}))
    with pytest.raises(
        ValueError, match="adaptive-1 holds a run that is damaged, or was made by another version: remove"
    ):
        only_study(tmp_path)


def test_a_group_with_an_update_budget_has_its_actual_length(tmp_path: Path) -> None:
    study = only_study(write(tmp_path, adaptive="adaptive:16ux64..256:noise_scale"))
    (group,) = [each for each in study.groups if each.column == "adaptive"]
    assert (group.epochs, group.mean("updates")) == (4, 18)
    assert main_pictures(study, tmp_path)


def test_the_cost_of_seeds_with_different_lengths_is_their_mean(tmp_path: Path) -> None:
    plans = ("1x64,5x256", "1x64,5x256", "2x64")  # of 6, 6 and 2 epochs
    study = only_study(write(tmp_path, "adaptive:16ux64..256:noise_scale", plans=plans))
    (group,) = [each for each in study.groups if each.column == "adaptive"]
    assert (group.epochs, group.mean("updates"), group.mean("examples")) == (5, 17, 2389)
    rows = [row for match in shown_matches(study) for row in error_table(match, study).rows if "examples" in row[0]]
    assert rows
    assert not any("3,072" in text for row in rows for text in row)


@pytest.mark.parametrize(
    "silent",
    [pytest.param({1}, marks=pytest.mark.long), pytest.param({3}, marks=pytest.mark.long), {1, 2, 3, 4}],
    ids=str,
)
@blank_or_drawn
def test_epochs_without_noise_measurements_leave_a_gap_in_the_curve(
    tmp_path: Path, silent: set[int], pictures: str
) -> None:
    """All steps of these epochs were skipped or were not finite."""
    write(tmp_path)
    path = tmp_path / "adaptive-1" / "metrics.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        if record["kind"] == "epoch" and record["epoch"] in silent:
            del record["noise_scale"]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    study = only_study(tmp_path)
    (group,) = [each for each in study.groups if each.column == "adaptive"]
    scale = curves_of(group.recorded()[1].folder)["noise_scale"].values
    assert {epoch for epoch, value in enumerate(scale, start=1) if np.isnan(value)} == silent | {1}
    assert "batch_size" in mean_curves(curves_of(run.folder) for run in group.recorded())
    assert main_pictures(study, tmp_path)
