"""The parts of a report: runs of one model on one data set that share all settings but method and strategy."""

from collections.abc import Sequence
from typing import Any

from experiments.config import Config
from experiments.training.methods import METHODS, OPTIONS

Part = tuple[tuple[str, Any], ...]
"""The settings that the runs of a part share, with their values."""

METHOD = ("method", "rho", "alpha", "when", *OPTIONS)
STRATEGY = ("batch_plan", "lr_schedule")
_TITLE = ("model", "dataset")


def part_of(config: Config, configs: Sequence[Config]) -> Part:
    """The part that a run belongs to.

    Args:
      config: of the run.
      configs: those of all runs.
    """
    values = {name: value for name, value in config.settings.items() if name not in (*METHOD, *STRATEGY, "seed")}
    return tuple((values | {"momentum": _momentum(config, configs)}).items())


def part_titles(parts: Sequence[Part]) -> dict[Part, str]:
    """How the parts are called, those with the fewest settings that are not at their defaults first.

    Returns:
      `small_resnet on digits`, and where other settings differ among parts those of them that are not at their
      defaults: `small_resnet on digits: label noise 0.2`.
    """
    defaults = Config().settings | {"momentum": 0.0}

    def title(part: Part) -> str:
        values = dict(part)
        alike = [dict(each) for each in parts if all(dict(each)[name] == values[name] for name in _TITLE)]
        differing = [name for name in values if len({each[name] for each in alike}) > 1]
        told = [said(name, values[name]) for name in differing if values[name] != defaults[name]]
        return f"{values['model']} on {values['dataset']}" + (f": {', '.join(told)}" if told else "")

    def changed(part: Part) -> int:
        return sum(value != defaults[name] for name, value in part)

    return {part: title(part) for part in sorted(parts, key=changed)}


def said(name: str, value: Any) -> str:
    """A setting in words: `label noise 0.2`, `auto augment`, `no momentum`."""
    words = name.replace("_", " ")
    if value is True:
        return words
    return f"no {words}" if value is False or value is None else f"{words} {value}"


def _momentum(config: Config, configs: Sequence[Config]) -> float:
    """That of the run; a method that needs a momentum stands beside those that have none."""
    own = METHODS[config.method].momentum
    others = {each.descent.momentum for each in configs if METHODS[each.method].momentum != own}
    is_needed = own and config.descent.momentum == own and own not in others
    return 0.0 if is_needed else config.descent.momentum or 0.0
