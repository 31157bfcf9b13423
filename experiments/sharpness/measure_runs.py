"""Measures sharpness of a run, of its trained network and during training, and shows the progress."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console

from experiments import data
from experiments.config import Config
from experiments.runner import resume, sharpness_records
from experiments.runner.program import build
from experiments.runner.run import RunContext, Watch, plan_of, result_of, train
from experiments.sharpness.measures import AT_RADII, SharpnessSettings, measure, trained
from experiments.training.exceptions import printable
from experiments.training.records import EpochRecord, SharpnessRecord
from experiments.training.step import TrainState
from experiments.training.writers import plain

Write = Callable[[list[SharpnessRecord]], None]


def measure_run(folder: Path, config: Config, dataset: data.Dataset, settings: SharpnessSettings) -> None:
    """Measure the sharpness of the trained network of a run, and write it beside the run.

    Args:
      folder: of the finished run.
      config: what was run.
      dataset: its data.
      settings: what to measure.

    Raises:
      ValueError: If its trained state cannot be read, or if nothing can be written into the folder.
    """
    state = resume.trained_state(folder, config, build(config, dataset)[0])
    plan = plan_of(config, result_of(folder))
    step = plan.total_steps(config.recipe.epoch_size(len(dataset.train)))
    sharpness_records.add(folder, measure(trained(config, dataset, state, settings), settings, plan.epochs, step))


def watching(config: Config, dataset: data.Dataset, settings: SharpnessSettings, write: Write) -> Watch | None:
    """What measures a run while it trains, every so many epochs and after the last one, if that is asked for."""
    every, adaptive = settings.during, config.adaptive
    if every is None:
        return None

    def watch(record: EpochRecord, state: TrainState) -> None:
        # which epoch is the last of an adaptive plan is known when its updates are made
        is_over = adaptive.is_over(record.epoch, record.step) if adaptive else record.epoch == config.plan.epochs
        if record.epoch % every == 0 or is_over:
            network = trained(config, dataset, state, settings)
            write(list(measure(network, settings, record.epoch, record.step)))

    return watch


def replay(folder: Path, config: Config, dataset: data.Dataset, settings: SharpnessSettings) -> bool:
    """Train a finished run again, which its config and seed determine, and measure on the way.

    Returns:
      Whether it came to the same parameters, bit by bit, as it does on the same machine; else nothing is written.

    Raises:
      ValueError: As `measure_run`.
    """
    before = resume.trained_state(folder, config, build(config, dataset)[0])
    records: list[SharpnessRecord] = []
    state, _ = train(config, dataset, RunContext(watch=watching(config, dataset, settings, records.extend)))
    alike = jax.tree.map(lambda x, y: jnp.array_equal(x, y, equal_nan=True), state.params, before.params)
    if is_same := bool(jax.tree.all(alike)):
        sharpness_records.add(folder, records)
    return is_same


def has_measured(folder: Path, config: Config, dataset: data.Dataset, settings: SharpnessSettings) -> bool:
    """Whether all that the settings ask for was measured, in the same way, of the trained network and on the way.

    Raises:
      ValueError: If the file is damaged.
    """
    names = ("norm", "adaptive", "steps", "restarts", "normalize_logits", "reestimate_batchnorm")
    wanted: dict[str, Any] = {name: getattr(settings, name) for name in names}
    wanted |= {"measured_batch_size": settings.batch_size, "examples": min(settings.examples, len(dataset.train))}
    alike = [
        record
        for record in sharpness_records.read(folder)
        if all(record.line().get(name, value) == value for name, value in wanted.items())  # not all have a ball
    ]
    last = plan_of(config, result_of(folder)).epochs
    epochs = {last, *range(settings.during or last, last, settings.during or last)}
    for name, epoch in product(settings.measures, epochs):
        found = [record for record in alike if record.kind == name and record.epoch == epoch]
        if not found:
            return False
        norm = settings.norm if name == "worst_case" else "linf"
        radii = settings.radii(found[0].parameters, norm) if name in AT_RADII else ()
        if any(plain(rho) not in [getattr(record, "rho", None) for record in found] for rho in radii):
            return False
    return True


def measure_finished_run(
    folder: Path, config: Config, dataset: data.Dataset, settings: SharpnessSettings, console: Console
) -> None:
    """Measure a finished run; where it is to be measured on the way, train it again, and say so if that differs.

    Raises:
      ValueError: If its trained state cannot be read, or if nothing can be written into its folder.
    """
    if warning := resume.unchecked(folder):
        console.print(warning)
    if settings.during is None:
        measure_run(folder, config, dataset, settings)
    elif not replay(folder, config, dataset, settings):
        said = "training it again gave other digits here, so that what was measured on the way is not of this run"
        console.print(f"{printable(str(folder))}: {said}, and was not written. Without --during it can be measured.")
