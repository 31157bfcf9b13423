"""Reproduce the paper's grid, a row of its tables, or a study of your own: `python -m experiments.reproduce`."""

import sys
from dataclasses import dataclass, field
from typing import Annotated

import tyro
from rich.console import Console

from experiments import data, presets
from experiments.cli import standard_streams
from experiments.cli.errors import exit_on_value_error, option, parse, start
from experiments.config.checks import check_count
from experiments.reproduce.launch import StudyOptions, conduct, conduct_tuned
from experiments.sharpness import SharpnessSettings
from experiments.study import Grid, RunOptions, Selection, Tuning
from experiments.training.checkpoint_schedule import Saving
from experiments.training.preemption import Stop, never, on_sigterm


@dataclass(frozen=True)
class Arguments:
    """Run the paper's grid, SGD, SAM and GSAM by constant batch, increasing batch and cosine learning rate; report it.

    Attributes:
      study: What to run.
      selection: Which of its runs; where some are left out, the report is left to python -m experiments.report.
      location: Where the data are.
      sharpness: How the sharpness of each run is measured.
      saving: How each run is saved on its way: a study that was stopped goes on from its unfinished run's last save.
      tensorboard: Write TensorBoard's event files, too, into the folder tensorboard of each run.
      tune: Choose learning rate and radius for each method and strategy on examples held out of the training set, and
        run the study's seeds with them; with and without momentum 0.9 and a weight decay of 5e-4.
      tuning: What is tried then.
      dry_run: Print what each run would be, and run nothing.
      time_steps_of: With dry_run, time the steps of batches of so many made-up images, too, and print what the study
        would take on this machine.
      config: Take the settings of a row of the paper's tables, or of a study of ours, and those given beside instead
        of its own.
    """

    study: Annotated[Grid, tyro.conf.arg(name="")]
    selection: Annotated[Selection, tyro.conf.arg(name="")] = field(default_factory=Selection)
    location: Annotated[data.Location, tyro.conf.arg(name="")] = field(default_factory=data.Location)
    sharpness: SharpnessSettings = field(default_factory=SharpnessSettings)
    saving: Saving = field(default_factory=Saving)
    tensorboard: bool = False
    tune: bool = False
    tuning: Tuning = field(default_factory=Tuning)
    dry_run: bool = False
    time_steps_of: int | None = None
    config: str | None = None

    def __post_init__(self) -> None:
        if self.tune and self.selection.only:
            raise ValueError(f"only is {self.selection.only}: with tune give methods and strategies instead.")
        if self.time_steps_of is not None:
            check_count("time_steps_of", self.time_steps_of)
            if not self.dry_run:
                raise ValueError(f"time_steps_of is {self.time_steps_of}: it belongs to --dry-run, give both.")


def main() -> None:
    """Parse, build, call."""
    name = option("config", sys.argv[1:])
    row = None if name is None else exit_on_value_error(presets.load, name)
    arguments = parse(Arguments, "python -m experiments.reproduce", row and Arguments(row.study, config=name))
    if arguments.dry_run:
        with standard_streams.needed():
            done = _conduct(arguments, never)
    else:
        with on_sigterm() as stop:
            done = _conduct(arguments, stop)
    if not done:
        sys.exit(1)


def _conduct(arguments: Arguments, stop: Stop) -> bool:
    session = StudyOptions(
        arguments.selection,
        RunOptions(arguments.location, arguments.sharpness, arguments.tensorboard, arguments.saving, stop),
        exit_on_value_error(_stored, arguments),
        arguments.dry_run,
        arguments.time_steps_of,
        Console(soft_wrap=True, markup=False, highlight=False),
    )
    if arguments.tune:
        return conduct_tuned(arguments.study, arguments.tuning, session)
    return conduct(arguments.study, session)


def _stored(arguments: Arguments) -> int:
    """How many training examples the data set has; before the data are there, how many it will have."""
    study = arguments.study
    if arguments.dry_run:
        return data.SIZES[study.dataset].train
    return len(data.load(study.dataset, study.seeds[0], arguments.location).train)


if __name__ == "__main__":
    start(main)
