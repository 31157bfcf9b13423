"""Writes `report_claims.json`: the claims and the intervals of the committed reports, as the report of today makes them.

The figures are computed from `docs/results/*/runs.csv` with the settings that `report.md` has. Each table that is
computed must stand in `report.md` word by word, so the file says what was published.
"""

import ast
import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

from experiments.cli.tables import as_markdown
from experiments.config import Config
from experiments.report.claims import claim_rows, claims
from experiments.report.figures import figures_of
from experiments.report.groups import Study, studies
from experiments.report.method_pairs import method_pair_rows, method_pairs
from experiments.report.paired import Difference, differences
from experiments.report.study_tables import difference_rows
from experiments.report.variants import _compared, base_of, variant_rows
from experiments.report.wording import direction, verdict
from experiments.runner.finished_runs import Run
from experiments.training.records import Result, WorstCase

RESULTS = Path(__file__).parents[2] / "docs" / "results"
OUTPUT = Path(__file__).with_name("report_claims.json")
FIGURES = ("test_error", "test_loss", "train_loss", "updates", "gradient_evaluations")
SHARPNESS = re.compile(r"sharpness at (\S+), (\d+) examples")
PLAN = re.compile(r"(\S+) \(seeds? ([\d, ]+)\)")


def value_of(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def shared_settings(document: str) -> dict[str, Any]:
    """The settings of which all runs have one value."""
    rows = re.findall(r"^\| ([\w ]+) \| ([^|;]+) \|$", document.rpartition("## Settings")[2], re.MULTILINE)
    known = Config().settings
    names = {name.replace(" ", "_"): value_of(value.replace("\\", "")) for name, value in rows}
    return {name: value for name, value in names.items() if name in known and name != "rho"}


def plans_that_came_out(document: str) -> dict[tuple[str, str, int], str]:
    found = {}
    rows = re.findall(r"^\| (\w+) \| (adaptive:\S+) \| (.*) \|$", document, re.MULTILINE)
    for method, asked, plans in rows:
        for plan, seeds in PLAN.findall(plans):
            found |= {(method.lower(), asked.replace("\\", ""), int(seed)): plan for seed in seeds.split(",")}
    return found


def runs_of(folder: Path) -> list[Run]:
    document = (folder / "report.md").read_text(encoding="utf-8")
    shared, plans = shared_settings(document), plans_that_came_out(document)
    with (folder / "runs.csv").open(encoding="utf-8", newline="") as file:
        return [_run(row, number, shared, plans) for number, row in enumerate(csv.DictReader(file))]


def _run(row: dict[str, str], number: int, shared: dict[str, Any], plans: dict[tuple[str, str, int], str]) -> Run:
    known = Config().settings
    settings = {name: value_of(value) for name, value in row.items() if name in known and value != ""}
    if settings["method"] == "sgd":
        settings.pop("rho", None)
    config = Config.from_settings(**(shared | settings))
    figures = {name: value_of(row[name]) if row[name] else None for name in FIGURES}
    plan = plans.get((config.method, config.batch_plan, config.seed))
    result = Result(**figures, train_error=None, seconds=0.0, batch_plan=plan)
    run = Run(Path(f"run-{number}"), config, result, [])
    return run._replace(sharpness=[_worst_case(run, name, value) for name, value in row.items() if "sharp" in name])


def _worst_case(run: Run, name: str, value: str) -> WorstCase:
    rho, examples = SHARPNESS.fullmatch(name).groups()
    way = {"norm": "linf", "adaptive": False, "steps": 20, "restarts": 1, "measured_batch_size": 128}
    way |= {"normalize_logits": False, "reestimate_batchnorm": False, "parameters": 77754, "examples": int(examples)}
    figures = {"sharpness": float(value) if value else None, "first_order": 0.0, "loss": 0.0}
    return WorstCase(epoch=run.epochs, step=run.result.updates, rho=float(rho), **way, **figures)


def _number(value: float) -> float:
    return float(f"{value:.5g}")


def _interval(found: Difference, word: str) -> list[Any]:
    return [_number(found.mean), _number(found.low), _number(found.high), found.seeds, word]


def entries(study: Study, found: list[Study], document: str) -> list[list[Any]]:
    """Kind, match, measure, first cell, second cell, candidates, mean, low, high, seeds, verdict."""
    of_claims = claims(study)
    _check(claim_rows(study, of_claims), document)
    rows = [
        [claim.kind, claim.match, measure, claim.group.name, pair.second.name, claim.candidates]
        + _interval(pair, verdict(pair))
        for claim in of_claims
        for measure, pair in claim.found.items()
        if pair is not None
    ]
    base = base_of(study, found)
    if base is None or study.is_large:
        rows += [_pair("pair", each) for each in _pairs(study, document)]
    if base is not None and len(variant_rows(study, base)) > 1:
        _check(variant_rows(study, base), document)
        figures = figures_of(study)
        for _, of_group in _compared(study, base):
            for figure, each in zip(figures, of_group, strict=True):
                rows.append(_pair("variant", each, figure.title))
    return rows


def _pair(kind: str, found: Difference, measure: str = "test error, points") -> list[Any]:
    return [kind, "", measure, found.first.name, found.second.name, 1, *_interval(found, direction(found))]


def _pairs(study: Study, document: str) -> list[Difference]:
    if study.is_large:
        of = method_pairs(study)
        _check(method_pair_rows(study, of), document)
        return of.differences
    pairs = differences(study.groups)
    _check(difference_rows([pair for pair in pairs if pair.is_direct]), document)
    return [pair for pair in pairs if pair.is_direct]


def _check(rows: list[tuple[str, ...]], document: str) -> None:
    if len(rows) > 1 and as_markdown(rows) not in document:
        lines = [line for line in as_markdown(rows).splitlines() if line not in document]
        sys.exit(f"not in the report: {lines[:3]}")


def main() -> None:
    everything = {}
    for folder in sorted(path.parent for path in RESULTS.glob("*/runs.csv")):
        document = (folder / "report.md").read_text(encoding="utf-8")
        chosen = ("learning_rate", "rho") if "What was chosen" in document else ()
        found = studies(runs_of(folder), chosen)
        everything[folder.name] = {study.title: entries(study, found, document) for study in found}
    lines = [
        f" {json.dumps(name)}: {{\n"
        + ",\n".join(
            f"  {json.dumps(title)}: [\n"
            + ",\n".join(f"   {json.dumps(row, ensure_ascii=False)}" for row in rows)
            + "\n  ]"
            for title, rows in of_it.items()
        )
        + "\n }"
        for name, of_it in everything.items()
    ]
    OUTPUT.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
