"""The paper's claims on runs whose figures are known."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from experiments.report.claims import BEST, DECAY, GROWTH, REVERSED, RIVAL, Claim, claim_rows, claims
from experiments.report.figures import figures_of
from experiments.report.verdicts import verdicts
from experiments.report.wording import verdict
from tests.experiments.sharpness_records import LARGE, SMALL, add_lines, worst_case
from tests.experiments.written_runs import only_study, write_run

PLANS = {"constant": "4x128", "increasing": "2x64,2x256", "first": "4x64", "last": "4x256", "cosine": "4x128"}
PLANS |= {"reversed": "2x256,2x64", "steps": "4x128", "early": "4x64"}
RATES = {"cosine": "cosine", "steps": "steps:0.1:2", "early": "cosine"}
NOISE = (0.0, 0.002, -0.001, 0.001)  # of a seed, shared
OWN = (0.0005, -0.0005, 0.0, 0.0002)  # of a run


def write(folder: Path, means: dict[str, float], method: str = "sgd", **plans: str) -> None:
    """Runs of four seeds with these mean errors, by the name of a plan of `PLANS`."""
    for number, (name, mean) in enumerate(means.items()):
        for seed in range(4):
            error = mean + NOISE[seed] + number * OWN[seed]
            settings: dict[str, Any] = {"batch_plan": (PLANS | plans)[name], "method": method, "seed": seed}
            rate = RATES.get(name, "constant")
            write_run(folder / f"{method}-{name}-{seed}", error, lr_schedule=rate, **settings)


def of_kind(kind: str, folder: Path) -> list[Claim]:
    return [claim for claim in claims(only_study(folder)) if claim.kind == kind]


def against(claim: Claim, figure: str = "test error, points") -> str:
    found = claim.found[figure]
    assert found is not None
    return found.second.column


def told_of(folder: Path) -> str:
    study = only_study(folder)
    return " ".join(verdicts(study, claims(study)))


def test_growth_is_claimed_against_the_best_constant_batch_and_not_the_papers(tmp_path: Path) -> None:
    write(tmp_path, {"constant": 0.08, "cosine": 0.09, "first": 0.03, "increasing": 0.05})
    (papers,), (best,), (decay,) = (of_kind(kind, tmp_path) for kind in (GROWTH, BEST, DECAY))
    assert (against(papers), verdict(papers.found["test error, points"])) == ("constant 128", "holds")
    assert (against(best), best.candidates) == ("constant 64", 2)
    assert verdict(best.found["test error, points"]) == "the other way round"
    assert (against(decay), decay.match) == ("constant 128", "")
    assert verdict(decay.found["test error, points"]) == "the other way round"
    told = " ".join(verdicts(only_study(tmp_path), claims(only_study(tmp_path))))
    assert "The paper: an increasing batch does better than a constant one, at equal epochs. SGD: holds." in told
    assert "SGD, growth against the best constant batch. At equal epochs: the other way round." in told
    assert "best of up to 2 constant batches" in told
    assert "favours the constants" in told


def test_a_difference_within_its_interval_is_not_shown(tmp_path: Path) -> None:
    write(tmp_path, {"constant": 0.08, "first": 0.05, "increasing": 0.05})
    (best,) = of_kind(BEST, tmp_path)
    assert verdict(best.found["test error, points"]) == "not shown"


def test_the_interval_is_that_of_a_paired_t_test(tmp_path: Path) -> None:
    write(tmp_path, {"constant": 0.08, "first": 0.06, "increasing": 0.05})
    (best,) = of_kind(BEST, tmp_path)
    errors = {
        group.column: [100 * run.result.test_error for run in group.runs] for group in only_study(tmp_path).groups
    }
    interval = stats.ttest_rel(errors["increasing"], errors["constant 64"]).confidence_interval(0.95)
    found = best.found["test error, points"]
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_without_a_control_nothing_is_said_of_growth(tmp_path: Path) -> None:
    write(tmp_path, {"constant": 0.08, "increasing": 0.05})
    study = only_study(tmp_path)
    assert of_kind(BEST, tmp_path) == []
    told = " ".join(verdicts(study, claims(study)))
    assert "Whether growth helps cannot be said" in told
    assert "favours" not in told


def test_where_controls_lack_at_one_length_it_is_said(tmp_path: Path) -> None:
    write(tmp_path, {"constant": 0.08, "first": 0.05, "increasing": 0.05})
    write(tmp_path, {"longer": 0.04}, longer="5x128")
    told = " ".join(verdicts(only_study(tmp_path), claims(only_study(tmp_path))))
    assert "Of growth at equal updates and at equal gradient evaluations nothing can be said" in told


def test_the_best_constant_is_chosen_on_the_seeds_that_all_share(tmp_path: Path) -> None:
    write(tmp_path, {"constant": 0.03, "first": 0.04, "last": 0.08, "increasing": 0.05})
    for seed, error in ((4, 0.9), (5, 0.9)):  # of one alone: its mean over its own seeds is the worst
        write_run(tmp_path / f"more-{seed}", error, method="sgd", batch_plan="4x128", seed=seed)
    shutil.rmtree(tmp_path / "sgd-last-3")
    (best,) = of_kind(BEST, tmp_path)
    found = best.found["test error, points"]
    assert (against(best), found.seeds, best.candidates) == ("constant 128", 3, 3)
    row = claim_rows(only_study(tmp_path), [best])[1]
    assert row[2] == "best of 3 constant batches"
    assert row[3].endswith("; 3 seeds) against constant 128: the other way round")


def test_too_few_shared_seeds_are_told_apart_from_too_few_batch_sizes(tmp_path: Path) -> None:
    write(tmp_path, {"constant": 0.08, "first": 0.05, "increasing": 0.05})
    write_run(tmp_path / "last", 0.05, method="sgd", batch_plan="4x256", seed=3)
    told = told_of(tmp_path)
    assert "Of growth at equal epochs nothing can be said: too few seeds are shared" in told
    assert "two constant batch sizes were not run there" in told.partition("too few seeds")[2]


def test_growth_is_not_credited_without_a_constant_at_its_own_first_batch(tmp_path: Path) -> None:
    write(tmp_path, {"constant": 0.08, "last": 0.09, "increasing": 0.05})
    (best,) = of_kind(BEST, tmp_path)
    assert not best.is_known
    told = told_of(tmp_path)
    assert "Of growth at equal epochs nothing can be said: constant 64, its own first batch size, was not run" in told
    assert "growth against the best constant batch." not in told


def test_controls_that_lack_beside_the_first_are_told(tmp_path: Path) -> None:
    write(tmp_path, {"constant": 0.08, "first": 0.06, "increasing": 0.05})
    assert "Not among the constants: constant 102 and constant 256 (SGD at equal epochs)." in told_of(tmp_path)


def test_growth_against_the_plan_reversed_is_a_claim_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, {"constant": 0.08, "reversed": 0.09, "increasing": 0.05})
    (claim,) = of_kind(REVERSED, tmp_path)
    assert (against(claim), verdict(claim.found["test error, points"])) == ("reversed", "holds")
    assert "SGD, growth against the same plan reversed. At equal epochs and equal updates: holds." in told_of(tmp_path)


def test_only_cosine_and_linear_at_the_papers_batch_are_the_papers_decays(tmp_path: Path) -> None:
    means = {"constant": 0.08, "first": 0.05, "increasing": 0.05, "cosine": 0.06, "steps": 0.02, "early": 0.02}
    write(tmp_path, means)
    (decay,) = of_kind(DECAY, tmp_path)
    assert decay.group.config.batch_plan == "4x128"
    rivals = {claim.group.config.lr_schedule for claim in of_kind(RIVAL, tmp_path)}
    assert rivals == {"steps:0.1:2", "cosine"}
    told = told_of(tmp_path)
    assert "The paper: a decaying learning rate does better than a constant one. SGD: holds." in told
    assert (
        "SGD, decays that the paper does not have against the constant rate. Cosine 64 and steps:0.1:2: holds." in told
    )


def test_sharpness_is_judged_against_the_flattest_constant(tmp_path: Path) -> None:
    write(tmp_path, {"constant": 0.03, "first": 0.06, "increasing": 0.05})
    for name, value in {"constant": 8.0, "first": 1.0, "increasing": 3.0}.items():
        for seed in range(4):
            records = [worst_case(SMALL, value * (1 + 0.1 * seed * (name == "first")))]
            add_lines(tmp_path / f"sgd-{name}-{seed}", records)
    (best,) = of_kind(BEST, tmp_path)
    assert against(best) == "constant 128"
    assert against(best, "sharpness, ρ 0.0002, ratio") == "constant 64"
    assert verdict(best.found["sharpness, ρ 0.0002, ratio"]) == "the other way round"
    assert " against constant 64: the other way round" in claim_rows(only_study(tmp_path), [best])[1][4]


def test_one_seed_says_nothing(tmp_path: Path) -> None:
    for name, plan in PLANS.items():
        write_run(tmp_path / name, 0.1, method="sgd", batch_plan=plan, lr_schedule=RATES.get(name, "constant"))
    study = only_study(tmp_path)
    (told,) = verdicts(study, claims(study))
    assert told.startswith("Of the paper's claims nothing can be said")
    assert len(claim_rows(study, claims(study))) == 1


def test_a_diverged_run_takes_the_claim_with_it(tmp_path: Path) -> None:
    write(tmp_path, {"constant": 0.08, "increasing": 0.05})
    write_run(tmp_path / "lost", 0.9, loss=None, method="sgd", batch_plan=PLANS["increasing"], seed=4)
    write_run(tmp_path / "fine", 0.08, method="sgd", batch_plan=PLANS["constant"], seed=4)
    (papers,) = of_kind(GROWTH, tmp_path)
    assert verdict(papers.found["test error, points"]) == "diverged: 1"


def test_sharpness_is_compared_by_its_ratio_at_both_radii(tmp_path: Path) -> None:
    write(tmp_path, {"constant": 0.08, "increasing": 0.05})
    logs = np.log([[2.0, 2.2, 1.8, 2.1], [3.9, 4.5, 3.5, 4.4]])
    for values, name in zip(np.exp(logs), ("increasing", "constant"), strict=True):
        for seed, value in enumerate(values):
            records = [worst_case(SMALL, float(value)), worst_case(LARGE, 1.0 + seed)]
            add_lines(tmp_path / f"sgd-{name}-{seed}", records)
    study = only_study(tmp_path)
    (papers,) = of_kind(GROWTH, tmp_path)
    found = papers.found["sharpness, ρ 0.0002, ratio"]
    interval = stats.ttest_rel(*logs).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert verdict(papers.found["sharpness, ρ 0.0024, ratio"]) == "no spread"
    ratio, low, high = (f"{np.exp(each):.3g}" for each in (found.mean, found.low, found.high))
    assert claim_rows(study, [papers])[1][4] == f"×{ratio} ({low} to {high}): holds"
    told = " ".join(verdicts(study, claims(study)))
    assert "SGD: holds for test error and sharpness at ρ 0.0002; no spread for sharpness at ρ 0.0024." in told


def test_sharpness_that_is_no_number_is_not_compared(tmp_path: Path) -> None:
    write(tmp_path, {"constant": 0.08, "increasing": 0.05})
    for name in ("constant", "increasing"):
        for seed in range(4):
            add_lines(tmp_path / f"sgd-{name}-{seed}", [worst_case(SMALL, None if seed == 0 else 1.0)])
    study = only_study(tmp_path)
    (papers,) = of_kind(GROWTH, tmp_path)
    assert papers.found[figures_of(study)[1].title] is None
    assert claim_rows(study, [papers])[1][-1] == "–"
