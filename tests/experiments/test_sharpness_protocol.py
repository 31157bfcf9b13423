"""The table of measured values shows each kind of record with its value, radius and deviations from the defaults."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experiments.cli.tables import without_empty_columns
from experiments.sharpness.protocol import measured_rows
from experiments.training import records

COMMON = {
    "parameters": 650,
    "step": 8,
    "epoch": 2,
    "examples": 64,
    "measured_batch_size": 128,
    "normalize_logits": False,
    "reestimate_batchnorm": False,
}
BALL = {"norm": "linf", "adaptive": False, "steps": 20, "restarts": 1, "loss": 0.1}


def run_with(*found: records.SharpnessRecord) -> Any:
    return SimpleNamespace(folder=Path("study/run"), epochs=2, sharpness=list(found))


@pytest.mark.parametrize(
    ("record", "row"),
    [
        (
            records.WorstCase(**COMMON, **BALL, rho=0.0002, sharpness=0.25, first_order=None),
            ("worst case", "0.0002", "", "0.25 (first order not finite)"),
        ),
        (
            records.WorstCaseCurve(
                **COMMON,
                **{**BALL, "norm": "l2", "steps": 5},
                rho=[0.1, 1.0],
                sharpness=[0.5, None],
                first_order=[0.1, 0.2],
                slope=[1.0, 1.0],
                error=[0.1, 0.2],
            ),
            ("curve", "–", "ℓ2, 5 steps", "0.5 to 0.5, at radii 0.1 to 1"),
        ),
        (
            records.AverageCase(
                **{**COMMON, "normalize_logits": True},
                rho=0.1,
                samples=4,
                norm="l2",
                adaptive=True,
                sharpness=0.3,
                standard_error=0.01,
                loss=0.1,
            ),
            ("average case", "0.1", "ℓ2, adaptive, normalised logits", "0.3 ± 0.01"),
        ),
        (records.SurrogateGap(**COMMON, rho=0.05, gap=0.2, loss=0.1), ("surrogate gap", "0.05", "", "0.2")),
        (records.TopEigenvalue(**COMMON, eigenvalue=None), ("top eigenvalue", "–", "", "not finite")),
        (records.Trace(**COMMON, samples=3, value=12.0, standard_error=0.5), ("trace", "–", "", "12 ± 0.5")),
        (
            records.Landscape(**COMMON, coordinates=[0.0, 1.0], loss=[[0.1, 0.2], [None, 3.0]]),
            ("landscape", "–", "", "loss 0.1 to 3"),
        ),
    ],
    ids=lambda value: value.kind if isinstance(value, records.SharpnessRecord) else "",
)
def test_each_kind_of_record_is_a_row(record: records.SharpnessRecord, row: tuple[str, ...]) -> None:
    heading, found = measured_rows([run_with(record)], [record.kind])
    assert len(heading) == len(found)
    assert found == ("run", *row)


def test_records_of_other_epochs_and_kinds_are_not_shown() -> None:
    gap = records.SurrogateGap(**{**COMMON, "epoch": 1}, rho=0.05, gap=0.2, loss=0.1)
    assert len(measured_rows([run_with(gap)], ["surrogate_gap"])) == 1
    assert len(measured_rows([run_with(gap)], ["trace"])) == 1


def test_an_empty_column_is_not_printed() -> None:
    rows = [("run", "radius", "settings"), ("sam-0", "–", ""), ("sam-1", "0.1", "")]
    assert without_empty_columns(rows) == [("run", "radius"), ("sam-0", "–"), ("sam-1", "0.1")]
    assert without_empty_columns(rows[:1]) == rows[:1]
