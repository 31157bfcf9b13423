"""Measuring with a word to the person who waits."""

from pathlib import Path

from rich.console import Console

from experiments import data
from experiments.config import Config
from experiments.measuring.runs import measure_run, replay
from experiments.measuring.settings import Sharpness
from experiments.runner import trained_state
from experiments.training.exceptions import printable


def measure(folder: Path, config: Config, dataset: data.Dataset, settings: Sharpness, console: Console) -> None:
    """Measure a finished run; where it is to be measured on the way, train it again, and say so if that differs.

    Raises:
      ValueError: If its trained state cannot be read, or if nothing can be written into its folder.
    """
    if warning := trained_state.unchecked(folder):
        console.print(warning)
    if settings.during is None:
        measure_run(folder, config, dataset, settings)
    elif not replay(folder, config, dataset, settings):
        console.print(
            f"{printable(str(folder))}: training it again gave other digits here, so that what was measured on the way "
            "is not of this run, and was not written. Without --during it can be measured."
        )
