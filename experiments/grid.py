"""The paper's grid: three methods, three strategies, some seeds."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from experiments import run
from experiments.config import Config
from experiments.training import metrics
from experiments.training.loop import Record

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
class Grid:
    """Run the paper's grid, SGD, SAM and GSAM by constant batch, increasing batch and cosine learning rate.

    Attributes:
      output: The folder of the study. Runs that are in it already are not run again.
      dataset: As of experiments.train.
      model: As of experiments.train.
      seeds: One run a cell and seed.
      rho: The radius of sam and gsam.
      alpha: The weight of gsam's surrogate gap.
      optimizer: The base optimizer: sgd or adamw.
      learning_rate: Its initial learning rate.
      momentum: Of sgd.
      weight_decay: As of experiments.train.
      constant_plan: The batch plan of the strategies constant and cosine.
      increasing_plan: The batch plan of the strategy increasing.
    """

    output: Path
    dataset: str = "digits"
    model: str = "small_resnet"
    seeds: tuple[int, ...] = (0, 1, 2)
    rho: float = 0.05
    alpha: float = 0.02
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    constant_plan: str = "25x128"
    increasing_plan: str = "5x16,5x32,5x64,5x128,5x256"

    def __post_init__(self) -> None:
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
        shared = ("dataset", "model", "rho", "alpha", "optimizer", "learning_rate", "momentum", "weight_decay")
        return Config(
            method=method,
            batch_plan=self.increasing_plan if strategy == "increasing" else self.constant_plan,
            lr_schedule="cosine" if strategy == "cosine" else "constant",
            seed=seed,
            **{name: getattr(self, name) for name in shared},
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
        complete = result_of(cell)["updates"] == sum(1 for _ in metrics.read(cell.folder / "metrics.jsonl", "step"))
    except (OSError, ValueError, TypeError, KeyError):
        same = complete = False
    if not (same and complete):
        raise ValueError(f"{cell.folder} holds another run, or a damaged one: choose another output, or remove it.")
    return True


def execute(cell: Cell, track: run.Track) -> Record:
    """Run a cell, in a folder beside its own that is renamed at the end: what has its name is complete."""
    unfinished = cell.folder.with_name(f"{cell.folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    result = run.execute(cell.config, run.load(cell.config), run.claim(unfinished), track)
    unfinished.rename(cell.folder)
    return result


def result_of(cell: Cell) -> Record:
    """The result of a cell that was run."""
    return json.loads((cell.folder / "result.json").read_text(encoding="utf-8"))
