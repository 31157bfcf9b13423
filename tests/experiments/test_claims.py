"""The paper's claims on runs with given errors and sharpness."""

import shutil
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from experiments.report.answers import claim_table, columns_of, matrices
from experiments.report.claims import Claim, Kind, claims
from experiments.report.paired import TEST_ERROR, measures_of
from experiments.report.summary import limits, sentences
from tests.experiments.written_runs import only_study, write_run

PLANS = {"constant": "4x128", "increasing": "2x64,2x256", "first": "4x64", "last": "4x256", "cosine": "4x128"}
PLANS |= {"reversed": "2x256,2x64", "steps": "4x128", "early": "4x64"}
RATES = {"cosine": "cosine", "steps": "steps:0.1:2", "early": "cosine"}
NOISE = (0.0, 0.002, -0.001, 0.001)  # of a seed, shared
OWN = (0.0005, -0.0005, 0.0, 0.0002)  # of a run


def write(folder: Path, means: dict[str, float], method: str = "sgd", **plans: str) -> None:
    """Writes runs of four seeds with these mean errors; the keys are names of plans in `PLANS`."""
    for number, (name, mean) in enumerate(means.items()):
        for seed in range(4):
            error = mean + NOISE[seed] + number * OWN[seed]
            settings: dict[str, Any] = {"batch_plan": (PLANS | plans)[name], "method": method, "seed": seed}
            rate = RATES.get(name, "constant")
            write_run(folder / f"{method}-{name}-{seed}", error, lr_schedule=rate, **settings)


def of_kind(kind: Kind, folder: Path) -> list[Claim]:
    return [claim for claim in claims(only_study(folder)) if claim.kind == kind]


def against(claim: Claim, figure: str = "test error, points") -> str:
    found = claim.found[figure]
    assert found is not None
    return found.second.column


def verdict(claim: Claim, title: str = TEST_ERROR.title) -> str:
    found = claim.found[title]
    assert found is not None
    return found.obstacle or found.answer.value


def printed_text(folder: Path) -> str:
    """Returns the headline and the limits of the study."""
    study = only_study(folder)
    found = claims(study)
    columns = columns_of(found)
    return " ".join([*sentences(study, columns, measures_of(study)), *limits(study, found, columns, is_planned=False)])


def test_growth_is_claimed_against_the_best_constant_batch_and_not_the_papers(tmp_path: Path) -> None:
    write(tmp_path, {"constant": 0.08, "cosine": 0.09, "first": 0.03, "increasing": 0.05})
    (papers,), (best,), (decay,) = (of_kind(kind, tmp_path) for kind in (Kind.GROWTH, Kind.BEST, Kind.DECAY))
    assert (against(papers), verdict(papers)) == ("constant 128", "✓")
    assert (against(best), best.candidates, verdict(best)) == ("constant 64", 2, "✗")
    assert (against(decay), decay.match, verdict(decay)) == ("constant 128", "", "✗")
    text = printed_text(tmp_path)
    study = only_study(tmp_path)
    first, second = sentences(study, columns_of(claims(study)), measures_of(study))[:2]
    best = "Test error, a growing batch compared with the best of 2 constant batches, at equal epochs"
    assert first == f"{best}: higher with SGD (+2.01 points, +1.94 to +2.07)."
    papers = "Test error, a growing batch compared with the paper's constant batch of 128, at equal epochs"
    assert second.startswith(f"{papers}: lower with SGD (−2.98 points, ")
    assert "a falling learning rate (cosine) compared with a constant one: higher with SGD" in text
    assert "Inconclusive" not in text
    assert "The best constant batch is selected on the same runs that it is compared with, which favours it." in text


def test_the_matrix_has_a_row_per_method_and_a_column_per_claim(tmp_path: Path) -> None:
    write(tmp_path, {"constant": 0.08, "first": 0.03, "increasing": 0.05})
    study = only_study(tmp_path)
    (table,) = matrices(study, columns_of(claims(study)), TEST_ERROR)
    heading, row = table.rows
    assert heading == (
        "method",
        "increasing (+B) − constant 128, as in the paper",
        "increasing (+B) − best constant batch",
        "increasing (+B) − reversed plan",
        "increasing (+B) − best constant batch, at equal updates",
    )
    assert (row[0], row[1].symbol, row[1].effect, row[1].note) == ("SGD", "✓", "−2.99 points", "")
    assert row[2].note == "against constant 64, the best of 2"
    assert row[2].interval == "+1.94 to +2.07"
    assert row[3:] == ("–", "–")


def test_a_difference_within_its_interval_is_inconclusive(tmp_path: Path) -> None:
    write(tmp_path, {"constant": 0.08, "first": 0.05, "increasing": 0.05})
    (best,) = of_kind(Kind.BEST, tmp_path)
    assert verdict(best) == "?"
    text = printed_text(tmp_path)
    assert (
        "a growing batch compared with the best of 2 constant batches, at equal epochs: inconclusive with SGD." in text
    )
    assert "Inconclusive: the 95% interval of the mean difference contains zero, or one for a ratio." in text


