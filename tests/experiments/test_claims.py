"""The paper's claims on runs whose figures are known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from experiments import sharpness_file
from experiments.reporting.claims import BEST, DECAY, GROWTH, Claim, claim_rows, claims, verdict
from experiments.reporting.figures import figures_of
from experiments.reporting.verdicts import verdicts
from tests.experiments.sharpness_records import LARGE, SMALL, worst_case
from tests.experiments.written_runs import only_study, write_run

PLANS = {"constant": "4x128", "increasing": "2x64,2x256", "first": "4x64", "cosine": "4x128"}
NOISE = (0.0, 0.002, -0.001, 0.001)  # of a seed, shared
OWN = (0.0005, -0.0005, 0.0, 0.0002)  # of a run


def write(folder: Path, means: dict[str, float], method: str = "sgd", **plans: str) -> None:
    """Runs of four seeds with these mean errors, by the name of a plan of `PLANS`."""
    for number, (name, mean) in enumerate(means.items()):
        for seed in range(4):
            error = mean + NOISE[seed] + number * OWN[seed]
            settings: dict[str, Any] = {"batch_plan": (PLANS | plans)[name], "method": method, "seed": seed}
            schedule = "cosine" if name == "cosine" else "constant"
            write_run(folder / f"{method}-{name}-{seed}", error, lr_schedule=schedule, **settings)


def of_kind(kind: str, folder: Path) -> list[Claim]:
    return [claim for claim in claims(only_study(folder)) if claim.kind == kind]


def test_growth_is_claimed_against_the_best_constant_batch_and_not_the_papers(tmp_path: Path) -> None:
    write(tmp_path, {"constant": 0.08, "cosine": 0.09, "first": 0.03, "increasing": 0.05})
    (papers,), (best,), (decay,) = (of_kind(kind, tmp_path) for kind in (GROWTH, BEST, DECAY))
    assert (papers.baseline.column, verdict(papers.found["test error, points"])) == ("constant 128", "holds")
    assert (best.baseline.column, best.candidates) == ("constant 64", 2)
    assert verdict(best.found["test error, points"]) == "the other way round"
    assert (decay.baseline.column, decay.match) == ("constant 128", "")
    assert verdict(decay.found["test error, points"]) == "the other way round"
    told = " ".join(verdicts(only_study(tmp_path), claims(only_study(tmp_path))))
    assert "The paper: an increasing batch does better than a constant one, at equal epochs. SGD: holds." in told
    assert "SGD, growth against the best constant batch. At equal epochs: the other way round." in told
    assert "best of up to 2 constant batches" in told
    assert "favours the constants" in told


def test_a_difference_within_its_interval_does_not_hold(tmp_path: Path) -> None:
    write(tmp_path, {"constant": 0.08, "first": 0.05, "increasing": 0.05})
    (best,) = of_kind(BEST, tmp_path)
    assert verdict(best.found["test error, points"]) == "does not hold"


def test_the_interval_is_that_of_a_paired_t_test(tmp_path: Path) -> None:
    write(tmp_path, {"constant": 0.08, "first": 0.06, "increasing": 0.05})
    (best,) = of_kind(BEST, tmp_path)
    errors = {
        group.column: [100 * run.result["test_error"] for run in group.runs] for group in only_study(tmp_path).groups
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


def test_one_seed_says_nothing(tmp_path: Path) -> None:
    for name, plan in PLANS.items():
        write_run(tmp_path / name, 0.1, method="sgd", batch_plan=plan, lr_schedule="constant")
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
            sharpness_file.add(tmp_path / f"sgd-{name}-{seed}", records)
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
            sharpness_file.add(tmp_path / f"sgd-{name}-{seed}", [worst_case(SMALL, None if seed == 0 else 1.0)])
    study = only_study(tmp_path)
    (papers,) = of_kind(GROWTH, tmp_path)
    assert papers.found[figures_of(study)[1].title] is None
    assert claim_rows(study, [papers])[1][-1] == "–"
