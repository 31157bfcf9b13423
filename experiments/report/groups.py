"""Runs that differ in their seed alone, and studies of such groups."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.config import Config
from experiments.report import labels
from experiments.report.parts import Part, part_of, part_titles
from experiments.report.run_curves import examples_of
from experiments.runner.finished_runs import Run


class Group(NamedTuple):
    """The runs of one cell of a table.

    Attributes:
      row: the method: `GSAM`, or where there are several radii `GSAM, ρ 0.1`.
      column: the strategy: `constant`, `constant 16`, `increasing`, `cosine`.
      config: what its runs have in common, the seed set to 0, and what was chosen for it to its default.
      runs: one a seed.
      remark: what tells it from other groups of this row and column, where there are any: `310 epochs`.
    """

    row: str
    column: str
    config: Config
    runs: list[Run]
    remark: str = ""

    @property
    def name(self) -> str:
        """Both labels, and the remark."""
        return ", ".join(filter(None, [self.row, self.column, self.remark]))

    @property
    def diverged(self) -> int:
        """How many of its runs diverged."""
        return sum(run.diverged for run in self.runs)

    @property
    def by_seed(self) -> dict[int, Run]:
        """The runs by their seed."""
        return {run.config.seed: run for run in self.runs}

    @property
    def epochs(self) -> int:
        """The epochs of a run; in the mean, where they are decided on the way."""
        return self._mean(lambda run: run.epochs)

    @property
    def updates(self) -> int:
        """The updates of a run; in the mean, where they are decided on the way."""
        return self._mean(lambda run: run.result.updates)

    @property
    def examples(self) -> int:
        """How many examples a run goes through, in the mean as its updates."""
        return self._mean(examples_of)

    @property
    def gradient_evaluations(self) -> float:
        """The gradient evaluations of a run, in the mean."""
        return sum(run.result.gradient_evaluations for run in self.runs) / len(self.runs)

    def _mean(self, of: Callable[[Run], int]) -> int:
        return round(sum(map(of, self.runs)) / len(self.runs))


FEW = 12  # so many groups are compared pair by pair, and have lines that can be told from one another


class Study(NamedTuple):
    """All runs of one model on one data set, with the same other settings.

    Attributes:
      title: `small_resnet on digits`, or `small_resnet on digits: label noise 0.2`.
      groups: method by method, and within a method strategy by strategy.
      part: the settings that all its runs share.
      chosen: settings that were chosen for each cell.
    """

    title: str
    groups: list[Group]
    part: Part
    chosen: tuple[str, ...] = ()

    @property
    def rows(self) -> list[str]:
        """The methods."""
        return list(dict.fromkeys(group.row for group in self.groups))

    @property
    def columns(self) -> list[str]:
        """The strategies."""
        ordered = sorted(self.groups, key=lambda group: labels.strategy_order(group.config))
        return list(dict.fromkeys(group.column for group in ordered))

    @property
    def runs(self) -> list[Run]:
        """All runs."""
        return [run for group in self.groups for run in group.runs]

    @property
    def is_large(self) -> bool:
        """Whether it has too many groups to compare each with each, or to draw a line for each."""
        return len(self.groups) > FEW

    @property
    def seeds(self) -> list[int]:
        """All seeds, each once."""
        return sorted({run.config.seed for run in self.runs})


def studies(runs: Iterable[Run], chosen: tuple[str, ...] = ()) -> list[Study]:
    """The runs, sorted into studies and groups.

    Args:
      runs: what was run.
      chosen: settings that were chosen for each method and strategy: they tell no group from another.

    Raises:
      ValueError: If `chosen` names no setting, or if one cell has several values of it.
    """
    if unknown := [name for name in chosen if name not in Config().settings]:
        raise ValueError(f"chosen is {chosen}: {unknown[0]} is no setting of a run, give learning_rate, for instance.")
    configs = {run.folder: _shared(run.config, chosen) for run in runs}
    sorted_in: dict[Part, list[Run]] = {}
    for run in runs:
        sorted_in.setdefault(part_of(configs[run.folder], list(configs.values())), []).append(run)
    titles = part_titles(list(sorted_in))
    found = [Study(titles[part], _groups(inside, configs, chosen), part, chosen) for part, inside in sorted_in.items()]
    return sorted(found, key=lambda study: (study.title.partition(":")[0], list(titles).index(study.part)))


def _shared(config: Config, chosen: Sequence[str]) -> Config:
    """The config at seed 0, with what was chosen at its default, and what is not read at 0."""
    defaults = {name: value for name, value in Config().settings.items() if name in chosen}
    return config.with_settings(seed=0, **defaults).effective


def _groups(runs: list[Run], configs: dict[Path, Config], chosen: tuple[str, ...]) -> list[Group]:
    together: dict[Config, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.config.seed):
        together.setdefault(configs[run.folder], []).append(run)
    everything = list(together)
    groups = [
        Group(labels.row(config, everything), labels.column(config, everything), config, inside)
        for config, inside in together.items()
    ]
    for group in groups:
        _check_seeds(group, chosen)
    ordered = sorted(groups, key=lambda group: (labels.method_order(group.config), *_column_order(group)))
    return [group._replace(remark=_remark(group, groups)) for group in ordered]


def _column_order(group: Group) -> tuple[Any, ...]:
    return *labels.strategy_order(group.config), group.column, group.epochs


def _check_seeds(group: Group, chosen: tuple[str, ...]) -> None:
    seed, times = Counter(run.config.seed for run in group.runs).most_common(1)[0]
    if times > 1:
        raise ValueError(
            f"chosen is {chosen}, and {group.name} has {times} runs of seed {seed} that differ in nothing else: give "
            "the runs with one choice a cell."
        )


def _remark(group: Group, groups: Sequence[Group]) -> str:
    """The epochs where groups of this row and column differ in them, else the plan."""
    alike = [each for each in groups if (each.row, each.column) == (group.row, group.column)]
    if len(alike) == 1:
        return ""
    is_told_by_epochs = len({each.epochs for each in alike}) == len(alike)
    return f"{group.epochs} epochs" if is_told_by_epochs else group.config.batch_plan
