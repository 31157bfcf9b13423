"""The claims, intervals and answers of the committed reports are those that the report before pandas computed.

The claims on late switches, falling radii and CIFAR-100 are newer, and recorded from the report that introduced them.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.report.answers import variant_of
from experiments.report.claims import claims
from experiments.report.groups import Study, studies
from experiments.report.paired import Difference, direct_pairs, measures_of
from experiments.report.runs_table import read_table
from experiments.report.study_tables import method_pairs

RESULTS = Path(__file__).parents[2] / "docs" / "results"
PUBLISHED = json.loads(Path(__file__).with_name("report_claims.json").read_text(encoding="utf-8"))
ANSWERS = {
    "holds": "✓",
    "lower": "✓",
    "the other way round": "✗",
    "higher": "✗",
    "not shown": "?",
    "–": "?",
    "no spread": "?",
}


def found_in(study: Study, found: list[Study]) -> dict[tuple[str, ...], tuple[int, Difference]]:
    """Returns the differences of a study by kind, match, measure and cells, with the number of baselines."""
    of_claims = {
        (claim.kind.value, claim.match, title, claim.group.name, pair.second.name): (claim.candidates, pair)
        for claim in claims(study)
        for title, pair in claim.found.items()
        if pair is not None
    }
    pairs = [pair for row in method_pairs(study).values() for pair in row if pair]
    pairs += [] if study.is_large else direct_pairs(study.groups)
    of_pairs = {("pair", "", p.measure.title, p.first.name, p.second.name): (1, p) for p in pairs}
    base, of_variants = variant_of(study, found)
    compared = [measure.compare(one, other) for one, other in of_variants for measure in measures_of(study) if base]
    variants = {("variant", "", p.measure.title, p.first.name, p.second.name): (1, p) for p in compared if p}
    return of_claims | of_pairs | variants


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_committed_report_says_what_was_published(name: str) -> None:
    chosen = tuple(json.loads((RESULTS / name / "report.json").read_text(encoding="utf-8"))["chosen"])
    found = studies(read_table(RESULTS / name / "runs.csv"), chosen)
    assert [study.title for study in found] == list(PUBLISHED[name])
    for study in found:
        mine = found_in(study, found)
        rows: list[list[Any]] = PUBLISHED[name][study.title]
        assert {key for key in mine if key[0] not in ("pair", "variant")} <= {tuple(row[:5]) for row in rows}
        for *key, candidates, mean, low, high, seeds, verdict in rows:
            count, pair = mine[tuple(key)]
            assert (count, pair.seeds, pair.answer.value) == (candidates, seeds, ANSWERS[verdict])
            assert (pair.mean, pair.low, pair.high) == pytest.approx((mean, low, high), rel=1e-4, abs=1e-4)
