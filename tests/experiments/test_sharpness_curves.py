"""The curves and landscapes of sharpness in a report, from known records."""

from pathlib import Path

import numpy as np
import pytest

from experiments.report import curve_pictures
from experiments.runner.finished_runs import find_runs
from experiments.sharpness import run_records
from tests.experiments.conftest import blank_or_drawn
from tests.experiments.sharpness_records import (
    LARGE,
    SMALL,
    VALUES,
    WAY,
    add_lines,
    decoded,
    measured_study,
    published,
    worst_case,
)
from tests.experiments.written_runs import only_study, write_run


@pytest.mark.usefixtures("drawn_pictures")
def test_measurements_during_training_make_a_curve_of_one_protocol(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", 0.05, method="sgd", batch_plan="4x128")
    records = [worst_case(rho, rho * epoch, epoch) for epoch in (4, 2) for rho in (LARGE, SMALL)]
    later = [worst_case(SMALL, 9.0, 4, adaptive=True), worst_case(1e-5, 9.0, 4)]
    add_lines(folder, [*records, *later])
    [run] = find_runs([tmp_path])
    way, rho = run_records.most_followed([run])
    curve = run_records.followed(run, way, rho)
    assert (way.title, rho) == ("512 examples", SMALL)
    assert list(curve.epoch) == [2, 4]
    assert list(curve.step) == [8, 16]
    assert curve.values == pytest.approx([2 * SMALL, 4 * SMALL])
    text = published(tmp_path)[1]
    assert "## Sharpness over epochs" in text
    assert "The worst case at ρ 0.0002, 512 examples." in text
    assert run_records.most_followed([run._replace(sharpness=decoded(records[:2] + later))]) is None


def test_the_curve_over_radii_is_the_mean_over_the_seeds(tmp_path: Path) -> None:
    measured_study(tmp_path)
    rho = np.geomspace(1e-4, 1e-2, 5)
    for name in ("sgd-constant", "gsam-constant"):
        for seed in range(3):
            values = {"rho": rho.tolist(), "sharpness": ((seed + 1) * rho**2).tolist(), "slope": [2.0] * 5}
            values |= {"first_order": rho.tolist(), "error": [0.1 * seed] * 5}
            record = {"kind": "curve", "epoch": 4, "step": 16, "loss": 0.1, **WAY, **values}
            add_lines(tmp_path / f"{name}-{seed}", [record])
    study = only_study(tmp_path)
    curves = {group.name: run_records.radius_curves(group.recorded()) for group in study.groups}
    assert [name for name, found in curves.items() if found] == ["SGD, constant", "GSAM, constant"]
    ((way, curve),) = curves["SGD, constant"].items()
    assert way.title == "512 examples"
    assert curve.sharpness == pytest.approx(2 * rho**2)
    assert curve.slope == pytest.approx(2.0)
    assert curve.error == pytest.approx(0.1)
    text = published(tmp_path)[1]
    assert "Sharpness over radii" in text
    assert "2 of 4 groups are drawn: those of which all runs have a curve." in text


@blank_or_drawn
def test_the_landscapes_are_those_of_the_flattest_and_the_sharpest_run(tmp_path: Path, pictures: str) -> None:
    measured_study(tmp_path)
    diverged = write_run(tmp_path / "sam-constant-1", 0.9, loss=None, method="sam", batch_plan="4x128", seed=1)
    nothing = {"coordinates": [-1.0, 0.0, 1.0], "loss": [[None] * 3] * 3}
    add_lines(diverged, [worst_case(SMALL, None), {"kind": "landscape", "epoch": 4, "step": 16, **WAY, **nothing}])
    for name in VALUES:
        losses = [[None if (i, j) == (0, 0) else 1.0 + i + j for j in range(3)] for i in range(3)]
        record = {"kind": "landscape", "epoch": 4, "step": 16, "coordinates": [-1.0, 0.0, 1.0], "loss": losses, **WAY}
        add_lines(tmp_path / f"{name}-1", [record])
    landscapes = curve_pictures.two_landscapes(only_study(tmp_path))
    assert list(landscapes) == ["GSAM, increasing, seed 1", "SGD, constant, seed 1"]
    assert np.isnan(landscapes["SGD, constant, seed 1"].loss[0, 0])
    text = published(tmp_path)[1]
    assert "### Loss landscapes" in text
    assert (tmp_path / "report" / "pictures" / "small_resnet-on-digits" / "loss-landscapes.png").is_file()
