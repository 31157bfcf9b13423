"""What a run is, and what the runs of a study share: frozen dataclasses, checked when they are made."""

from experiments.config.checks import check_choice, check_fraction, check_plan, check_seeds
from experiments.config.run_config import Config
from experiments.config.sections import BaseConfig

__all__ = ["BaseConfig", "Config", "check_choice", "check_fraction", "check_plan", "check_seeds"]
