"""The names of methods and strategies in a report."""

import functools
from collections.abc import Sequence
from itertools import pairwise

from experiments.config import Config
from experiments.study.strategies import is_late_switch
from experiments.training import learning_rate
from experiments.training.methods import METHODS, MINIMA

OTHER_GROWTH = {"adaptive": "a batch that the noise decides on", "late switch": "a batch that grows once, late"}
"""The strategies, besides the increasing plan, in which the batch grows, in words."""

_SYMBOLS = {"rho": "ρ", "alpha": "α"}
_CONSTANTS = {
    "gamma": "γ {:g}",
    "sigma": "σ {:g}",
    "lam": "λ {:g}",
    "theta": "θ {:g}",
    "eta": "η {:g}",
    "ascent_steps": "{} ascent steps",
    "damping": "damping {:g}",
}
_OF_STRATEGY = ("batch_plan", "lr_schedule", *MINIMA.values())
_PAPERS_DECAYS = ("cosine", "linear")
_GROWTHS = ("constant", "increasing", "late switch", "adaptive", "decreasing", "varying")


def row(config: Config, configs: Sequence[Config]) -> str:
    """Returns the method, with those of its hyperparameters that differ among methods of the same scale.

    Args:
      config: the config of a run.
      configs: the configs of the study.
    """
    method = METHODS[config.method]
    alike = [each for each in configs if METHODS[each.method].rho == method.rho]
    values = {
        name: {each.settings[name] for each in alike if name in METHODS[each.method].uses} for name in method.uses
    }
    names = [name for name in method.uses if len(values[name]) > 1]
    settings = [f"{_SYMBOLS[name]} {config.settings[name]:g}" for name in names]
    own_time = [] if config.when == method.when else [str(config.when).replace(":", " ")]
    pairs = zip(config.constants._asdict().items(), method.constants, strict=True)
    own_numbers = [_CONSTANTS[name].format(value) for (name, value), usual in pairs if value not in (None, usual)]
    momenta = {each.descent.momentum for each in configs if "momentum" not in METHODS[each.method].ignores}
    own_momentum = [f"momentum {config.descent.momentum:g}"] if method.momentum and len(momenta) > 1 else []
    return ", ".join([method.title, *settings, *own_time, *own_numbers, *own_momentum])


def column(config: Config, configs: Sequence[Config], usual_rate: float) -> str:
    """Returns the strategy, with its batch size or its plan if others of the study have the same strategy with another.

    Args:
      config: the config of a run.
      configs: the configs of the study.
      usual_rate: the learning rate of the study; a run with another one has it in its name.
    """
    words = strategy(config)
    rate = config.descent.learning_rate
    own_rate = "" if rate == usual_rate else f", learning rate {rate:g}"
    several = len({_course(each) for each in configs if strategy(each) == words}) > 1
    if config.adaptive is not None:
        return (f"{words}, {config.adaptive.spec}" if several else words) + own_rate
    if growth(config) == "constant":
        return (f"{words} {config.plan.stages[0].batch_size}" if several else words) + own_rate
    grown = {sizes(each) for each in configs if growth(each) == "increasing"}
    if growth(config) == "decreasing" and sizes(config)[::-1] in grown:
        words = words.replace("decreasing", "reversed")
    return (f"{words}, {config.batch_plan}" if several else words) + own_rate


@functools.cache
def strategy(config: Config) -> str:
    """Returns how batch size, learning rate and radius change: `constant`, `increasing`, `cosine, falling radius`."""
    words = (growth(config), *schedules(config))
    return ", ".join(each for each in words if each != "constant") or "constant"


@functools.cache
def schedules(config: Config) -> tuple[str, ...]:
    """Returns the schedules of the learning rate and of the radius that are not constant, in words."""
    return tuple(each for each in (_rate(config), _radius(config)) if each != "constant")


def is_strategy(name: str) -> bool:
    """Returns whether a setting belongs to the strategy: how something changes during a run."""
    return name in _OF_STRATEGY


def _rate(config: Config) -> str:
    """Returns how the learning rate changes; equal periods are counted, since a match changes their length."""
    name, _, length = config.lr_schedule.partition(":")
    if name != "warm_restarts" or "x" in length:
        return config.lr_schedule
    return f"warm restarts ({config.length(config.epoch_size) / float(length):.3g} periods)"


def _radius(config: Config) -> str:
    """Returns how the radius and alpha change: `falling radius` if all that the method has fall to 0 with the rate."""
    uses = METHODS[config.method].uses
    falling = {name: value for name in uses if (value := config.settings[MINIMA[name]]) is not None}
    if falling == dict.fromkeys(uses, 0.0):
        return "falling radius" if uses else "constant"
    return ", ".join(f"{_SYMBOLS[name]} down to {value:g}" for name, value in falling.items()) or "constant"


@functools.cache
def growth(config: Config) -> str:
    """Returns how the batch size changes: one of `_GROWTHS`."""
    if config.adaptive is not None:
        return "adaptive"
    steps = [after.batch_size - before.batch_size for before, after in pairwise(config.plan.stages)]
    if not any(steps):
        return "constant"
    if min(steps) >= 0:
        return "late switch" if is_late_switch(config.plan) else "increasing"
    return "decreasing" if max(steps) <= 0 else "varying"


def is_constant_batch(config: Config) -> bool:
    """Returns whether the batch size never changes."""
    return growth(config) == "constant"


def is_papers_decay(config: Config) -> bool:
    """Returns whether the learning rate falls as one of the paper's does, at a constant radius."""
    return learning_rate.name_of(config.lr_schedule) in _PAPERS_DECAYS and _radius(config) == "constant"


@functools.cache
def sizes(config: Config) -> tuple[int, ...]:
    """Returns the batch sizes of the plan in order, whatever their epochs; a constant plan has one.

    An adaptive plan has those that it may reach.
    """
    if config.adaptive is not None:
        return config.adaptive.sizes
    found = tuple(stage.batch_size for stage in config.plan.stages)
    return found[:1] if len(set(found)) == 1 else found


def _course(config: Config) -> tuple[int, ...] | str:
    """Returns the batch sizes, or the rule of an adaptive plan, whatever the length of the run."""
    return sizes(config) if config.adaptive is None else config.adaptive.spec


def heading(name: str) -> str:
    """Returns the strategy, with the paper's sign for it."""
    return name.replace("increasing", "increasing (+B)").replace("cosine", "cosine (+C)")


def method_order(config: Config) -> tuple[int, float, float, str]:
    """Returns the sort key of rows."""
    return list(METHODS).index(config.method), config.descent.rho or 0.0, config.descent.alpha or 0.0, str(config.when)


def strategy_order(config: Config) -> tuple[int, str, int, tuple[int, ...], str]:
    """Returns the sort key of columns: what is constant before what falls or grows, by rate, radius and batch."""
    return (
        learning_rate.NAMES.index(learning_rate.name_of(config.lr_schedule)),
        _radius(config),
        _GROWTHS.index(growth(config)),
        sizes(config),
        strategy(config),
    )
