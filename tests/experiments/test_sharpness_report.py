"""What a report says of sharpness, from records that are known."""

import json
from pathlib import Path

import pytest

from experiments.cli.tables import Rows
from experiments.report import loss_pictures, protocols, sharpness
from experiments.report.error_table import error_rows
from experiments.report.groups import Study
from experiments.report.matches import tables
from experiments.report.method_table import method_rows
from experiments.runner.finished_runs import find_runs
from experiments.sharpness.protocol import SharpnessProtocol
from tests.experiments.sharpness_records import LARGE, SMALL, WAY, add_lines, measured_study, published, worst_case
from tests.experiments.written_runs import only_study, write_run, write_study


def only_way(study: Study) -> tuple[SharpnessProtocol, list[float]]:
    [found] = sharpness.protocols_of(study).items()
    return found


def only_table(study: Study) -> Rows:
    (match,) = tables(study)
    return error_rows(match, study)


def test_the_papers_table_has_error_and_sharpness_in_a_cell(tmp_path: Path) -> None:
    rows = only_table(measured_study(tmp_path))
    assert rows[0] == ("test error, % / sharpness, ρ 0.0002", "constant", "increasing (+B)")
    assert rows[1] == ("SGD", "5.50 ± 0.50 / 0.44", "4.50 ± 0.56 / 0.11")
    assert rows[2] == ("GSAM", "5.40 ± 0.62 / 0.33", "2.57 ± 0.55 / 0.055")


def test_both_radii_stand_beside_the_loss_and_the_first_order(tmp_path: Path) -> None:
    study = measured_study(tmp_path)
    rows = sharpness.radius_rows(study, *only_way(study))
    assert rows[0][0] == "group (512 examples)"
    assert rows[0][2::2] == ("sharpness, ρ 0.0002", "sharpness, ρ 0.0024")
    assert rows[1] == ("SGD, constant", "0.25 ± 0", "0.44 ± 0.04", "50", "9.9 ± 0.9", "50")


def test_where_the_radii_order_groups_differently_it_is_said(tmp_path: Path) -> None:
    study = measured_study(tmp_path)
    words = sharpness.orderings(study, *only_way(study))
    assert "orders 1 of 6 pairs of groups differently" in words
    assert "SGD, constant is sharper than GSAM, constant at ρ 0.0002, and flatter at ρ 0.0024" in words


def test_where_they_agree_it_is_said_too(tmp_path: Path) -> None:
    study = measured_study(tmp_path)
    for seed in range(3):
        add_lines(tmp_path / f"gsam-constant-{seed}", [worst_case(LARGE, 9.5)])
    study = only_study(tmp_path)
    assert "orders all 6 pairs of groups alike" in sharpness.orderings(study, *only_way(study))


def test_a_group_counts_only_where_all_its_runs_were_measured_alike(tmp_path: Path) -> None:
    measured_study(tmp_path)
    (tmp_path / "sgd-constant-1" / "sharpness.jsonl").unlink()
    add_lines(tmp_path / "gsam-constant-2", [worst_case(SMALL, None)])
    study = only_study(tmp_path)
    rows = only_table(study)
    assert rows[1][1:] == ("5.50 ± 0.50 / –", "4.50 ± 0.56 / 0.11")
    assert rows[2][1] == "5.40 ± 0.62 / –"


def test_the_way_nearest_the_papers_is_the_one_to_look_at(tmp_path: Path) -> None:
    measured_study(tmp_path)
    ways = [
        {"adaptive": True},
        {"norm": "l2", "normalize_logits": True},
        {"steps": 2, "examples": 64},
        {"examples": 64},
    ]
    for folder in tmp_path.iterdir():
        records = [worst_case(rho, 1.0, **way) for way in ways for rho in (1e-5, SMALL, LARGE)]
        add_lines(folder, records)
    study = only_study(tmp_path)
    titles = [way.title for way in sharpness.protocols_of(study)]
    assert titles[:2] == ["512 examples", "64 examples"]
    assert set(titles[2:]) == {
        "adaptive, 512 examples",
        "ℓ2, normalised logits, 512 examples",
        "2 steps, 64 examples",
    }
    for text in published(tmp_path):
        assert "5.40 ± 0.62 / 0.33" in text
        assert "At ρ 0.0002 and at ρ 0.0024 the mean sharpness orders 1 of 6" in text


