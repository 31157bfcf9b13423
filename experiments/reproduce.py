"""Reproduces the paper's grid, a row of its tables, or a study of your own: `python -m experiments.reproduce`."""

import shlex
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from experiments import data, presets
from experiments.cli import output_folder, standard_streams, tables
from experiments.cli.command import Command
from experiments.cli.errors import exit_on_value_error, option, parse, start
from experiments.config.checks import check_count, check_package
from experiments.runner import finished_file, finished_runs
from experiments.runner.run import RunContext
from experiments.sharpness import SharpnessSettings
from experiments.study import Grid, RunOptions, RunSpec, Selection, Tuning, is_done, run_all, tuning
from experiments.study.dry_run import estimate, show_runs
from experiments.study.step_times import show_hours
from experiments.training.deadline import Deadline, first_of, seconds_of
from experiments.training.epoch_schedule import Saving
from experiments.training.exceptions import Terminated
from experiments.training.preemption import Stop, never, on_sigterm


@dataclass(frozen=True)
class Arguments:
    """Run the paper's grid and report it: SGD, SAM and GSAM with constant batch, increasing batch and cosine rate.

    Attributes:
      study: The study to run.
      selection: The runs of the study to execute. If these are not all, no report is written; use
        python -m experiments.report.
      location: The location of the data.
      sharpness: How the sharpness of each run is measured.
      saving: How each run is saved during training. A study that was stopped resumes from the last checkpoint of its
        unfinished run.
      time_limit: The time after which the study stops, counted from the start of the program, for example 90s, 25m, 3h
        or 1h30m. The run in progress is saved, and the same command continues the study.
      finished: A file in which finished runs are recorded, one line per run. A run in the file is not run again, even
        if its folder does not exist; the report is then made from the file.
      jobs: The number of runs that are executed at the same time, each in a process of its own. They share the GPU, or
        divide the cores of the CPU among themselves. With another number of cores, a run rounds differently.
      tensorboard: Also write TensorBoard's event files, into the folder tensorboard of each run.
      tune: Choose a learning rate and a radius for each method and strategy on examples held out of the training set,
        and run the study's seeds with them, with and without momentum 0.9 and weight decay 5e-4.
      tuning: The settings to try with --tune.
      dry_run: Print an estimate of each run, and run nothing.
      time_steps: With --dry-run, also time training steps of each method at each batch size of its plans, on random
        images, and print how many hours the study would take on this machine.
      time_steps_of: As time_steps, with steps of this batch size alone, for example if larger batches do not fit into
        memory. The time per example is assumed to be equal at all batch sizes.
      config: Start from the settings of a row of the paper's tables, or of another predefined study. Other options
        override its settings.
    """

    study: Annotated[Grid, tyro.conf.arg(name="")]
    selection: Annotated[Selection, tyro.conf.arg(name="")] = field(default_factory=Selection)
    location: Annotated[data.Location, tyro.conf.arg(name="")] = field(default_factory=data.Location)
    sharpness: SharpnessSettings = field(default_factory=SharpnessSettings)
    saving: Saving = field(default_factory=Saving)
    time_limit: str | None = None
    finished: Path | None = None
    jobs: int = 1
    tensorboard: bool = False
    tune: bool = False
    tuning: Tuning = field(default_factory=Tuning)
    dry_run: bool = False
    time_steps: bool = False
    time_steps_of: int | None = None
    config: str | None = None

    def __post_init__(self) -> None:
        if self.tune and self.selection.only:
            raise ValueError(f"only is {self.selection.only}: with tune give methods and strategies instead.")
        if not self.tune and self.tuning != Tuning():
            raise ValueError("tune is False, and settings of tuning are given: add --tune, or omit them.")
        check_count("jobs", self.jobs)
        if self.tensorboard:
            check_package("tensorboard is True", "tensorboardX")
        if self.time_limit is not None:
            seconds_of("time_limit", self.time_limit)
        if self.time_steps_of is not None:
            check_count("time_steps_of", self.time_steps_of)
            if self.time_steps:
                raise ValueError(f"time_steps_of is {self.time_steps_of}, and time_steps is True: omit one of the two.")
        for name in ("time_steps", "time_steps_of"):
            if getattr(self, name) and not self.dry_run:
                raise ValueError(f"{name} is {getattr(self, name)}: it needs --dry-run, so give both.")


@dataclass(frozen=True)
class StudyOptions:
    """How studies are executed.

    Attributes:
      arguments: the command line.
      runs: how each run is executed.
      stored: the number of training examples of the data set.
      console: the terminal.
    """

    arguments: Arguments
    runs: RunOptions
    stored: int
    console: Console


COMMAND = Command(
    "reproduce",
    Arguments,
    "--constant-plan 100x128 --increasing-plan 20x16,20x32,20x64,20x128,20x256 --output runs/longer",
    (
        "output",
        "config",
        "dataset",
        "model",
        "methods",
        "strategies",
        "constant_plan",
        "increasing_plan",
        "seeds",
        "dry_run",
    ),
)


def main() -> None:
    """Parses the command line and runs the study.

    Raises:
      SystemExit: With code 1, if a run failed.
      Terminated: If SIGTERM was received or the time limit has passed; the run in progress is saved.
    """
    name = option("config", sys.argv[1:])
    row = None if name is None else exit_on_value_error(presets.load, name)
    arguments = parse(COMMAND, row and Arguments(row.study, config=name))
    deadline = None if arguments.time_limit is None else Deadline.after_start(arguments.time_limit)
    try:
        with standard_streams.needed() if arguments.dry_run else on_sigterm() as stop:
            is_complete = _reproduce(arguments, first_of(stop or never, deadline or never))
    except Terminated as ended:
        if deadline is None or not deadline():
            raise
        raise Terminated(f"the time limit of {deadline.limit} has passed, and the study {ended}") from ended
    if not is_complete:
        sys.exit(1)


