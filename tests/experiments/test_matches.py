"""Which groups are compared in one table: at equal epochs, updates, or gradient evaluations."""

from pathlib import Path

import pytest

from experiments.report.groups import Study
from experiments.report.matches import all_matches, papers_constant, papers_groups, reference, shown_matches
from experiments.report.study_tables import error_table
from tests.experiments.written_runs import only_study, write_run, write_study

INCREASING = "2x64,2x256"  # 8 + 8 + 2 + 2 updates


PAPERS = "5x16,5x32,5x64,5x128,5x256"


def study_of(folder: Path, *runs: tuple[str, str, str]) -> Study:
    for number, (method, plan, schedule) in enumerate(runs):
        write_run(folder / str(number), 0.1, method=method, batch_plan=plan, lr_schedule=schedule)
    return only_study(folder)


def named(study: Study) -> dict[str, list[str]]:
    return {match.title: [group.name for group in match.groups] for match in shown_matches(study)}


def test_a_group_is_in_every_table_whose_budget_it_matches(tmp_path: Path) -> None:
    study = study_of(
        tmp_path,
        ("sgd", INCREASING, "constant"),
        ("sgd", "4x128", "constant"),  # 16 updates
        ("sgd", "5x128", "constant"),  # 20 updates
        ("sgd", "4x64,4x256", "constant"),  # 40 updates, as many gradients as two passes along the reference
        ("sgd", "9x128", "constant"),  # 36 updates
        ("sam", INCREASING, "constant"),
        ("sam", "5x128", "constant"),
    )
    assert named(study) == {
        "at equal epochs": ["SGD, constant, 4 epochs", "SGD, increasing, 4 epochs", "SAM, increasing"],
        "at equal updates": [
            "SGD, constant, 5 epochs",
            "SGD, increasing, 4 epochs",
            "SAM, constant",
            "SAM, increasing",
        ],
        "at equal gradient evaluations": ["SGD, increasing, 8 epochs", "SAM, constant", "SAM, increasing"],
        "at other lengths": ["SGD, constant, 9 epochs"],
    }


def test_the_cost_of_a_column_is_listed_by_method_where_methods_differ(tmp_path: Path) -> None:
    study = study_of(
        tmp_path,
        ("sgd", INCREASING, "constant"),
        ("sgd", "4x64,4x256", "constant"),
        ("sam", INCREASING, "constant"),
        ("sam", "4x128", "constant"),
        ("gsam", INCREASING, "constant"),
    )
    rows = error_table(shown_matches(study)[-1], study).rows
    assert shown_matches(study)[-1].title == "at equal gradient evaluations"
    assert rows[0] == ("test error, %", "increasing (+B)")
    assert rows[5:] == [("updates", "20; SGD 40"), ("epochs", "4; SGD 8"), ("examples", "2,048; SGD 4,096")]


def test_the_reference_is_the_shortest_growing_plan_at_a_constant_rate(tmp_path: Path) -> None:
    study = study_of(
        tmp_path,
        ("sgd", "1x64,1x256", "cosine"),
        ("sgd", "4x64,4x256", "constant"),
        ("sgd", INCREASING, "constant"),
        ("sgd", "2x256,2x64", "constant"),
    )
    assert reference(study).config.batch_plan == INCREASING


def test_groups_without_a_reference_are_in_one_table(tmp_path: Path) -> None:
    study = study_of(tmp_path, ("sgd", "4x128", "constant"), ("sgd", "9x128", "constant"), ("sgd", "4x128", "cosine"))
    assert all_matches(study) == []
    (match,) = shown_matches(study)
    assert error_table(match, study).rows[0][1:] == ("constant, 4x128", "constant, 9x128", "cosine (+C)")
    other = study_of(tmp_path / "b", ("sgd", INCREASING, "constant"), ("sgd", "9x128", "constant"))
    assert list(named(other)) == [""]


def test_a_study_of_one_length_has_one_table(tmp_path: Path) -> None:
    assert list(named(only_study(write_study(tmp_path)))) == [""]


@pytest.mark.parametrize(
    ("others", "constant"),
    [
        ([("sgd", "4x128", "cosine")], "4x128"),
        ([("sgd", "4x64", "cosine")], "4x64"),
        ([], "4x128"),  # the others are the first and the last batch size of the plan
    ],
)
def test_the_papers_constant_plan_has_the_batch_of_the_decays_or_is_no_control(
    tmp_path: Path, others: list[tuple[str, str, str]], constant: str
) -> None:
    plans = [INCREASING, "4x64", "4x128", "4x256", "2x256,2x64", "5x128"]
    study = study_of(tmp_path, *(("sgd", plan, "constant") for plan in plans), *others)
    found = {(group.config.batch_plan, group.config.lr_schedule) for group in papers_groups(study)}
    assert found == {(INCREASING, "constant"), (constant, "constant"), *((plan, rate) for _, plan, rate in others)}


@pytest.mark.parametrize(
    ("sizes", "decays", "size"),
    [
        ((16, 41, 128, 256), (), 128),  # it is a batch size of the plan, and none of its controls
        ((16, 41, 128, 256), ((41, "cosine"),), 41),
        ((16, 41, 128, 256), ((128, "cosine"), (16, "linear")), 128),
        ((16, 41, 128, 256), ((16, "warm_restarts:5"),), 128),
        ((16, 64, 128), (), None),
        ((64, 128), ((64, "cosine"), (128, "linear")), None),
        ((16, 256), (), None),
        ((16,), (), 16),
    ],
)
def test_the_papers_constant_plan_is_found_among_the_controls(
    tmp_path: Path, sizes: tuple[int, ...], decays: tuple[tuple[int, str], ...], size: int | None
) -> None:
    falling = [("sgd", f"25x{each}", rate) for each, rate in decays]
    study = study_of(
        tmp_path, ("sgd", PAPERS, "constant"), *(("sgd", f"25x{each}", "constant") for each in sizes), *falling
    )
    assert papers_constant(study.groups, reference(study)) == size


def test_of_two_lengths_the_one_nearest_the_target_is_in_a_table(tmp_path: Path) -> None:
    plans = (PAPERS, "25x16", "77x128", "78x128", "80x128")  # 310 updates, 800, 308, 312 and 320
    study = study_of(tmp_path, *(("sgd", plan, "constant") for plan in plans))
    by_updates = next(match for match in all_matches(study) if match.title == "at equal updates")
    assert [group.name for group in by_updates.groups] == [
        "SGD, constant 128, 77 epochs",
        "SGD, constant 128, 78 epochs",  # as near
        "SGD, increasing",
    ]
    assert named(study)["at other lengths"] == ["SGD, constant 128, 80 epochs"]
