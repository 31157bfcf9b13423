"""A run of the study on networks: trained once, its norms in a file of its own."""

import dataclasses
import json
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np

from experiments import data
from experiments.config import Config
from experiments.converging.curve import Curve
from experiments.converging.full_gradient import full_norms
from experiments.converging.network_study import NetworkStudy
from experiments.runner import run
from experiments.runner.finished_runs import column
from experiments.sharpness import Sharpness
from experiments.sharpness.measures import trained
from experiments.study import Cell
from experiments.training.atomic_write import refuse_link
from experiments.training.exceptions import UnusableError
from experiments.training.json_files import parsed
from experiments.training.prefetch import Track
from experiments.training.step import TrainState
from experiments.training.writers import JsonLines, Record, plain, read
from sam_optax import BatchPlan

_HEAD = b'{"kind": "settings"'  # of each file, or the beginning of it
_MEASURED = ("every", "measured_rho", "measured_batch_size", "reestimate_batchnorm")


def path_of(cell: Cell) -> Path:
    """Where the norms of a run are, or will be: JSON, an object a line."""
    return cell.folder.with_name(f"{cell.folder.name}.jsonl")


def is_done(cell: Cell, study: NetworkStudy) -> bool:
    """Whether the run was measured to its end, as the study has it.

    Raises:
      ValueError: If its file holds another run, or was damaged.
    """
    path = path_of(cell)
    if not os.path.lexists(path):
        return False
    try:
        [settings] = read(path, "settings")
        of_config = Config.of(parsed(settings.pop("config"))) == cell.config
        complete = [record["epoch"] for record in read(path, "norms")][-1:] == [cell.config.plan.epochs]
        same = of_config and complete and settings == _measured(study)
    except (OSError, ValueError, TypeError, KeyError):
        same = False
    if not same:
        raise ValueError(f"{path} holds another run, or a damaged one: choose another output, or remove it.")
    return True


def check_unfinished(cell: Cell) -> Path:
    """The file that a run is measured into; one that is there is replaced, where a run that was stopped has left it.

    Raises:
      UnusableError: If it is something else.
    """
    unfinished = path_of(cell).with_name(f"{path_of(cell).name}{run.UNFINISHED}")
    refuse_link(unfinished)
    if not unfinished.exists():
        return unfinished
    found = unfinished.read_bytes()[: len(_HEAD)] if unfinished.is_file() else None
    if found is None or not _HEAD.startswith(found):
        raise UnusableError(
            f"{unfinished} is not of a run that was stopped: move it elsewhere, or choose another output."
        )
    return unfinished


def execute(cell: Cell, study: NetworkStudy, dataset: data.Dataset, track: Track = iter) -> Record:
    """Train, measure on the way, and leave the file, which is complete where it has its name.

    Args:
      cell: what to run.
      study: how it is measured.
      dataset: its data.
      track: goes through the batches while something watches.

    Returns:
      The record of the last epoch.
    """
    path = path_of(cell)
    unfinished = check_unfinished(cell)
    unfinished.unlink(missing_ok=True)
    with closing(JsonLines(unfinished)) as file:
        file.write(_measured(study) | {"config": json.dumps(dataclasses.asdict(cell.config))})
        _, last = run.train(cell.config, dataset, track, watch=_watch(cell.config, study, dataset, file.write))
    unfinished.rename(path)
    return last


def curve_of(cells: list[Cell]) -> Curve:
    """The curve of runs that differ in their seed alone, from their files.

    Raises:
      ValueError: If a file holds no norms.
    """
    found = [list(read(path_of(cell), "norms")) for cell in cells]
    for cell, records in zip(cells, found, strict=True):
        if [record["step"] for record in records] != [record["step"] for record in found[0]] or not records:
            raise ValueError(f"{path_of(cell)} is damaged: remove it, and run it again.")
    places = [np.asarray([record[name] for record in found[0]]) for name in ("step", "examples")]
    norms = [np.stack([column(records, name) for records in found]) for name in ("grad_norm", "sam_grad_norm")]
    return Curve(*places, *norms)


def examples_seen(plan: BatchPlan, epochs: int, num_examples: int) -> int:
    """How many examples the updates of the first epochs saw; what an incomplete batch would hold is dropped."""
    sizes = [plan.batch_size_at(epoch) for epoch in range(epochs)]
    return sum(num_examples // size * size for size in sizes)


def _measured(study: NetworkStudy) -> Record:
    """How the norms of a file are measured, as it is written at its head."""
    return {"kind": "settings", **{name: plain(getattr(study, name)) for name in _MEASURED}}


def _watch(
    config: Config, study: NetworkStudy, dataset: data.Dataset, write: Callable[[Record], None]
) -> Callable[[Record, TrainState], None]:
    settings = Sharpness(
        examples=len(dataset.train),
        batch_size=study.measured_batch_size,
        reestimate_batchnorm=study.reestimate_batchnorm,
    )

    def watch(record: Record, state: TrainState) -> None:
        epoch = record["epoch"]
        if epoch % study.every and epoch < config.plan.epochs:
            return
        norms = full_norms(trained(config, dataset, state, settings), study.measured_rho)
        seen = examples_seen(config.plan, epoch, config.epoch_size(len(dataset.train)))
        write({"kind": "norms", "epoch": epoch, "step": record["step"], "examples": seen, **norms._asdict()})

    return watch
