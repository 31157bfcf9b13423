"""How methods and strategies are called in the tables of a study."""

from collections.abc import Sequence
from itertools import pairwise

from experiments.config import Config
from experiments.study.strategies import is_late_switch
from experiments.training import learning_rate
from experiments.training.methods import METHODS, MINIMA

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
_PAPERS_DECAYS = ("cosine", "linear")
_GROWTHS = ("constant", "increasing", "late switch", "adaptive", "decreasing", "varying")


def row(config: Config, configs: Sequence[Config]) -> str:
    """The method, with those of its hyperparameters that differ among methods of the same scale.

    Args:
      config: of a run.
      configs: those of the study.
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
    is_alone = method.momentum and {each.descent.momentum for each in configs} != {config.descent.momentum}
    own_momentum = [f"momentum {config.descent.momentum:g}"] if is_alone else []
    return ", ".join([method.title, *settings, *own_time, *own_numbers, *own_momentum])


def column(config: Config, configs: Sequence[Config]) -> str:
    """The strategy, with its batch size or its plan where others of the study have the same strategy with another.

    Args:
      config: of a run.
      configs: those of the study.
    """
    words = strategy(config)
    several = len({_course(each) for each in configs if strategy(each) == words}) > 1
    if config.adaptive is not None:
        return f"{words}, {config.adaptive.spec}" if several else words
    if growth(config) == "constant":
        return f"{words} {config.plan.stages[0].batch_size}" if several else words
    grown = {sizes(each) for each in configs if growth(each) == "increasing"}
    if growth(config) == "decreasing" and sizes(config)[::-1] in grown:
        words = words.replace("decreasing", "reversed")
    return f"{words}, {config.batch_plan}" if several else words


def strategy(config: Config) -> str:
    """How batch size, learning rate and radius go: `constant`, `increasing`, `cosine`, or `cosine, falling radius`."""
    changes = growth(config), _rate(config), _radius(config)
    return ", ".join(each for each in changes if each != "constant") or "constant"


def _rate(config: Config) -> str:
    """How the learning rate goes; periods of equal length are counted, for it is their length that a match changes."""
    name, _, length = config.lr_schedule.partition(":")
    if name != "warm_restarts" or "x" in length:
        return config.lr_schedule
    return f"warm restarts ({config.length(config.epoch_size) / float(length):.3g} periods)"


def _radius(config: Config) -> str:
    """How the radius and alpha go: `falling radius` if all that the method has fall to 0 with the learning rate."""
    uses = METHODS[config.method].uses
    falling = {name: value for name in uses if (value := config.settings[MINIMA[name]]) is not None}
    if falling == dict.fromkeys(uses, 0.0):
        return "falling radius" if uses else "constant"
    return ", ".join(f"{_SYMBOLS[name]} down to {value:g}" for name, value in falling.items()) or "constant"


def growth(config: Config) -> str:
    """How the batch size goes: `constant`, `increasing`, `late switch`, `decreasing` or `varying`, or `adaptive`."""
    if config.adaptive is not None:
        return "adaptive"
    steps = [after.batch_size - before.batch_size for before, after in pairwise(config.plan.stages)]
    if not any(steps):
        return "constant"
    if min(steps) >= 0:
        return "late switch" if is_late_switch(config.plan) else "increasing"
    return "decreasing" if max(steps) <= 0 else "varying"


def is_constant_batch(config: Config) -> bool:
    """Whether the batch size never changes."""
    return growth(config) == "constant"


def is_papers_decay(config: Config) -> bool:
    """Whether the learning rate falls as one of the paper's does, along a cosine or a line, at a constant radius."""
    return learning_rate.name_of(config.lr_schedule) in _PAPERS_DECAYS and _radius(config) == "constant"


def sizes(config: Config) -> tuple[int, ...]:
    """The batch sizes of the plan, one after another, whatever their epochs; one alone of a constant plan.

    Of an adaptive one those that it may come to.
    """
    if config.adaptive is not None:
        return config.adaptive.sizes
    found = tuple(stage.batch_size for stage in config.plan.stages)
    return found[:1] if len(set(found)) == 1 else found


def _course(config: Config) -> tuple[int, ...] | str:
    """The batch sizes, and the rule of an adaptive plan, whatever the length of the run."""
    return sizes(config) if config.adaptive is None else config.adaptive.spec


def heading(name: str) -> str:
    """The strategy, with the paper's sign for it."""
    return name.replace("increasing", "increasing (+B)").replace("cosine", "cosine (+C)")


def method_order(config: Config) -> tuple[int, float, float, str]:
    """What rows are sorted by."""
    return list(METHODS).index(config.method), config.descent.rho or 0.0, config.descent.alpha or 0.0, str(config.when)


def strategy_order(config: Config) -> tuple[int, str, int, tuple[int, ...]]:
    """What columns are sorted by: what stays before what falls or grows, in the order of rate, radius and batch."""
    return (
        learning_rate.NAMES.index(learning_rate.name_of(config.lr_schedule)),
        _radius(config),
        _GROWTHS.index(growth(config)),
        sizes(config),
    )
