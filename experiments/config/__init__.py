"""The configs of a run and of a study: frozen dataclasses, which are validated at construction."""

from experiments.config.checks import check_choice, check_fraction, check_plan, check_seeds
from experiments.config.run_config import Config
from experiments.config.sections import BaseConfig

__all__ = ["BaseConfig", "Config", "check_choice", "check_fraction", "check_plan", "check_seeds"]
