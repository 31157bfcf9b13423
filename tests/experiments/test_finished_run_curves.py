"""Measurements during training, and the lines that show them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from experiments.cli import drawing
from experiments.report.curve_pictures import size_ticks
from experiments.report.groups import Group
from experiments.runner.run_curves import Curves, curves_of, mean_curves
from tests.experiments.written_runs import ERRORS, only_study, write_run, write_study


def curves_of_group(group: Group) -> Curves:
    return mean_curves(curves_of(run.folder) for run in group.recorded())


def test_curves_are_means_of_epochs_and_seeds(tmp_path: Path) -> None:
    groups = {group.name: group for group in only_study(write_study(tmp_path)).groups}
    curves = curves_of_group(groups["GSAM, increasing"])
    np.testing.assert_array_equal(curves["grad_norm"].step, [8, 16, 18, 20])
    np.testing.assert_array_equal(curves["grad_norm"].epoch, [1, 2, 3, 4])
    np.testing.assert_allclose(curves["grad_norm"].values, [4.5, 12.5, 17.5, 19.5])
    np.testing.assert_allclose(curves["test_error"].values, 4 * [100 * np.mean(ERRORS["gsam", "increasing"])])
    assert "cosine" not in curves_of_group(groups["SGD, increasing"])


def test_curves_of_settings_are_step_functions_up_to_the_end(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 0.1, method="sgd", batch_plan="1x128,2x256", lr_schedule="linear")
    (group,) = only_study(tmp_path).groups
    curves = curves_of_group(group)
    np.testing.assert_array_equal(curves["batch_size"].values, [128, 128, 128, 128, 256, 256, 256, 256, 256])
    np.testing.assert_array_equal(curves["batch_size"].step, [0, 1, 2, 3, 4, 5, 6, 7, 8])
    np.testing.assert_allclose(curves["learning_rate"].epoch, [0, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3])
    falling = [0.1, 0.0975, 0.095, 0.0925, 0.09, 0.085, 0.08, 0.075, 0.075]
    np.testing.assert_allclose(curves["learning_rate"].values, falling)


def test_long_curves_are_thinned_but_keep_the_first_step_of_each_epoch(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 0.1, method="sgd", batch_plan="3x1,1x2")
    (group,) = only_study(tmp_path).groups
    curve = curves_of_group(group)["batch_size"]
    assert len(curve.step) < 300
    assert {0, 512, 1024, 1536, 1792} <= set(curve.step)
    np.testing.assert_array_equal(curve.values, np.where(curve.step < 1536, 1, 2))


def test_a_diverged_run_ends_the_curve_of_its_group(tmp_path: Path) -> None:
    write_run(tmp_path / "fine", 0.1, method="sgd", batch_plan="4x128")
    write_run(tmp_path / "not", 0.9, loss=None, method="sgd", batch_plan="4x128", seed=1)
    (group,) = only_study(tmp_path).groups
    assert np.isnan(curves_of_group(group)["train_loss"].values).all()


def test_a_curve_shows_the_spread_over_the_seeds(tmp_path: Path) -> None:
    groups = {group.name: group for group in only_study(write_study(tmp_path)).groups}
    curve = curves_of_group(groups["GSAM, increasing"])["test_error"]
    np.testing.assert_allclose(curve.spread, np.std(100 * np.asarray(ERRORS["gsam", "increasing"]), ddof=1))


def lightness(colour: str) -> float:
    """The lightness L* of a colour."""
    parts = np.asarray(to_rgb(colour))
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16


@pytest.mark.parametrize("count", range(2, 9))
def test_strategies_have_different_lightness(count: int) -> None:
    steps = np.diff([lightness(colour) for colour in drawing.shades(count)])
    assert len(steps) == count - 1
    assert steps.min() > 7


def test_any_number_of_strategies_and_methods_has_distinct_styles() -> None:
    lines = {tuple(map(str, drawing.line_style(index, 40).values())) for index in range(40)}
    assert len(lines) == 40
    assert len({tuple(drawing.marker_style(index).items()) for index in range(16)}) == 16


@pytest.mark.parametrize(
    ("sizes", "ticks"),
    [([16, 32, 256, np.nan, 32], [16, 32, 256]), (np.linspace(16, 256, 20), [16, 32, 64, 128, 256])],
    ids=["of plans", "means over seeds"],
)
def test_ticks_are_at_the_batch_sizes_or_at_doublings_if_there_are_many(sizes: Any, ticks: list[int]) -> None:
    np.testing.assert_array_equal(size_ticks(np.asarray(sizes)), ticks)
