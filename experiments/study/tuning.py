"""Tuning: each cell of a study at the learning rate and the radius that suit it, chosen without the test set."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import groupby
from typing import NamedTuple

from experiments import data
from experiments.cli.tables import Rows
from experiments.config import checks
from experiments.runner import run
from experiments.study.grid import Grid
from experiments.study.run_spec import RunSpec
from experiments.training.methods import METHODS

_USUAL = (0.9, 5e-4)  # momentum and weight decay


@dataclass(frozen=True)
class Tuning:
    """Which settings are tried for each method and strategy, and on what.

    Attributes:
      rates: In units of the study's learning rate; each is tried with each radius.
      radii: In units of the study's radius, or of the method's own, for methods that have one.
      seeds: One trial a pair and seed; none of them is a seed of the study.
      validation: The fraction of the training examples that is held out to choose by.
    """

    rates: tuple[float, ...] = (0.3, 1.0, 3.0)
    radii: tuple[float, ...] = (0.4, 1.0, 2.0, 4.0)
    seeds: tuple[int, ...] = (100, 101)
    validation: float = 0.2

    def __post_init__(self) -> None:
        for name in ("rates", "radii", "seeds"):
            checks.check_runs(f"tuning.{name}", getattr(self, name), 1)
            checks.check_distinct(f"tuning.{name}", getattr(self, name))
        for name in ("rates", "radii"):
            for value in getattr(self, name):
                checks.check_number(f"tuning.{name}", value)
        checks.check_fraction("tuning.validation", self.validation)
        if not self.validation:
            raise ValueError("tuning.validation is 0.0: hold some examples out, or the test set would choose.")


class Setting(NamedTuple):
    """What may be chosen for a cell.

    Attributes:
      method: of the cell.
      strategy: of the cell.
      learning_rate: its initial learning rate.
      rho: its radius; None where the method has none.
    """

    method: str
    strategy: str
    learning_rate: float
    rho: float | None


class Trial(NamedTuple):
    """A setting that is tried, by a run a seed."""

    setting: Setting
    cells: list[RunSpec]


class Choice(NamedTuple):
    """A setting that was chosen.

    Attributes:
      setting: what was chosen.
      error: its mean error on the held-out examples.
      at_edge: whether a rate or a radius beyond those that were tried might do better.
    """

    setting: Setting
    error: float
    at_edge: bool


def trials(study: Grid, tuning: Tuning, stored: int) -> list[Trial]:
    """All that is tried, cell by cell of the study.

    Args:
      study: what is tuned.
      tuning: what is tried.
      stored: how many training examples the data set has.

    Raises:
      ValueError: If a seed of the tuning is one of the study, if cells would be matched in several ways, or if there
        are more trials than can be planned.
    """
    if len(study.match) > 1:
        raise ValueError(f"match is {study.match}: give one of them, a cell is tuned for one number of epochs.")
    if shared := set(tuning.seeds) & set(study.seeds):
        raise ValueError(f"tuning.seeds has {min(shared)}, a seed of the study: give fresh ones.")
    cells = len(study.strategies) * len(study.methods)
    checks.check_runs("tuning.rates", tuning.rates, cells * len(tuning.radii) * len(tuning.seeds))
    return [
        _trial(study, tuning, setting, stored)
        for strategy in study.strategies
        for method in study.methods
        for setting in _settings(study, tuning, method, strategy)
    ]


def _settings(study: Grid, tuning: Tuning, method: str, strategy: str) -> list[Setting]:
    radius = METHODS[method].rho if study.descent.rho is None else study.descent.rho
    radii = [_product(radius, factor) for factor in tuning.radii] if "rho" in METHODS[method].uses else [None]
    rates = [_product(study.descent.learning_rate, factor) for factor in tuning.rates]
    return [Setting(method, strategy, rate, rho) for rate in rates for rho in radii]


def _product(value: float, factor: float) -> float:
    return float(f"{value * factor:.6g}")  # it stands in the names of folders


def choose(tried: Iterable[Trial]) -> list[Choice]:
    """For each cell the setting with the lowest mean error on held-out examples; among equals, with the lowest loss."""
    choices = []
    for _, trials_of_cell in groupby(tried, lambda trial: trial.setting[:2]):
        all_tried = list(trials_of_cell)
        best = min(all_tried, key=lambda trial: (_mean(trial, "test_error"), _mean(trial, "test_loss")))
        at_edge = any(
            len(set(values)) > 1 and chosen in {min(values), max(values)}
            for chosen, *values in zip(best.setting[2:], *(trial.setting[2:] for trial in all_tried), strict=True)
        )
        choices.append(Choice(best.setting, _mean(best, "test_error"), at_edge))
    return choices


def variants(study: Grid) -> dict[str, Grid]:
    """The study as it is, and with momentum 0.9 and a weight decay of 5e-4, each in a folder of its own.

    With momentum `μ` the rate is `1 − μ` times as large, for that is what it amounts to. AdamW has its own of both, and
    stays as it is.
    """
    momentum, decay = _USUAL
    both = {"as_given": study}
    if study.descent.optimizer == "sgd" and (study.descent.momentum, study.descent.weight_decay) != _USUAL:
        rate = _product(study.descent.learning_rate, (1 - momentum) / (1 - (study.descent.momentum or 0.0)))
        both["momentum"] = study.with_settings(momentum=momentum, weight_decay=decay, learning_rate=rate)
    return {name: replace(each, output=each.output / name) for name, each in both.items()}


def choice_rows(choices: Iterable[Choice]) -> Rows:
    """A row a cell: what was chosen, and its error on the held-out examples."""
    rows: Rows = [("method", "strategy", "learning rate", "ρ", "error on held-out examples, %", "at the edge")]
    for (method, strategy, rate, rho), error, at_edge in choices:
        radius = "–" if rho is None else f"{rho:g}"
        edge = "yes" if at_edge else "no"
        rows.append((METHODS[method].title, strategy, f"{rate:g}", radius, f"{100 * error:.2f}", edge))
    return rows


def tuned_cells(study: Grid, choices: Iterable[Choice], stored: int) -> list[RunSpec]:
    """The study's runs on its own seeds, each with what was chosen for it."""
    of_choices = [_narrowed(study, choice.setting).cells(stored) for choice in choices]
    return [cell for at_seed in zip(*of_choices, strict=True) for cell in at_seed]


