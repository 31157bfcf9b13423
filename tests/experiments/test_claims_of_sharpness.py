"""The claims about sharpness, which compare its ratio."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from experiments.report.answers import claim_table, columns_of, matrices
from experiments.report.claims import Kind, claims
from experiments.report.paired import TEST_ERROR, measures_of
from experiments.report.summary import sentences
from tests.experiments.sharpness_records import LARGE, SMALL, add_lines, worst_case
from tests.experiments.test_claims import against, of_kind, verdict, write
from tests.experiments.written_runs import only_study


def test_sharpness_is_compared_with_the_flattest_constant_batch(tmp_path: Path) -> None:
    write(tmp_path, {"constant": 0.03, "first": 0.06, "increasing": 0.05})
    for name, value in {"constant": 8.0, "first": 1.0, "increasing": 3.0}.items():
        for seed in range(4):
            records = [worst_case(SMALL, value * (1 + 0.1 * seed * (name == "first")))]
            add_lines(tmp_path / f"sgd-{name}-{seed}", records)
    (best,) = of_kind(Kind.BEST, tmp_path)
    study = only_study(tmp_path)
    columns, measures = columns_of(claims(study)), measures_of(study)
    (table,) = matrices(study, columns, measures[1])
    assert "increasing (+B) ÷ flattest constant batch" in table.rows[0]
    assert "compared with the flattest of 2 constant batches" in " ".join(sentences(study, columns, measures))
    assert against(best) == "constant 128"
    assert against(best, "sharpness, ρ 0.0002, ratio") == "constant 64"
    assert verdict(best, "sharpness, ρ 0.0002, ratio") == "✗"
    row = claim_table([best], measures_of(only_study(tmp_path))).rows[1]
    assert "against constant 64" in row[3].note


def test_a_constant_batch_that_has_not_learned_is_not_the_flattest(tmp_path: Path) -> None:
    write(tmp_path, {"constant": 0.9, "first": 0.06, "increasing": 0.05})
    for name, value in {"constant": 0.001, "first": 1.0, "increasing": 3.0}.items():
        for seed in range(4):
            add_lines(tmp_path / f"sgd-{name}-{seed}", [worst_case(SMALL, value * (1 + 0.1 * seed))])
    for result in tmp_path.glob("sgd-constant-*/result.json"):
        result.write_text(json.dumps(json.loads(result.read_text()) | {"train_error": 0.9}))
    (best,) = of_kind(Kind.BEST, tmp_path)
    assert against(best, "sharpness, ρ 0.0002, ratio") == "constant 64"


def test_sharpness_is_compared_by_its_ratio_at_both_radii(tmp_path: Path) -> None:
    write(tmp_path, {"constant": 0.08, "increasing": 0.05})
    logs = np.log([[2.0, 2.2, 1.8, 2.1], [3.9, 4.5, 3.5, 4.4]])
    for values, name in zip(np.exp(logs), ("increasing", "constant"), strict=True):
        for seed, value in enumerate(values):
            records = [worst_case(SMALL, float(value)), worst_case(LARGE, 1.0 + seed)]
            add_lines(tmp_path / f"sgd-{name}-{seed}", records)
    (papers,) = of_kind(Kind.GROWTH, tmp_path)
    found = papers.found["sharpness, ρ 0.0002, ratio"]
    interval = stats.ttest_rel(*logs).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert verdict(papers, "sharpness, ρ 0.0002, ratio") == "✓"
    assert verdict(papers, "sharpness, ρ 0.0024, ratio") == "no spread"
    ratio, low, high = (f"{np.exp(each):#.3g}" for each in (found.mean, found.low, found.high))
    row = claim_table([papers], measures_of(only_study(tmp_path))).rows[1]
    assert str(row[3]) == f"✓ ×{ratio} ({low} to {high}); 4 seeds"


def test_sharpness_that_is_nan_is_not_compared(tmp_path: Path) -> None:
    write(tmp_path, {"constant": 0.08, "increasing": 0.05})
    for name in ("constant", "increasing"):
        for seed in range(4):
            add_lines(tmp_path / f"sgd-{name}-{seed}", [worst_case(SMALL, None if seed == 0 else 1.0)])
    (papers,) = of_kind(Kind.GROWTH, tmp_path)
    assert set(papers.found) == {TEST_ERROR.title}
