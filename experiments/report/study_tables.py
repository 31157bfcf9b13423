"""Differences, settings and runs of a study, as rows of text."""

import os

from experiments.cli.tables import Rows
from experiments.config import Config
from experiments.report.figures import signed
from experiments.report.groups import Group, Study
from experiments.report.paired import Difference
from experiments.report.wording import direction
from experiments.runner.finished_runs import Run
from experiments.training.methods import METHODS

_ALWAYS = ("dataset", "model", "method", "rho", "batch_plan", "lr_schedule", "learning_rate", "seed")


def difference_rows(pairs: list[Difference]) -> Rows:
    """A row a pair: the mean paired difference in test error, its 95% t interval, and what it says."""
    heading = ("this", "less that", "points", "95% interval", "seeds", "this is")
    return [heading, *(_difference(pair) for pair in pairs)]


def setting_rows(study: Study) -> Rows:
    """The settings that matter most, and those that differ among runs or are not at their defaults, with all values."""
    names = list(study.runs[0].config.settings)
    values = {name: list(dict.fromkeys(_value(run.config, name) for run in study.runs)) for name in names}
    changed = set().union(*(_changed(run.config) for run in study.runs))
    shown = [name for name in names if name in {*_ALWAYS, *changed} or len(set(values[name]) - {"–"}) > 1]
    rows = [(name.replace("_", " "), "; ".join(each for each in values[name] if each != "–") or "–") for name in shown]
    return [("setting", "value"), *rows]


def _value(config: Config, name: str) -> str:
    """A setting in words, a dash where the run has none or does not read it."""
    value = config.settings[name]
    is_read = name not in ("rho", "alpha") or name in METHODS[config.method].uses
    return "–" if value is None or not is_read else str(value)


def _changed(config: Config) -> set[str]:
    """The settings of a run that are not at their defaults."""
    usual = Config.from_settings(method=config.method, optimizer=config.descent.optimizer).settings
    return {name for name, value in config.settings.items() if value != usual[name]}


def run_rows(study: Study) -> Rows:
    """A row a run: what it took, and where it ended."""
    heading = ("run", "seed", "test error, %", "training loss", "updates", "gradient evaluations", "seconds", "folder")
    root = os.path.commonpath([run.folder.resolve().parent for run in study.runs])
    return [heading, *(_run(group, run, root) for group in study.groups for run in group.runs)]


def _difference(pair: Difference) -> tuple[str, ...]:
    interval = f"{signed(pair.low)} to {signed(pair.high)}"
    return pair.first.name, pair.second.name, signed(pair.mean), interval, str(pair.seeds), direction(pair)


def _run(group: Group, run: Run, root: str) -> tuple[str, ...]:
    return (
        group.name,
        str(run.config.seed),
        f"{100 * run.result.test_error:.2f}",
        "– (diverged)" if run.diverged else f"{run.result.train_loss:.4g}",
        str(run.result.updates),
        str(run.result.gradient_evaluations),
        f"{run.result.seconds:.0f}",
        os.path.relpath(run.folder.resolve(), root),
    )
