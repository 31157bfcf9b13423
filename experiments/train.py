"""Trains one network: `python -m experiments.train --method gsam --batch-plan 40x16,40x32 --output runs/first`."""

from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import track

from experiments import data
from experiments.cli.command import Command
from experiments.cli.errors import exit_on_value_error, parse, start
from experiments.cli.output_folder import claim, make_folder
from experiments.cli.tables import as_terminal
from experiments.config import Config
from experiments.config.checks import check_package
from experiments.runner import run, sharpness_records
from experiments.runner.hosts import Machine, abort_all_on_error, agree_across_hosts, sharding_on
from experiments.runner.program import check_compile_once
from experiments.runner.resume import Start, reopened
from experiments.runner.time_to_target import check_accuracies, target_rows, write_targets
from experiments.sharpness import SharpnessSettings, watching
from experiments.training import preemption, run_folder
from experiments.training.epoch_schedule import Saving
from experiments.training.records import Result
from experiments.training.sharding import Sharding


@dataclass(frozen=True)
class Arguments:
    """Train one network with a sharpness-aware method, under a batch plan and a learning-rate schedule.

    Attributes:
      config: The settings of the run.
      machine: The devices to run on.
      output: The folder for config, metrics, result and trained state. It must be new or empty, or with --resume the
        folder of the run.
      resume: Resume the run in the output folder from its last checkpoint, or from its beginning if it has none. The
        result is the same as without the interruption.
      saving: How the run is saved during training.
      location: The location of the data.
      sharpness: How sharpness is measured during training, if --sharpness.during is set.
      tensorboard: Also write TensorBoard's event files, into the folder tensorboard of the output.
      targets: Test accuracies, as fractions. Prints the examples, updates and gradient evaluations until each is first
        reached at the end of an epoch, and writes them into targets.json.
    """

    config: Annotated[Config, tyro.conf.arg(name="")]
    machine: Annotated[Machine, tyro.conf.arg(name="")]
    output: Path
    location: Annotated[data.Location, tyro.conf.arg(name="")]
    resume: bool = False
    saving: Saving = Saving()
    sharpness: SharpnessSettings = SharpnessSettings()
    tensorboard: bool = False
    targets: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_accuracies("targets", self.targets)
        if self.tensorboard:
            check_package("tensorboard is True", "tensorboardX")
        if self.sharpness.during is None and self.sharpness != SharpnessSettings():
            raise ValueError(
                "sharpness.during is None, and other settings of sharpness are given: give the epochs between two "
                "measurements, or measure the finished run with `python -m experiments.sharpness`."
            )


COMMAND = Command(
    "train",
    Arguments,
    "--method gsam --batch-plan 5x16,5x32,5x64,5x128,5x256 --output runs/first",
    ("output", "dataset", "model", "method", "rho", "batch_plan", "learning_rate", "lr_schedule", "seed", "resume"),
)


def main() -> None:
    """Parses the command line and trains the network."""
    arguments = parse(COMMAND)
    sharding = exit_on_value_error(sharding_on, arguments.machine)
    with abort_all_on_error(sharding):
        _train(arguments, sharding)


def _train(arguments: Arguments, sharding: Sharding) -> None:
    config = arguments.config.resolved()
    exit_on_value_error(config.problem.check_train_examples)
    exit_on_value_error(sharding.check, config.plan, config.descent.micro_batch)
    agreed = partial(exit_on_value_error, agree_across_hosts, sharding)
    dataset = agreed(run.load, config, arguments.location)
    exit_on_value_error(check_compile_once, config, dataset, sharding)
    make = make_folder if arguments.resume else claim
    output = agreed(make if sharding.leads else Path, arguments.output)
    with run_folder.hold_run_lock(output) if sharding.leads else nullcontext():
        begin = agreed(reopened, output, config, dataset, sharding.devices) if arguments.resume else Start()
        if begin is None:
            result, done = exit_on_value_error(run.completed, output), "is already complete: nothing was done."
        else:
            result, done = _execute(arguments, dataset, begin, sharding), "holds metrics, result and trained state."
    if sharding.leads:
        outcome = f"{run.outcome(result)} after {result.updates} updates in {result.seconds:.0f} s; {output} {done}"
        console = Console(soft_wrap=True, markup=False, highlight=False)
        console.print(f"{config.method} on {config.problem.dataset}: {outcome}")
        if arguments.targets:
            rows = target_rows(exit_on_value_error(write_targets, output, arguments.targets))
            console.print(as_terminal(rows))


def _execute(arguments: Arguments, dataset: data.Dataset, begin: Start, sharding: Sharding) -> Result:
    config, output = arguments.config.resolved(), arguments.output
    total, title = run.total_updates(config, dataset), f"{config.method} on {config.problem.dataset}"
    shown = partial(track, total=total, completed=begin.progress.step, description=title, transient=True)
    watch = watching(config, dataset, arguments.sharpness, partial(sharpness_records.add, output))
    with preemption.on_sigterm() as stop:
        progress, saving = shown if sharding.leads else iter, arguments.saving
        context = run.RunContext(progress, watch, sharding, arguments.tensorboard, saving, begin, stop)
        return run.execute(config, dataset, output, context)


if __name__ == "__main__":
    start(main)
