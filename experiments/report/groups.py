"""Groups of runs that differ only in their seed, and studies of such groups."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from experiments.config import Config
from experiments.runner.finished_runs import Run
from experiments.study import labels
from experiments.training.methods import METHODS, OPTIONS

Part = tuple[tuple[str, Any], ...]
"""The settings that the runs of a study share, with their values."""

FEW = 12  # the largest number of groups that are compared pair by pair, and that have a line each

METHOD = ("method", "rho", "alpha", "when", *OPTIONS)
_TITLE = ("model", "dataset")
_RATE = "learning_rate"


@dataclass(frozen=True, eq=False)
class Group:
    """The runs of one cell of a table.

    Attributes:
      row: the method: `GSAM`, or if there are several radii `GSAM, ρ 0.1`.
      column: the strategy: `constant`, `constant 16`, `increasing`, `cosine`.
      config: the common config of the runs, with the seed 0 and the default for each chosen setting.
      runs: the rows of the table of runs, one per seed, with the seed as index.
      qualifier: what distinguishes the group from others of the same row and column, if there are any: `310 epochs`.
      has_own_rate: whether its learning rate differs from that of the study.
    """

    row: str
    column: str
    config: Config
    runs: pd.DataFrame
    qualifier: str = ""
    has_own_rate: bool = False
    _columns: dict[str, np.ndarray] = field(default_factory=dict, init=False, repr=False)

    @property
    def name(self) -> str:
        """Both labels, and the qualifier."""
        return ", ".join(filter(None, [self.row, self.column, self.qualifier]))

    @cached_property
    def seeds(self) -> list[int]:
        """The seeds."""
        return [int(seed) for seed in self.runs.index]

    @property
    def diverged(self) -> int:
        """The number of runs that diverged."""
        return int(self.values("diverged").sum())

    @property
    def epochs(self) -> int:
        """The epochs of a run; the mean if they were decided during training."""
        return self.mean("epochs")

    @property
    def gradient_evaluations(self) -> float:
        """The mean number of gradient evaluations of a run."""
        return float(self.values("gradient_evaluations").mean())

    @property
    def accuracy(self) -> float:
        """The mean training accuracy of the last epoch, or the test accuracy if it is unknown; 0 for diverged runs."""
        errors, diverged = self.values("train_error"), self.values("diverged") > 0
        errors = self.values("test_error") if np.isnan(errors[~diverged]).any() else errors
        return float(1 - np.where(np.isnan(errors), 1.0, errors).mean())

    def values(self, name: str, seeds: Sequence[int] | None = None) -> np.ndarray:
        """Returns a column of numbers of some seeds or of all runs; NaN if the table does not have the column."""
        if name not in self._columns:
            self._columns[name] = np.asarray(self.runs[name] if name in self.runs else [np.nan] * len(self.runs), float)
        return self._columns[name] if seeds is None else self._columns[name][[self.seeds.index(seed) for seed in seeds]]

    def mean(self, name: str) -> int:
        """Returns the mean of a column of counts, rounded."""
        return round(float(self.values(name).mean()))

    def recorded(self) -> list[Run]:
        """Returns the runs with their folders; empty if only the table is left."""
        return [run for run in self.runs["run"] if run is not None]

    def configs(self) -> list[Config]:
        """Returns the configs of the runs."""
        return list(self.runs["config"])


@dataclass(frozen=True, eq=False)
class Study:
    """All runs of one model on one data set, with the same other settings.

    Attributes:
      title: `small_resnet on digits`, or `small_resnet on digits: label noise 0.2`.
      groups: the groups by method, and within a method by strategy.
      part: the settings that all runs share.
      chosen: the settings that were chosen for each cell.
    """

    title: str
    groups: list[Group]
    part: Part
    chosen: tuple[str, ...] = ()

    @cached_property
    def rows(self) -> list[str]:
        """The methods."""
        return list(dict.fromkeys(group.row for group in self.groups))

    @cached_property
    def columns(self) -> list[str]:
        """The strategies."""
        return list(dict.fromkeys(group.column for group in sorted(self.groups, key=_column_order)))

    @cached_property
    def runs(self) -> pd.DataFrame:
        """The rows of all runs."""
        return pd.concat([group.runs for group in self.groups], ignore_index=True)

    @property
    def is_large(self) -> bool:
        """Whether there are too many groups to compare all pairs, or to draw a line for each."""
        return len(self.groups) > FEW

    @cached_property
    def seeds(self) -> list[int]:
        """All seeds, each once."""
        return sorted({seed for group in self.groups for seed in group.seeds})


def studies(table: pd.DataFrame, chosen: tuple[str, ...] = ()) -> list[Study]:
    """Returns the runs, sorted into studies and groups.

    Runs with a constant batch size and learning rate belong to the study from which only their learning rate differs.

    Args:
      table: the table of runs.
      chosen: the settings that were chosen for each method and strategy; they do not separate groups.

    Raises:
      ValueError: If `chosen` has a name that is no setting, or if a cell has several values of a chosen setting.
    """
    if unknown := [name for name in chosen if name not in Config().settings]:
        raise ValueError(f"chosen is {chosen}: {unknown[0]} is no setting of a run, give learning_rate, for instance.")
    if table.empty:
        return []
    shared = [_shared(config, chosen) for config in table["config"]]
    parts = [_part_of(config, shared) for config in shared]
    moved = _moved(parts, shared)
    by_part: dict[Part, list[int]] = {}
    for index, part in enumerate(parts):
        by_part.setdefault(moved.get(part, part), []).append(index)
    titles = _titles(list(by_part))
    found = [
        Study(titles[part], _groups(table.iloc[inside], [shared[i] for i in inside], part, chosen), part, chosen)
        for part, inside in by_part.items()
    ]
    return sorted(found, key=lambda study: (study.title.partition(":")[0], list(titles).index(study.part)))


def named_value(name: str, value: Any) -> str:
    """Returns a setting in words: `label noise 0.2`, `auto augment`, `no momentum`."""
    words = name.replace("_", " ")
    if value is True:
        return words
    return f"no {words}" if value is False or value is None else f"{words} {value}"


def _shared(config: Config, chosen: Sequence[str]) -> Config:
    """Returns the config at seed 0, with the default for each chosen setting, and 0 for what the method ignores."""
    read = set(chosen) - METHODS[config.method].unread
    defaults = {name: value for name, value in Config().settings.items() if name in read}
    return config.with_settings(seed=0, **defaults).effective


def _part_of(config: Config, configs: Sequence[Config]) -> Part:
    values = {
        name: value
        for name, value in config.settings.items()
        if name not in (*METHOD, "seed") and not labels.is_strategy(name)
    }
    return tuple((values | {"momentum": _momentum(config, configs)}).items())


def _momentum(config: Config, configs: Sequence[Config]) -> float:
    """Returns the momentum of the run: 0 if only its method needs one, that of the others if its method has none."""
    method = METHODS[config.method]
    if "momentum" in method.ignores:
        found = {each.descent.momentum or 0.0 for each in configs if "momentum" not in METHODS[each.method].ignores}
        return found.pop() if len(found) == 1 else 0.0
    others = {each.descent.momentum for each in configs if METHODS[each.method].momentum != method.momentum}
    is_needed = method.momentum and config.descent.momentum == method.momentum and method.momentum not in others
    return 0.0 if is_needed else config.descent.momentum or 0.0


def _moved(parts: Sequence[Part], configs: Sequence[Config]) -> dict[Part, Part]:
    """Returns, for parts with only constant runs, the part that differs only in the learning rate and has most runs."""
    counts = Counter(parts)
    is_constant = dict.fromkeys(counts, True)
    for part, config in zip(parts, configs, strict=True):
        is_constant[part] &= labels.strategy(config) == "constant"
    moved = {}
    for part in filter(is_constant.__getitem__, counts):
        alike = [each for each in counts if _without_rate(each) == _without_rate(part)]
        target = max(alike, key=lambda each: (not is_constant[each], counts[each]))
        if target != part:
            moved[part] = target
    return moved


def _without_rate(part: Part) -> Part:
    return tuple((name, value) for name, value in part if name != _RATE)


def _titles(parts: Sequence[Part]) -> dict[Part, str]:
    """Returns titles with the settings that differ among the parts of a model and data set, fewest changes first."""
    defaults = Config().settings | {"momentum": 0.0}

    def title(part: Part) -> str:
        values = dict(part)
        alike = [dict(each) for each in parts if all(dict(each)[name] == values[name] for name in _TITLE)]
        differing = [name for name in values if len({each[name] for each in alike}) > 1]
        words = [named_value(name, values[name]) for name in differing if values[name] != defaults[name]]
        return f"{values['model']} on {values['dataset']}" + (f": {', '.join(words)}" if words else "")

    def changed(part: Part) -> int:
        return sum(value != defaults[name] for name, value in part)

    return {part: title(part) for part in sorted(parts, key=changed)}


def _groups(table: pd.DataFrame, configs: list[Config], part: Part, chosen: tuple[str, ...]) -> list[Group]:
    usual = dict(part)[_RATE]
    together: dict[Config, list[int]] = {}
    for index, config in enumerate(configs):
        together.setdefault(config, []).append(index)
    everything = list(together)
    groups = []
    for config, inside in together.items():
        runs = table.iloc[inside].set_index("seed", drop=False).rename_axis(None).sort_index()
        names = labels.row(config, everything), labels.column(config, everything, usual)
        groups.append(Group(*names, config, runs, has_own_rate=config.descent.learning_rate != usual))
    for group in groups:
        _check_seeds(group, chosen)
    ordered = sorted(groups, key=lambda group: (labels.method_order(group.config), *_column_order(group)))
    return [replace(group, qualifier=_qualifier(group, groups)) for group in ordered]


def _column_order(group: Group) -> tuple[Any, ...]:
    return *labels.strategy_order(group.config), group.has_own_rate, group.column, group.epochs


def _check_seeds(group: Group, chosen: tuple[str, ...]) -> None:
    seed, times = Counter(group.seeds).most_common(1)[0]
    if times > 1:
        raise ValueError(
            f"chosen is {chosen}, and {group.name} has {times} runs of seed {seed} that differ in nothing else: give "
            "the runs with one choice per cell."
        )


def _qualifier(group: Group, groups: Iterable[Group]) -> str:
    """Returns the epochs if the groups of this row and column differ in them, else the plan."""
    alike = [each for each in groups if (each.row, each.column) == (group.row, group.column)]
    if len(alike) == 1:
        return ""
    return f"{group.epochs} epochs" if len({each.epochs for each in alike}) == len(alike) else group.config.batch_plan
