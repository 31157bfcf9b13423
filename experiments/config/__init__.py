"""What a run is, and what the runs of a study share: frozen dataclasses, checked when they are made."""

from experiments.config.checks import check_choice, check_fraction, check_plan, check_seeds
from experiments.config.run import Config
from experiments.config.setup import Setup

__all__ = ["Config", "Setup", "check_choice", "check_fraction", "check_plan", "check_seeds"]
