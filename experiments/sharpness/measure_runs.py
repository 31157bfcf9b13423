"""Measures the sharpness of a run: of its trained network, and during training."""

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
from experiments.runner.run import RunContext, Watch, plan_followed, result_of, train
from experiments.sharpness.measures import AT_RADII, SharpnessSettings, measure, trained
from experiments.training.exceptions import printable
from experiments.training.records import EpochRecord, SharpnessRecord
from experiments.training.step import TrainState
from experiments.training.writers import plain

Write = Callable[[list[SharpnessRecord]], None]


def measure_run(folder: Path, config: Config, dataset: data.Dataset, settings: SharpnessSettings) -> None:
    """Measures the sharpness of the trained network of a run, and writes it into the folder of the run.

    Args:
      folder: the folder of the finished run.
      config: the config of the run.
      dataset: the data of the run.
      settings: what to measure.

    Raises:
      ValueError: If the trained state cannot be read, or if the folder cannot be written.
    """
    state = resume.trained_state(folder, config, build(config, dataset)[0])
    plan = plan_followed(config, result_of(folder))
    size = _epoch_size(config, dataset)
    epochs, step = plan.passes(size), plan.total_steps(size)
    sharpness_records.add(folder, measure(trained(config, dataset, state, settings), settings, epochs, step))


def _epoch_size(config: Config, dataset: data.Dataset) -> int:
    return config.recipe.epoch_size(len(dataset.train))


def watching(config: Config, dataset: data.Dataset, settings: SharpnessSettings, write: Write) -> Watch | None:
    """Returns a function that measures a run every `during` epochs and after the last one; None without `during`."""
    every, adaptive, last = settings.during, config.adaptive, config.plan.passes(_epoch_size(config, dataset))
    if every is None:
        return None

    def watch(record: EpochRecord, state: TrainState) -> None:
        # The last epoch of an adaptive plan is known only when all its updates are made.
        is_over = adaptive.is_over(record.epoch, record.step) if adaptive else record.epoch == last
        if record.epoch % every == 0 or is_over:
            network = trained(config, dataset, state, settings)
            write(list(measure(network, settings, record.epoch, record.step)))

    return watch


def replay(folder: Path, config: Config, dataset: data.Dataset, settings: SharpnessSettings) -> bool:
    """Trains a finished run again, from its config and seed, and measures its sharpness during training.

    Returns:
      Whether the parameters are equal to those of the finished run, bit for bit, as they are on the same machine. If
      they differ, nothing is written.

    Raises:
      ValueError: As for `measure_run`.
    """
    before = resume.trained_state(folder, config, build(config, dataset)[0])
    records: list[SharpnessRecord] = []
    state, _ = train(config, dataset, RunContext(watch=watching(config, dataset, settings, records.extend)))
    alike = jax.tree.map(lambda x, y: jnp.array_equal(x, y, equal_nan=True), state.params, before.params)
    if is_same := bool(jax.tree.all(alike)):
        sharpness_records.add(folder, records)
    return is_same


def has_measured(folder: Path, config: Config, dataset: data.Dataset, settings: SharpnessSettings) -> bool:
    """Returns whether everything in the settings was measured with the same protocol, after and during training.

    Raises:
      ValueError: If sharpness.jsonl is damaged.
    """
    names = ("norm", "adaptive", "steps", "restarts", "normalize_logits", "reestimate_batchnorm")
    wanted: dict[str, Any] = {name: getattr(settings, name) for name in names}
    wanted |= {"measured_batch_size": settings.batch_size, "examples": min(settings.examples, len(dataset.train))}
    alike = [
        record
        for record in sharpness_records.read(folder)
        if all(record.line().get(name, value) == value for name, value in wanted.items())  # some measures have no norm
    ]
    last = plan_followed(config, result_of(folder)).passes(_epoch_size(config, dataset))
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
    """Measures a finished run, and prints warnings to the console.

    With `settings.during` the run is trained again. If that leads to other parameters, a message says so and nothing is
    written.

    Raises:
      ValueError: If the trained state cannot be read, or if the folder cannot be written.
    """
    if warning := resume.unchecked(folder):
        console.print(warning)
    if settings.during is None:
        measure_run(folder, config, dataset, settings)
    elif not replay(folder, config, dataset, settings):
        message = "training it again gave other numbers here, so the sharpness does not belong to this run"
        console.print(f"{printable(str(folder))}: {message}, and was not written. Measure the run without --during.")
