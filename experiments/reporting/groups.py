"""Runs that differ in their seed alone, and how they are called in a table of methods by strategies."""

import dataclasses
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from experiments.config import Config
from experiments.reporting.runs import Run
from experiments.training.learning_rate import SCHEDULES
from experiments.training.methods import METHODS

_SYMBOLS = {"rho": "ρ", "alpha": "α"}
_OTHERS = ("optimizer", "learning_rate", "momentum", "weight_decay")
_GROWTHS = ("constant", "increasing", "decreasing", "varying")


class Group(NamedTuple):
    """The runs of one cell of the table.

    Attributes:
      row: the method: `GSAM`, or where there are several radii `GSAM, ρ 0.1`.
      column: the strategy: `constant`, `increasing`, `cosine`.
      runs: one a seed.
    """

    row: str
    column: str
    runs: list[Run]

    @property
    def name(self) -> str:
        """Both labels."""
        return f"{self.row}, {self.column}"

    @property
    def config(self) -> Config:
        """What its runs have in common, the seed set to 0."""
        return dataclasses.replace(self.runs[0].config.effective, seed=0)

    @property
    def diverged(self) -> int:
        """How many of its runs diverged."""
        return sum(run.diverged for run in self.runs)

    @property
    def by_seed(self) -> dict[int, Run]:
        """The runs by their seed."""
        return {run.config.seed: run for run in self.runs}


class Study(NamedTuple):
    """All runs of one model on one data set.

    Attributes:
      title: `small_resnet on digits`.
      groups: method by method, and within a method strategy by strategy.
    """

    title: str
    groups: list[Group]

    @property
    def rows(self) -> list[str]:
        """The methods."""
        return list(dict.fromkeys(group.row for group in self.groups))

    @property
    def columns(self) -> list[str]:
        """The strategies."""
        return list(dict.fromkeys(group.column for group in sorted(self.groups, key=_strategy_order)))

    @property
    def runs(self) -> list[Run]:
        """All runs."""
        return [run for group in self.groups for run in group.runs]

    @property
    def seeds(self) -> list[int]:
        """All seeds, each once."""
        return sorted({run.config.seed for run in self.runs})


def studies(runs: Iterable[Run]) -> list[Study]:
    """The runs, sorted into studies and groups."""
    sorted_in: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        sorted_in.setdefault((run.config.model, run.config.dataset), []).append(run)
    return [Study(f"{model} on {dataset}", _groups(inside)) for (model, dataset), inside in sorted_in.items()]


def _groups(runs: list[Run]) -> list[Group]:
    configs = [run.config.effective for run in runs]
    together: dict[Config, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.config.seed):
        together.setdefault(dataclasses.replace(run.config.effective, seed=0), []).append(run)
    groups = [Group(_row(config, configs), _column(config, configs), inside) for config, inside in together.items()]
    return sorted(groups, key=lambda group: (_method_order(group), _strategy_order(group)))


def _row(config: Config, configs: list[Config]) -> str:
    """The method, with those of its hyperparameters that differ among methods of the same scale."""
    method = METHODS[config.method]
    alike = [each for each in configs if METHODS[each.method].rho == method.rho]
    values = {
        name: {getattr(each, name) for each in alike if name in METHODS[each.method].uses} for name in method.uses
    }
    names = [name for name in method.uses if len(values[name]) > 1]
    settings = [f"{_SYMBOLS[name]} {getattr(config, name):g}" for name in names]
    own_time = [] if config.when == method.when else [str(config.when).replace(":", " ")]
    return ", ".join([method.title, *settings, *own_time])


def _column(config: Config, configs: list[Config]) -> str:
    """The strategy, with its batch plan where others have the same strategy, and with what else differs."""
    differing = [name for name in _OTHERS if len({getattr(each, name) for each in configs}) > 1]
    others = [f"{name.replace('_', ' ')} {getattr(config, name)}" for name in differing]
    plans = {each.batch_plan for each in configs if strategy(each) == strategy(config)}
    plan = [config.batch_plan] if len(plans) > 1 else []
    return ", ".join([strategy(config), *plan, *others])


def strategy(config: Config) -> str:
    """How batch size and learning rate go: `constant`, `increasing`, `cosine`, or `increasing, cosine`."""
    return ", ".join(each for each in (_growth(config), config.lr_schedule) if each != "constant") or "constant"


def _growth(config: Config) -> str:
    steps = [after.batch_size - before.batch_size for before, after in pairwise(config.plan.stages)]
    if not any(steps):
        return "constant"
    if min(steps) >= 0:
        return "increasing"
    return "decreasing" if max(steps) <= 0 else "varying"


def _method_order(group: Group) -> tuple[int, float, float, str]:
    config = group.runs[0].config
    return list(METHODS).index(config.method), config.rho or 0.0, config.alpha or 0.0, str(config.when)


def _strategy_order(group: Group) -> tuple[int, int, str]:
    config = group.runs[0].config
    return list(SCHEDULES).index(config.lr_schedule), _GROWTHS.index(_growth(config)), group.column
