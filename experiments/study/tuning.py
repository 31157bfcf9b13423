"""Tuning: chooses a learning rate and a radius for each cell of a study, without using the test set."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, NamedTuple

from experiments import data
from experiments.cli.tables import Rows
from experiments.config import checks
from experiments.runner import run
from experiments.runner.finished_runs import TRIALS
from experiments.study.grid import Grid
from experiments.study.run_spec import RunSpec
from experiments.study.strategies import TUNED
from experiments.training.methods import METHODS, OPTIONS

_USUAL = (0.9, 5e-4)  # momentum and weight decay


@dataclass(frozen=True)
class Tuning:
    """The settings that are tried for each method and strategy.

    Attributes:
      rates: The learning rates, as multiples of the study's learning rate. Each is tried with each radius.
      radii: The radii, as multiples of the study's radius, or of the method's default radius if the study has none.
        Methods without a radius ignore them.
      seeds: The seeds of the trials. Each pair of rate and radius is tried once per seed; no seed of the study may be
        among them.
      validation: The fraction of the training examples that is held out, on which the settings are compared.
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
            raise ValueError("tuning.validation is 0.0: give a positive fraction, so as not to tune on the test set.")


class Setting(NamedTuple):
    """A candidate learning rate and radius for a cell, which is a pair of a method and a strategy.

    Attributes:
      method: the method of the cell.
      strategy: the strategy of the cell.
      learning_rate: the initial learning rate.
      rho: the radius; None if the method has none.
    """

    method: str
    strategy: str
    learning_rate: float
    rho: float | None


class Trial(NamedTuple):
    """A setting and the runs that try it, one per seed."""

    setting: Setting
    run_specs: list[RunSpec]


class Choice(NamedTuple):
    """The setting that was chosen for a cell.

    Attributes:
      setting: the setting.
      error: its mean error on the held-out examples.
      at_edge: whether its rate or radius is the smallest or largest that was tried, so that a value outside the tried
        range may be better.
    """

    setting: Setting
    error: float
    at_edge: bool


def trials(study: Grid, tuning: Tuning, stored: int) -> list[Trial]:
    """Returns all trials, ordered by cell.

    Args:
      study: the study to tune.
      tuning: the settings to try.
      stored: the number of training examples of the data set.

    Raises:
      ValueError: If a seed of the tuning is a seed of the study, if the study has several values of `match`, has
        patterns of cells or a strategy with rates of its own, or if there are too many trials.
    """
    if len(study.match) > 1:
        raise ValueError(f"match is {study.match}: give one value, as a cell is tuned for one number of epochs.")
    if study.include != ("*",):
        raise ValueError(f"include is {study.include}: with tune give '*', and choose by methods and strategies.")
    if TUNED in study.strategies:
        raise ValueError(f"strategies has {TUNED!r}: omit it with tune, which chooses a rate for every strategy.")
    if shared := set(tuning.seeds) & set(study.seeds):
        raise ValueError(f"tuning.seeds has {min(shared)}, a seed of the study: give other seeds.")
    cells = len(study.strategies) * len(study.methods)
    checks.check_runs("tuning.rates", tuning.rates, cells * len(tuning.radii) * len(tuning.seeds))
    return [
        _trial(study, tuning, setting, stored)
        for strategy in study.strategies
        for method in study.methods
        if study.has_cell(method, strategy)
        for setting in _settings(study, tuning, method, strategy)
    ]


def _settings(study: Grid, tuning: Tuning, method: str, strategy: str) -> list[Setting]:
    radius = METHODS[method].rho if study.descent.rho is None else study.descent.rho
    radii = [_product(radius, factor) for factor in tuning.radii] if "rho" in METHODS[method].uses else [None]
    rates = [_product(study.descent.learning_rate, factor) for factor in tuning.rates]
    return [Setting(method, strategy, rate, rho) for rate in rates for rho in radii]


def _product(value: float, factor: float) -> float:
    return float(f"{value * factor:.6g}")  # few digits, since the value is part of a folder's name


def choose(tried: Iterable[Trial]) -> list[Choice]:
    """Returns for each cell the setting with the lowest mean error on held-out examples; the loss breaks ties."""
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
    """Returns the study as given and the study with momentum 0.9 and weight decay 5e-4, each with its own folder.

    With momentum `μ` the learning rate is multiplied by `1 − μ`, so that the effective rate stays the same. A study
    with AdamW has no second variant, since AdamW has its own momentum and weight decay.
    """
    momentum, decay = _USUAL
    both = {"as_given": study}
    if study.descent.optimizer == "sgd" and (study.descent.momentum, study.descent.weight_decay) != _USUAL:
        rate = _product(study.descent.learning_rate, (1 - momentum) / (1 - (study.descent.momentum or 0.0)))
        both["momentum"] = study.with_settings(momentum=momentum, weight_decay=decay, learning_rate=rate)
    return {name: replace(each, output=each.output / name) for name, each in both.items()}


def choice_rows(choices: Iterable[Choice]) -> Rows:
    """Returns the choices as a table, one row per cell, with the error on the held-out examples."""
    rows: Rows = [("method", "strategy", "learning rate", "ρ", "error on held-out examples, %", "at the edge")]
    for (method, strategy, rate, rho), error, at_edge in choices:
        radius = "–" if rho is None else f"{rho:g}"
        edge = "yes" if at_edge else "no"
        rows.append((METHODS[method].title, strategy, f"{rate:g}", radius, f"{100 * error:.2f}", edge))
    return rows


def tuned_specs(study: Grid, choices: Iterable[Choice], stored: int) -> list[RunSpec]:
    """Returns the study's runs on its own seeds, each with the chosen setting of its cell."""
    of_choices = [_narrowed(study, choice.setting).run_specs(stored) for choice in choices]
    return [spec for at_seed in zip(*of_choices, strict=True) for spec in at_seed]


def _trial(study: Grid, tuning: Tuning, setting: Setting, stored: int) -> Trial:
    words = [f"rate_{setting.learning_rate:g}", *([] if setting.rho is None else [f"rho_{setting.rho:g}"])]
    folder, tried = study.output / TRIALS / "-".join(words), ", ".join(words).replace("_", " ")
    specs = []
    # The batch plans are the same as in the study, because `stored` also counts the held-out examples.
    for spec in replace(_narrowed(study, setting), seeds=tuning.seeds).run_specs(stored):
        config = spec.config.with_settings(validation=tuning.validation)
        specs.append(RunSpec(f"{spec.name}, {tried}", config, folder / spec.folder.name))
    return Trial(setting, specs)


def _mean(trial: Trial, name: str) -> float:
    """Returns the mean of a metric over the seeds of a trial; infinity if a run diverged."""
    results = [run.result_of(spec.folder) for spec in trial.run_specs]
    return statistics.mean(float("inf") if result.diverged else getattr(result, name) for result in results)


def _narrowed(study: Grid, setting: Setting) -> Grid:
    """Returns the study restricted to the cell of a setting, without the options that its method does not have.

    If the seed determines which images are test images, the split is fixed, so that trials and runs share it.
    """
    method, strategy, rate, rho = setting
    dataset, split = study.problem.dataset, study.problem.split
    if split is None and dataset in data.SPLIT_BY_SEED:
        split = study.seeds[0]
    unread: dict[str, Any] = {name: None for name in OPTIONS if name not in METHODS[method].options}
    narrowed = study.with_settings(methods=(method,), strategies=(strategy,), split=split, **unread)
    return narrowed.with_settings(learning_rate=rate, rho=rho)