def _trial(study: Grid, tuning: Tuning, setting: Setting, stored: int) -> Trial:
    words = [f"rate_{setting.learning_rate:g}", *([] if setting.rho is None else [f"rho_{setting.rho:g}"])]
    folder, tried = study.output / "trials" / "-".join(words), ", ".join(words).replace("_", " ")
    cells = []
    for cell in replace(_narrowed(study, setting), seeds=tuning.seeds).cells(stored):  # with the plan of the study
        config = cell.config.with_settings(validation=tuning.validation)
        cells.append(RunSpec(f"{cell.name}, {tried}", config, folder / cell.folder.name))
    return Trial(setting, cells)


def _mean(trial: Trial, name: str) -> float:
    """Of a figure over the seeds, infinite where a run diverged."""
    results = [run.result_of(cell.folder) for cell in trial.cells]
    return statistics.mean(float("inf") if result.diverged else getattr(result, name) for result in results)


def _narrowed(study: Grid, setting: Setting) -> Grid:
    """The cell of a setting; where a seed chooses the test images, trials and runs have the same ones."""
    method, strategy, rate, rho = setting
    dataset, split = study.problem.dataset, study.problem.split
    if split is None and dataset in data.SPLIT_BY_SEED:
        split = study.seeds[0]
    return study.with_settings(methods=(method,), strategies=(strategy,), learning_rate=rate, rho=rho, split=split)