def test_radii_that_agree_to_three_digits_are_one(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", 0.05, method="sgd")
    add_lines(folder, [worst_case(0.0002, 1.0, 25), worst_case(0.00020002, 1.1, 25)])
    [(_, radii)] = protocols.common(find_runs([tmp_path])).items()
    assert radii == [0.0002]


def test_a_run_is_a_point_of_loss_and_of_each_measure(tmp_path: Path) -> None:
    measured_study(tmp_path)
    eigenvalue = {"kind": "top_eigenvalue", "epoch": 4, "step": 16, **WAY, "eigenvalue": 7.0}
    for seed in range(3):
        add_lines(tmp_path / f"sgd-increasing-{seed}", [eigenvalue, worst_case(SMALL, 0.2, adaptive=True)])
    write_run(tmp_path / "control", 0.05, method="sgd", batch_plan="4x64")
    add_lines(tmp_path / "control", [worst_case(SMALL, 0.2)])
    measures = loss_pictures.measures_of(only_study(tmp_path))
    assert list(measures) == [
        "worst case, ρ 0.0002",
        "worst case, ρ 0.0024",
        "top eigenvalue of the Hessian",
        "adaptive, worst case, ρ 0.0002",
    ]
    assert {kind: len(points) for kind, points in measures["worst case, ρ 0.0002"].items()} == {
        "constant": 7,  # of both sizes
        "increasing (+B)": 6,
    }
    assert measures["top eigenvalue of the Hessian"] == {"increasing (+B)": 3 * [(0.25, 7.0)]}
    assert "## Sharpness against training loss" in published(tmp_path)[1]


def test_loss_and_measure_are_of_the_same_examples(tmp_path: Path) -> None:
    measured_study(tmp_path)
    fewer = worst_case(SMALL, 0.7, examples=64) | {"loss": 0.9}
    eigenvalue = {"kind": "top_eigenvalue", "epoch": 4, "step": 16, **WAY, "examples": 64, "eigenvalue": 7.0}
    alone = {**eigenvalue, "examples": 32}
    for seed in range(3):
        add_lines(tmp_path / f"sgd-constant-{seed}", [fewer, eigenvalue])
        add_lines(tmp_path / f"gsam-constant-{seed}", [alone])
    measures = loss_pictures.measures_of(only_study(tmp_path))
    assert measures["worst case, ρ 0.0002, 64 examples"] == {"constant": 3 * [(0.9, 0.7)]}
    assert len(measures["worst case, ρ 0.0002, 512 examples"]["constant"]) == 6
    assert measures["top eigenvalue of the Hessian"] == {"constant": 3 * [(0.9, 7.0)]}


def test_the_report_has_it_in_every_form_and_without_it_nothing(tmp_path: Path) -> None:
    measured_study(tmp_path / "with")
    write_study(tmp_path / "without")
    for text in published(tmp_path / "with"):
        assert "5.40 ± 0.62 / 0.33" in text
        assert "77,754 parameters the corner of the ℓ∞ ball of radius 0.0002 is 0.056 away" in text
    page = (tmp_path / "with" / "report" / "report.html").read_text(encoding="utf-8")
    assert "5.40 ± 0.62 / 0.33" in page
    for text in published(tmp_path / "without"):
        assert "harpness" not in text


def test_what_is_measured_of_either_of_two_equal_runs_is_measured_of_it(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_run(tmp_path / name, 0.05, method="sgd", batch_plan="4x128")
    add_lines(tmp_path / "second", [worst_case(SMALL, 1.0)])
    [run] = find_runs([tmp_path / "first", tmp_path / "second"])
    assert [record.line()["sharpness"] for record in run.sharpness] == [1.0]


def test_a_file_of_another_version_is_named_and_not_the_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", 0.05, method="sgd", batch_plan="4x128")
    for record in ({"kind": "worst_case", "epoch": 4}, {"kind": "flatness"}, ["worst_case"]):
        (folder / "sharpness.jsonl").write_text(json.dumps(record))
        with pytest.raises(ValueError, match=r"sharpness\.jsonl is damaged, or was made by another version"):
            find_runs([tmp_path])


def test_the_table_of_methods_has_it_where_all_runs_do(tmp_path: Path) -> None:
    measured_study(tmp_path)
    runs = [run for run in find_runs([tmp_path]) if "constant" in run.folder.name]
    rows = method_rows(runs, {"sgd": [1.0], "gsam": [2.0]})
    assert rows[0][3:5] == ("sharpness, ρ 0.0002", "sharpness, ρ 0.0024")
    assert rows[1][3:5] == ("0.44 ± 0.04", "9.9 ± 0.9")
    (tmp_path / "gsam-constant-0" / "sharpness.jsonl").unlink()
    runs = [run for run in find_runs([tmp_path]) if "constant" in run.folder.name]
    assert len(method_rows(runs, {"sgd": [1.0], "gsam": [2.0]})[0]) == 5