def _reproduce(arguments: Arguments, stop: Stop) -> bool:
    """Runs the study, or tunes and runs its variants with and without momentum and weight decay.

    Returns:
      Whether no run failed.
    """
    study = arguments.study
    context = RunContext(tensorboard=arguments.tensorboard, saving=arguments.saving, stop=stop)
    runs = RunOptions(arguments.location, arguments.sharpness, context, arguments.finished, arguments.jobs)
    stored = study.problem.stored_examples
    if not arguments.dry_run:  # a dry run does not need the data
        whole = (study.problem.dataset, study.seeds[0], arguments.location, study.problem.user_images)
        stored = len(exit_on_value_error(data.load, *whole).train)
    options = StudyOptions(arguments, runs, stored, Console(soft_wrap=True, markup=False, highlight=False))
    if not arguments.tune:
        return _complete(study, exit_on_value_error(study.run_specs, stored), options)
    survived = [_tune(variant, options) for variant in exit_on_value_error(tuning.variants, study).values()]
    return all(survived)


def _tune(study: Grid, options: StudyOptions) -> bool:
    """Tunes the cells of a study, runs them with the chosen settings, and reports the study.

    If trials of another part of the study are not complete, no settings are chosen.

    Returns:
      Whether no run failed.
    """
    arguments, console = options.arguments, options.console
    tried = exit_on_value_error(tuning.trials, study, arguments.tuning, options.stored)
    specs = [spec for trial in tried for spec in trial.run_specs]
    survived = _run(study, specs, replace(options, runs=replace(options.runs, sharpness=None)))
    if arguments.dry_run:
        tuned = [study.has_cell(method, strategy) for method in study.methods for strategy in study.strategies]
        runs = sum(tuned) * len(study.seeds)
        console.print(f"Then {runs} runs on the study's seeds, with the chosen values.")
        return survived
    if left := [spec for spec in specs if not exit_on_value_error(is_done, spec)]:
        console.print(f"{len(left)} trials are left: values are chosen when all parts have finished.")
        return survived
    choices = tuning.choose(tried)
    rows = tuning.choice_rows(choices)
    console.print(tables.as_terminal(rows))
    exit_on_value_error(output_folder.write_document, study.output / "choices.md", f"{tables.as_markdown(rows)}\n")
    chosen = tuning.tuned_specs(study, choices, options.stored)
    return _complete(study, chosen, options, chosen=("learning_rate", "rho"))


def _complete(study: Grid, specs: list[RunSpec], options: StudyOptions, chosen: tuple[str, ...] = ()) -> bool:
    """Runs the selected cells, reports the study if all are selected, and returns whether no run failed."""
    if options.arguments.dry_run:
        return _run(study, specs, options)
    report = exit_on_value_error(output_folder.make_folder, study.output / "report")
    survived = _run(study, specs, options)
    is_whole = options.arguments.selection.is_whole
    finished = [spec.folder for spec in specs if is_whole and exit_on_value_error(is_done, spec)]
    if finished:
        _report(finished, report, options.console, chosen)
    return survived


def _report(finished: list[Path], report: Path, console: Console, chosen: tuple[str, ...]) -> None:
    """Writes the report of finished runs, unless a package is missing, which a machine for training may not have."""
    try:
        from experiments.report.page import publish  # noqa: PLC0415 - see above
    except ImportError as error:
        console.print(f"The report needs a package ({error}): run python -m experiments.report where it is installed.")
        return
    command = shlex.join(["python", "-m", "experiments.reproduce", *sys.argv[1:]])
    found = exit_on_value_error(finished_runs.find_runs, finished)
    exit_on_value_error(lambda: publish(found, report, console, chosen=chosen, command=command))


def _run(study: Grid, specs: list[RunSpec], options: StudyOptions) -> bool:
    """Runs the selected cells, or prints their estimates in a dry run, and returns whether no run failed."""
    arguments, stored, console = options.arguments, options.stored, options.console
    selected = exit_on_value_error(arguments.selection.of, specs, lambda spec: estimate(spec.config, stored).cost)
    if not arguments.dry_run:
        return not run_all(f"{study.network.model} on {study.problem.dataset}", selected, options.runs, console)
    _show(study, selected, options)
    return True


def _show(study: Grid, selected: list[RunSpec], options: StudyOptions) -> None:
    """Prints the estimates of the selected runs that are not in the file of finished runs."""
    arguments, stored, console = options.arguments, options.stored, options.console
    if arguments.finished is not None:
        recorded = exit_on_value_error(finished_file.read, arguments.finished)
        left = [spec for spec in selected if spec.config.effective not in recorded]
        console.print(f"{len(selected) - len(left)} of {len(selected)} runs are in {arguments.finished}: not shown.")
        selected = left
    elif not selected:
        console.print("0 runs: this part of the study has none.")
    if selected:
        show_runs(selected, stored, study.output, console)
    if selected and (arguments.time_steps or arguments.time_steps_of):
        configs = [spec.config for spec in selected]
        exit_on_value_error(show_hours, configs, stored, console, arguments.time_steps_of)


if __name__ == "__main__":
    start(main)
