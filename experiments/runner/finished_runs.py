"""Finds and reads the finished runs in folders."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from experiments.config import Config
from experiments.runner import sharpness_records
from experiments.runner.run import UNFINISHED, plan_followed, result_of
from experiments.training.exceptions import printable, reason_of
from experiments.training.json_files import DamagedError
from experiments.training.records import Result, SharpnessRecord
from experiments.training.writers import read
from sam_optax import BatchPlan

TRIALS = "trials"
"""The folder of the trials of a tuned study, inside that of the study."""


class Run(NamedTuple):
    """A finished run.

    Attributes:
      folder: the folder of the run.
      config: the config of the run.
      result: the result of the run.
      sharpness: the records of its sharpness; empty if it was not measured.
    """

    folder: Path
    config: Config
    result: Result
    sharpness: list[SharpnessRecord]

    @property
    def diverged(self) -> bool:
        """Whether a loss of the last epoch, or a parameter after it, was not finite."""
        return self.result.diverged

    @property
    def plan(self) -> BatchPlan:
        """The batch plan, including one that was decided during training."""
        return plan_followed(self.config, self.result)

    @property
    def epochs(self) -> int:
        """The number of epochs, including an incomplete last one."""
        return self.plan.passes(self.config.epoch_size)


def find_runs(folders: Iterable[Path]) -> list[Run]:
    """Returns all finished runs in the folders and below them, each once, in the order of their names.

    The trials of a tuned study are not among its runs: give their own folder to read them.

    Raises:
      ValueError: If a folder does not exist or holds no finished run, if a run is damaged, or if two runs of one config
        have different results.
    """
    found: dict[Path, Run] = {}
    for folder in folders:
        if not os.path.isdir(folder):
            raise ValueError(f"{folder} is not a folder: give folders that hold runs.")
        inside = [path for path in sorted(folder.rglob("result.json")) if (path.parent / "config.json").is_file()]
        finished = [
            path.parent
            for path in inside
            if not any(part.endswith(UNFINISHED) for part in path.parts)
            and TRIALS not in path.relative_to(folder).parts
        ]
        if not finished:
            raise ValueError(f"{folder} holds no finished run: give an output folder of experiments.train.")
        found |= {run.resolve(): _read(run) for run in finished}
    if not found:
        raise ValueError("runs is empty: give one folder or more that hold runs.")
    return _counted_once(found.values())


def _read(folder: Path) -> Run:
    measured = sharpness_records.read(folder)
    try:
        config = Config.load(folder / "config.json")
        run = Run(folder, config, result_of(folder), measured)
        epochs = list(read(folder / "metrics.jsonl", "epoch"))
        complete = run.epochs > 0 and epochs[-1]["step"] == run.result.updates
    except DamagedError as error:
        raise damaged(folder, error.reason) from error
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise damaged(folder, reason_of(error)) from error
    if not complete:
        raise damaged(folder, "metrics.jsonl and result.json disagree")
    return run


def damaged(folder: Path, reason: str) -> ValueError:
    """Returns the error for a damaged run."""
    message = f"{folder} holds a run that is damaged, or was made by another version: remove it ({reason})."
    return ValueError(printable(message))


def _counted_once(runs: Iterable[Run]) -> list[Run]:
    """Merges runs of the same config, which would otherwise count as two seeds.

    A run is a pure function of its config, and two sweeps may both contain it. The sharpness measurements of such runs
    are merged, too.
    """
    first: dict[Config, Run] = {}
    for run in runs:
        same = first.setdefault(run.config.effective, run)
        if not same.result.is_same(run.result):
            raise ValueError(f"{same.folder} and {run.folder} have one config and different results: give one of them.")
        measured = sharpness_records.united(run.sharpness, same.sharpness)
        first[run.config.effective] = same._replace(sharpness=measured)
    return list(first.values())
