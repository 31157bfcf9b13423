"""The sharpness of a study's runs: the paper's table, both radii beside each other, and where their orders differ."""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

from experiments.reporting.groups import Group, Study
from experiments.reporting.paired import is_direct_pair
from experiments.reporting.runs import Run
from experiments.reporting.tables import Rows, mean_and_deviation, strategy_heading
from experiments.training.writers import Record

WORST_CASE = "worst_case"
_MOST_NAMED = 8  # pairs


class Setting(NamedTuple):
    """How a worst case was measured: what has to be the same for two values to be compared."""

    rho: float
    norm: str
    adaptive: bool
    steps: int
    restarts: int
    examples: int
    measured_batch_size: int
    normalize_logits: bool
    reestimate_batchnorm: bool

    @property
    def title(self) -> str:
        """The radius, and what differs from the paper's way to measure."""
        remarks = [
            "" if self.norm == "linf" else "ℓ2",
            "adaptive" if self.adaptive else "",
            "normalised logits" if self.normalize_logits else "",
            "BatchNorm re-estimated" if self.reestimate_batchnorm else "",
        ]
        return ", ".join([f"ρ {self.rho:.3g}", *filter(None, remarks)])


def last_records(run: Run, kind: str) -> list[Record]:
    """What was measured of the trained network."""
    return [record for record in run.sharpness if record["kind"] == kind and record["epoch"] == run.config.plan.epochs]


def settings_of(study: Study) -> list[Setting]:
    """The settings that some group was measured with in all its runs: those of most groups first, then by radius."""
    counts = Counter(setting for group in study.groups for setting in common_settings(group.runs))
    return sorted(counts, key=lambda setting: (-counts[setting], setting))


def common_settings(runs: Sequence[Run]) -> list[Setting]:
    """The settings that all runs were measured with, by radius."""
    return sorted(set.intersection(*(set(_values(run)) for run in runs)))


def figure(runs: Sequence[Run], setting: Setting, name: str = "sharpness") -> str:
    """Mean ± standard deviation of what was measured; a dash unless all runs have it, and it is a number."""
    found = _numbers(runs, setting, name)
    return mean_and_deviation(found, ".3g") if found else "–"


def paper_rows(study: Study, setting: Setting) -> Rows:
    """Methods by strategies, as the paper has them: mean test error in % / mean sharpness."""
    cells = {(group.row, group.column): group for group in study.groups}
    heading = (f"test error, % / sharpness ({setting.title})", *map(strategy_heading, study.columns))
    return [
        heading,
        *((row, *(_cell(cells.get((row, column)), setting) for column in study.columns)) for row in study.rows),
    ]


def radius_rows(study: Study, settings: Sequence[Setting]) -> Rows:
    """A row a group: its loss, unperturbed, and at each radius the sharpness and the part that the gradient makes."""
    heading = ["group", "loss"]
    for setting in settings:
        heading += [f"sharpness, {setting.title}", "of it first order, %"]
    return [tuple(heading), *(_radius_row(group, settings) for group in study.groups)]


def orderings(study: Study, settings: Sequence[Setting]) -> str:
    """In words: which pairs of groups one radius orders one way, and the other one the other way."""
    if len(settings) < 2:
        return ""
    first, second = settings[:2]
    pairs = [(a, b) for a, b in combinations(study.groups, 2) if _means(a, settings[:2]) and _means(b, settings[:2])]
    differing = [pair for pair in pairs if _sign(*pair, first) * _sign(*pair, second) < 0]
    if not pairs:
        return ""
    between = f"At {first.title} and at {second.title} the mean sharpness orders"
    if not differing:
        return f"{between} all {len(pairs)} pairs of groups alike."
    direct = [pair for pair in differing if is_direct_pair(*pair)]
    named = [_in_words(*pair, first, second) for pair in direct[:_MOST_NAMED]]
    more = "" if len(direct) <= _MOST_NAMED else f" There are {len(direct) - _MOST_NAMED} more such pairs."
    told = f" Of those that differ in strategy alone or in method alone: {'; '.join(named)}." if named else ""
    return f"{between} {len(differing)} of {len(pairs)} pairs of groups differently.{told}{more}"


def caption(study: Study, setting: Setting) -> str:
    """What the figures are."""
    [parameters] = {record["parameters"] for run in study.runs for record in last_records(run, WORST_CASE)} or {0}
    ball = {"linf": "ℓ∞", "l2": "ℓ2"}[setting.norm] + (" ball in units of each weight" if setting.adaptive else " ball")
    seeds = "mean over the seeds" if len(study.seeds) > 1 else "of one seed"
    return (
        f"Sharpness: how much the loss of {setting.measured_batch_size} examples rises at most within the {ball} of "
        f"radius ρ, by {setting.steps} iterations of APGD; mean over {setting.examples} training examples, {seeds}. "
        f"With {parameters:,} parameters the corner of the ℓ∞ ball of radius 0.0002 is {_length(parameters)} away. "
        "Values at one radius cannot be compared between networks of different size, and where they are mostly first "
        "order they follow the training loss."
    )


def _values(run: Run) -> dict[Setting, Record]:
    records = last_records(run, WORST_CASE)
    return {Setting(*(record[name] for name in Setting._fields)): record for record in records}


def _cell(group: Group | None, setting: Setting) -> str:
    if group is None:
        return "–"
    error = statistics.mean(100 * run.result["test_error"] for run in group.runs)
    found = _numbers(group.runs, setting)
    return f"{error:.2f} / " + (f"{statistics.mean(found):.3g}" if found else "–")


def _radius_row(group: Group, settings: Sequence[Setting]) -> tuple[str, ...]:
    row = [group.name, figure(group.runs, settings[0], "loss")]
    for setting in settings:
        row += [figure(group.runs, setting), _first_order(group.runs, setting)]
    return tuple(row)


def _numbers(runs: Sequence[Run], setting: Setting, name: str = "sharpness") -> list[float]:
    """What was measured of each run; nothing unless all have it, and it is a number."""
    found = [_values(run).get(setting, {}).get(name) for run in runs]
    return [] if None in found else [float(value) for value in found]


def _first_order(runs: Sequence[Run], setting: Setting) -> str:
    wholes, parts = _numbers(runs, setting), _numbers(runs, setting, "first_order")
    return f"{100 * sum(parts) / sum(wholes):.3g}" if parts and sum(wholes) > 0 else "–"


def _means(group: Group, settings: Sequence[Setting]) -> list[float]:
    found = [_numbers(group.runs, setting) for setting in settings]
    return [statistics.mean(each) for each in found] if all(found) else []


def _sign(one: Group, other: Group, setting: Setting) -> float:
    [first], [second] = _means(one, [setting]), _means(other, [setting])
    return math.copysign(1.0, first - second) if first != second else 0.0


def _in_words(one: Group, other: Group, first: Setting, second: Setting) -> str:
    sharper, flatter = (one, other) if _sign(one, other, first) > 0 else (other, one)
    return f"{sharper.name} is sharper than {flatter.name} at {first.title}, and flatter at {second.title}"


def _length(parameters: int) -> str:
    return f"{0.0002 * math.sqrt(parameters):.2g}"