def test_the_interval_is_that_of_a_paired_t_test(tmp_path: Path) -> None:
    write(tmp_path, {"constant": 0.08, "first": 0.06, "increasing": 0.05})
    (best,) = of_kind(Kind.BEST, tmp_path)
    errors = {group.column: 100 * group.values("test_error") for group in only_study(tmp_path).groups}
    interval = stats.ttest_rel(errors["increasing"], errors["constant 64"]).confidence_interval(0.95)
    found = best.found["test error, points"]
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_without_a_control_growth_has_no_answer(tmp_path: Path) -> None:
    write(tmp_path, {"constant": 0.08, "increasing": 0.05})
    assert of_kind(Kind.BEST, tmp_path) == []
    text = printed_text(tmp_path)
    assert "Whether growth itself helps cannot be shown without two constant batch sizes at equal length, 64" in text
    assert "favours" not in text


def test_the_best_constant_batch_is_chosen_on_the_shared_seeds(tmp_path: Path) -> None:
    write(tmp_path, {"constant": 0.03, "first": 0.04, "last": 0.08, "increasing": 0.05})
    for seed, error in ((4, 0.9), (5, 0.9)):  # of one alone: its mean over its own seeds is the worst
        write_run(tmp_path / f"more-{seed}", error, method="sgd", batch_plan="4x128", seed=seed)
    shutil.rmtree(tmp_path / "sgd-last-3")
    (best,) = of_kind(Kind.BEST, tmp_path)
    found = best.found["test error, points"]
    assert (against(best), found.seeds, best.candidates) == ("constant 128", 3, 3)
    row = claim_table([best], measures_of(only_study(tmp_path))).rows[1]
    assert row[0] == "increasing (+B) − best of 3 constant batches, at equal epochs"
    assert (row[2].symbol, row[2].note) == ("✗", "3 seeds; against constant 128, the best of 3")


def test_growth_has_no_answer_without_a_constant_batch_of_its_first_size(tmp_path: Path) -> None:
    write(tmp_path, {"constant": 0.08, "last": 0.09, "increasing": 0.05})
    (best,) = of_kind(Kind.BEST, tmp_path)
    assert not best.is_known
    text = printed_text(tmp_path)
    assert (
        "compared with the best of 2 constant batches, at equal epochs: no answer (a control is missing) with SGD"
        in text
    )
    assert "Whether growth itself helps cannot be shown" in text


def test_at_equal_updates_growth_is_compared_with_the_papers_batch_if_that_is_the_only_control(tmp_path: Path) -> None:
    # the increasing plan has 20 updates in four epochs, a constant batch of 128 has them in five
    write(tmp_path, {"constant": 0.08, "longer": 0.06, "first": 0.03, "increasing": 0.05}, longer="5x128")
    papers, then = of_kind(Kind.GROWTH, tmp_path)
    assert (papers.match, against(papers), papers.group.name) == ("at equal epochs", "constant 128", then.group.name)
    assert (then.match, against(then), verdict(then)) == ("at equal updates", "constant 128", "✓")
    assert then.baselines[0].config.batch_plan == "5x128"
    headings = [column.heading() for column in columns_of(claims(only_study(tmp_path)))]
    assert headings[-1] == "increasing (+B) − constant 128, at equal updates"
    assert "the paper's constant batch of 128, at equal updates: lower with SGD" in printed_text(tmp_path)


def test_missing_controls_are_named(tmp_path: Path) -> None:
    write(tmp_path, {"constant": 0.08, "first": 0.06, "increasing": 0.05})
    assert "At least one comparison lacks a constant batch of 102 or 256." in printed_text(tmp_path)


def test_a_constant_batch_at_another_learning_rate_is_a_baseline_only_of_growth(tmp_path: Path) -> None:
    write(tmp_path, {"constant": 0.08, "first": 0.06, "increasing": 0.05, "cosine": 0.07})
    for seed, (rate, error) in product(range(4), ((0.4, 0.03), (0.8, 0.09))):
        setting = {"learning_rate": rate, "seed": seed}
        write_run(tmp_path / f"tuned-{rate}-{seed}", error + NOISE[seed], method="sgd", batch_plan="4x128", **setting)
    (papers,), (best,), (decay,) = (of_kind(kind, tmp_path) for kind in (Kind.GROWTH, Kind.BEST, Kind.DECAY))
    assert (against(papers), against(decay)) == ("constant 128", "constant 128")
    assert (against(best), best.candidates) == ("constant 128, learning rate 0.4", 4)
    text = printed_text(tmp_path)
    assert "The strategies of a method share one learning rate and one radius, unless a name states another." in text


def test_growth_is_also_compared_with_the_reversed_plan(tmp_path: Path) -> None:
    write(tmp_path, {"constant": 0.08, "reversed": 0.09, "increasing": 0.05})
    (claim,) = of_kind(Kind.REVERSED, tmp_path)
    assert (against(claim), verdict(claim)) == ("reversed", "✓")
    assert claim.match == "at equal epochs and equal updates"


