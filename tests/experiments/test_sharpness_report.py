"""What a report shows about sharpness, from known records."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from experiments.report.groups import Study
from experiments.report.matches import shown_matches
from experiments.report.pictures import _measured_columns
from experiments.report.runs_table import read_table, table_of, write_table
from experiments.report.study_tables import error_table, sharpness_tables
from experiments.reproduce_methods import method_rows
from experiments.runner.finished_runs import find_runs
from experiments.sharpness.columns import protocols_of
from tests.experiments.sharpness_records import LARGE, SMALL, WAY, add_lines, measured_study, published, worst_case
from tests.experiments.written_runs import only_study, write_run, write_study


def rows_of(study: Study) -> list[tuple[str, ...]]:
    (match,) = shown_matches(study)
    return error_table(match, study).rows


def test_the_papers_table_has_error_and_sharpness_in_a_cell(tmp_path: Path) -> None:
    rows = rows_of(measured_study(tmp_path))
    assert rows[0] == ("test error, % / sharpness", "constant", "increasing (+B)")
    assert rows[1] == ("SGD", "5.50 ± 0.50 / 0.44", "4.50 ± 0.56 / 0.11")
    assert rows[2] == ("GSAM", "5.40 ± 0.62 / 0.33", "2.57 ± 0.55 / 0.055")


def test_both_radii_are_shown_with_loss_and_first_order_part(tmp_path: Path) -> None:
    (table,) = sharpness_tables(measured_study(tmp_path))
    assert table.title == "Sharpness, 512 examples"
    assert table.rows[0][2::2] == ("sharpness, ρ 0.0002", "sharpness, ρ 0.0024")
    assert table.rows[1] == ("SGD, constant", "0.25 ± 0", "0.44 ± 0.04", "0.5", "9.9 ± 0.9", "0.5")


def test_the_share_of_the_first_order_part_is_not_a_percentage(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", 0.05, method="sgd", batch_plan="4x128")
    add_lines(folder, [worst_case(SMALL, 1.0) | {"first_order": 1.06}])
    (table,) = sharpness_tables(only_study(tmp_path))
    assert table.rows[0][-1] == "first-order part ÷ sharpness"
    assert table.rows[1][-1] == "1.06"


def test_a_group_counts_only_where_all_its_runs_have_the_same_protocol(tmp_path: Path) -> None:
    measured_study(tmp_path)
    (tmp_path / "sgd-constant-1" / "sharpness.jsonl").unlink()
    add_lines(tmp_path / "gsam-constant-2", [worst_case(SMALL, None)])
    study = only_study(tmp_path)
    rows = rows_of(study)
    assert rows[1][1:] == ("5.50 ± 0.50 / –", "4.50 ± 0.56 / 0.11")
    assert rows[2][1] == "5.40 ± 0.62 / –"


def test_the_protocol_nearest_the_papers_is_shown_first(tmp_path: Path) -> None:
    measured_study(tmp_path)
    protocols = [
        {"adaptive": True},
        {"norm": "l2", "normalize_logits": True},
        {"steps": 2, "examples": 64},
        {"examples": 64},
    ]
    for folder in tmp_path.iterdir():
        records = [worst_case(rho, 1.0, **protocol) for protocol in protocols for rho in (1e-5, SMALL, LARGE)]
        add_lines(folder, records)
    study = only_study(tmp_path)
    titles = [protocol.title for protocol in protocols_of([group.runs for group in study.groups])]
    assert titles[:2] == ["512 examples", "64 examples"]
    assert set(titles[2:]) == {
        "adaptive, 512 examples",
        "ℓ2, normalised logits, 512 examples",
        "2 steps, 64 examples",
    }
    for text in published(tmp_path):
        assert "5.40 ± 0.62 / 0.33" in text


def test_radii_that_agree_to_three_digits_are_merged(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", 0.05, method="sgd")
    add_lines(folder, [worst_case(0.0002, 1.0, 25), worst_case(0.00020002, 1.1, 25)])
    [(_, radii)] = protocols_of([table_of(find_runs([tmp_path]))]).items()
    assert radii == [0.0002]


def test_each_run_is_a_point_of_loss_and_sharpness(tmp_path: Path) -> None:
    measured_study(tmp_path)
    eigenvalue = {"kind": "top_eigenvalue", "epoch": 4, "step": 16, **WAY, "eigenvalue": 7.0}
    for seed in range(3):
        add_lines(tmp_path / f"sgd-increasing-{seed}", [eigenvalue, worst_case(SMALL, 0.2, adaptive=True)])
    study = only_study(tmp_path)
    assert _measured_columns(study) == [
        ("sharpness at 0.0002, 512 examples", "loss, 512 examples"),
        ("sharpness at 0.0024, 512 examples", "loss, 512 examples"),
        ("top eigenvalue, 512 examples", "loss, 512 examples"),
        ("sharpness at 0.0002, adaptive, 512 examples", "loss, 512 examples"),
    ]
    group = next(group for group in study.groups if group.name == "SGD, increasing")
    assert list(group.values("top eigenvalue, 512 examples")) == [7.0] * 3
    assert "## Sharpness against training loss" in published(tmp_path)[1]


def test_loss_and_sharpness_are_of_the_same_examples(tmp_path: Path) -> None:
    measured_study(tmp_path)
    fewer = worst_case(SMALL, 0.7, examples=64) | {"loss": 0.9}
    eigenvalue = {"kind": "top_eigenvalue", "epoch": 4, "step": 16, **WAY, "examples": 64, "eigenvalue": 7.0}
    for seed in range(3):
        add_lines(tmp_path / f"sgd-constant-{seed}", [fewer, eigenvalue])
        add_lines(tmp_path / f"gsam-constant-{seed}", [{**eigenvalue, "examples": 32}])
    found = dict(_measured_columns(only_study(tmp_path)))
    assert found["top eigenvalue, 64 examples"] == "loss, 64 examples"
    assert found["sharpness at 0.0002, 64 examples"] == "loss, 64 examples"
    assert "top eigenvalue, 32 examples" not in found  # its loss is unknown


def test_the_table_of_runs_is_read_back_unchanged(tmp_path: Path) -> None:
    measured_study(tmp_path / "runs")
    write_run(tmp_path / "runs" / "lost", 0.9, loss=None, method="asam", momentum=0.9, batch_plan="4x128")
    table = table_of(find_runs([tmp_path / "runs"]))
    write_table(table, tmp_path / "runs.csv")
    again = read_table(tmp_path / "runs.csv")
    assert [config.effective for config in again["config"]] == [config.effective for config in table["config"]]
    same = [name for name in table.columns if name not in ("run", "config", "plan")]
    pd.testing.assert_frame_equal(again[same], table[same], check_dtype=False, rtol=1e-5)


def test_every_form_of_the_report_shows_sharpness_only_where_it_was_measured(tmp_path: Path) -> None:
    measured_study(tmp_path / "with")
    write_study(tmp_path / "without")
    for text in published(tmp_path / "with"):
        assert "5.40 ± 0.62 / 0.33" in text
    assert "77,754 parameters, the corner of the ℓ∞ ball of radius 0.0002 is 0.056 away" in text
    page = (tmp_path / "with" / "report" / "report.html").read_text(encoding="utf-8")
    assert "5.40 ± 0.62<br><small>0.33</small>" in page
    for text in published(tmp_path / "without"):
        assert "harpness" not in text


def test_measurements_of_either_copy_of_a_run_count(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_run(tmp_path / name, 0.05, method="sgd", batch_plan="4x128")
    add_lines(tmp_path / "second", [worst_case(SMALL, 1.0)])
    [run] = find_runs([tmp_path / "first", tmp_path / "second"])
    assert [record.line()["sharpness"] for record in run.sharpness] == [1.0]


def test_a_sharpness_file_of_another_version_is_named_instead_of_the_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", 0.05, method="sgd", batch_plan="4x128")
    for record in ({"kind": "worst_case", "epoch": 4}, {"kind": "flatness"}, ["worst_case"]):
        (folder / "sharpness.jsonl").write_text(json.dumps(record))
        with pytest.raises(ValueError, match=r"sharpness\.jsonl is damaged, or was made by another version"):
            find_runs([tmp_path])


def test_the_table_of_methods_shows_sharpness_where_all_runs_have_it(tmp_path: Path) -> None:
    measured_study(tmp_path)
    for folder in tmp_path.glob("*-increasing-*"):
        shutil.rmtree(folder)
    rows = method_rows(only_study(tmp_path), {"sgd": [1.0], "gsam": [2.0]})
    assert rows[0][3:5] == ("sharpness, ρ 0.0002", "sharpness, ρ 0.0024")
    assert rows[1] == ("SGD", "–", "5.50 ± 0.50", "0.44 ± 0.04", "9.9 ± 0.9", "1.00", "1.00")
    (tmp_path / "gsam-constant-0" / "sharpness.jsonl").unlink()
    assert len(method_rows(only_study(tmp_path), {"sgd": [1.0], "gsam": [2.0]})[0]) == 5
