"""What each cell of a tuned study was given."""

from experiments.cli.tables import Rows
from experiments.report import labels
from experiments.report.groups import Group, Study
from experiments.training.methods import METHODS

REMARK = "Settings that were chosen for each method and strategy; the groups differ in these, too."


def chosen_rows(study: Study) -> Rows:
    """A row a group: the settings that were chosen for it; the heading alone where nothing was."""
    heading = ("group", *(name.replace("_", " ").replace("rho", "ρ") for name in study.chosen))
    if not study.chosen:
        return [heading]
    return [heading, *((labels.heading(g.name), *(_value(g, name) for name in study.chosen)) for g in study.groups)]


def _value(group: Group, name: str) -> str:
    if name in ("rho", "alpha") and name not in METHODS[group.config.method].uses:
        return "–"
    values = dict.fromkeys(run.config.settings[name] for run in group.runs)
    return ", ".join("–" if value is None else f"{value:g}" for value in values)