def test_a_late_switch_is_compared_with_the_best_constant_batch_and_with_the_increasing_plan(tmp_path: Path) -> None:
    plans = {"late": "4x64,1x256", "first": "5x64", "last": "5x256", "increasing": "3x64,2x256"}
    means = {"first": 0.05, "last": 0.08, "increasing": 0.06, "late": 0.03}
    write(tmp_path, means, **plans)
    growing, late = of_kind(Kind.BEST, tmp_path)
    assert (growing.group.column, late.group.column, late.candidates) == ("increasing", "late switch", 2)
    assert (against(late), verdict(late)) == ("constant 64", "✓")
    (plan,) = of_kind(Kind.PLAN, tmp_path)
    assert (plan.group.column, against(plan), verdict(plan)) == ("late switch", "increasing", "✓")
    compared = (
        "a batch that grows once, late (late switch) compared with the best of 2 constant batches, at equal epochs"
    )
    assert f"{compared}: lower with SGD" in printed_text(tmp_path)


def test_what_the_paper_does_not_compare_has_a_matrix_of_its_own(tmp_path: Path) -> None:
    plans = {"late": "4x64,1x256", "first": "5x64", "last": "5x256", "increasing": "3x64,2x256"}
    write(tmp_path, {"first": 0.05, "last": 0.08, "increasing": 0.06, "late": 0.03}, **plans)
    study = only_study(tmp_path)
    papers, others = matrices(study, columns_of(claims(study)), TEST_ERROR)
    assert not any("late switch" in heading for heading in papers.rows[0])
    assert others.rows[0] == ("method", "late switch − best constant batch", "late switch − increasing (+B)")


def test_a_cell_names_its_number_of_seeds_if_others_have_more(tmp_path: Path) -> None:
    write(tmp_path, {"constant": 0.08, "first": 0.03, "increasing": 0.05})
    shutil.rmtree(tmp_path / "sgd-constant-3")
    study = only_study(tmp_path)
    (table,) = matrices(study, columns_of(claims(study)), TEST_ERROR)
    assert table.rows[1][1].note == "3 seeds"


def test_a_falling_radius_is_compared_with_a_constant_one_at_the_same_learning_rates(tmp_path: Path) -> None:
    write(tmp_path, {"constant": 0.08, "cosine": 0.06, "increasing": 0.05}, method="sam")
    for seed in range(4):
        falling: dict[str, Any] = {"lr_schedule": "cosine", "rho_min": 0.0, "batch_plan": PLANS["cosine"]}
        write_run(tmp_path / f"falling-{seed}", 0.03 + NOISE[seed], method="sam", seed=seed, **falling)
    (decay,), (radius,) = of_kind(Kind.DECAY, tmp_path), of_kind(Kind.RIVAL, tmp_path)
    assert (decay.group.column, against(decay)) == ("cosine", "constant")
    assert (radius.group.column, against(radius), verdict(radius)) == ("cosine, falling radius", "cosine", "✓")


def test_only_cosine_and_linear_at_the_papers_batch_are_the_papers_decays(tmp_path: Path) -> None:
    means = {"constant": 0.08, "first": 0.05, "increasing": 0.05, "cosine": 0.06, "steps": 0.02, "early": 0.02}
    write(tmp_path, means)
    (decay,) = of_kind(Kind.DECAY, tmp_path)
    assert decay.group.config.batch_plan == "4x128"
    rivals = {claim.group.config.lr_schedule for claim in of_kind(Kind.RIVAL, tmp_path)}
    assert rivals == {"steps:0.1:2", "cosine"}
    text = printed_text(tmp_path)
    assert "a falling learning rate (cosine 128) compared with a constant one: lower with SGD" in text
    headings = [column.heading() for column in columns_of(claims(only_study(tmp_path)))]
    assert headings[-3:] == [
        "cosine (+C) 128 − constant 128",
        "cosine (+C) 64 − constant 64",
        "steps:0.1:2 − constant 128",
    ]


def test_one_seed_has_no_answer(tmp_path: Path) -> None:
    for name, plan in PLANS.items():
        write_run(tmp_path / name, 0.1, method="sgd", batch_plan=plan, lr_schedule=RATES.get(name, "constant"))
    text = printed_text(tmp_path)
    compared = "Test error, a growing batch compared with the best of 3 constant batches, at equal epochs"
    assert text.startswith(f"{compared}: no answer (fewer than 3 seeds) with SGD.")
    assert "by chance" not in text
    assert "An answer needs at least 3 seeds, and this study has 1." in text
    assert {verdict(claim) for claim in claims(only_study(tmp_path))} == {"fewer than 3 seeds"}


def test_a_claim_with_a_diverged_run_has_no_answer(tmp_path: Path) -> None:
    write(tmp_path, {"constant": 0.08, "increasing": 0.05})
    write_run(tmp_path / "lost", 0.9, loss=None, method="sgd", batch_plan=PLANS["increasing"], seed=4)
    write_run(tmp_path / "fine", 0.08, method="sgd", batch_plan=PLANS["constant"], seed=4)
    (papers,) = of_kind(Kind.GROWTH, tmp_path)
    assert verdict(papers) == "1 of the runs diverged"
