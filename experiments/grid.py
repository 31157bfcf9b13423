"""The paper's grid: three methods, three strategies, some seeds."""

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from experiments import data, run
from experiments.config import Config, Setup, check_plan
from experiments.training.writers import Record, TensorBoard, read

METHODS = ("sgd", "sam", "gsam")
STRATEGIES = ("constant", "increasing", "cosine")


class Cell(NamedTuple):
    """One run of the grid.

    Attributes:
      method: of `METHODS`.
      strategy: of `STRATEGIES`.
      config: what to run.
      folder: where it is, or will be.
    """

    method: str
    strategy: str
    config: Config
    folder: Path


@dataclass(frozen=True)
class Grid(Setup):
    """Run the paper's grid, SGD, SAM and GSAM by constant batch, increasing batch and cosine learning rate.

    Attributes:
      output: The folder of the study. Runs that are in it already are not run again.
      seeds: One run a cell and seed.
      constant_plan: The batch plan of the strategies constant and cosine.
      increasing_plan: The batch plan of the strategy increasing.
    """

    output: Path
    seeds: tuple[int, ...] = (0, 1, 2)
    constant_plan: str = "25x128"
    increasing_plan: str = "5x16,5x32,5x64,5x128,5x256"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("constant_plan", "increasing_plan"):
            check_plan(name, getattr(self, name))
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds is {self.seeds}: give at least one, each once.")
        _ = self.cells

    @property
    def cells(self) -> list[Cell]:
        """All runs, seed by seed, so that a study that is stopped has whole tables behind it."""
        return [
            Cell(method, strategy, self._config(method, strategy, seed), self.output / f"{method}-{strategy}-{seed}")
            for seed in self.seeds
            for strategy in STRATEGIES
            for method in METHODS
        ]

    def _config(self, method: str, strategy: str, seed: int) -> Config:
        return Config(
            method=method,
            batch_plan=self.increasing_plan if strategy == "increasing" else self.constant_plan,
            lr_schedule="cosine" if strategy == "cosine" else "constant",
            seed=seed,
            **{field.name: getattr(self, field.name) for field in dataclasses.fields(Setup)},
        )


def is_done(cell: Cell) -> bool:
    """Whether the cell was run to its end.

    Raises:
      ValueError: If its folder holds something else, or a run that was damaged.
    """
    if not cell.folder.exists():
        return False
    try:
        same = Config.load(cell.folder / "config.json") == cell.config
        updates = run.result_of(cell.folder)["updates"]
        complete = updates == sum(1 for _ in read(cell.folder / "metrics.jsonl", "step"))
    except (OSError, ValueError, TypeError, KeyError):
        same = complete = False
    if not (same and complete):
        raise ValueError(f"{cell.folder} holds another run, or a damaged one: choose another output, or remove it.")
    return True


def execute(cell: Cell, dataset: data.Dataset, track: run.Track = iter, tensorboard: bool = False) -> Record:
    """Run a cell, in a folder beside its own that is renamed at the end: what has its name is complete.

    Args:
      cell: what to run.
      dataset: its data.
      track: goes through the batches while something watches.
      tensorboard: whether TensorBoard's event files are written, too.

    Returns:
      Its result.
    """
    unfinished = cell.folder.with_name(f"{cell.folder.name}{run.UNFINISHED}")
    shutil.rmtree(unfinished, ignore_errors=True)
    folder = run.claim(unfinished)
    writers = [TensorBoard(folder / "tensorboard")] if tensorboard else []
    result = run.execute(cell.config, dataset, folder, track, writers)
    unfinished.rename(cell.folder)
    return result
