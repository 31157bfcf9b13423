"""The paper's grid: three methods, three strategies, some seeds."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from experiments.cell import Cell
from experiments.config import Config, Setup, check_plan, check_seeds

METHODS = ("sgd", "sam", "gsam")
STRATEGIES = ("constant", "increasing", "cosine")


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
        check_seeds(self.seeds)
        _ = self.cells

    @property
    def cells(self) -> list[Cell]:
        """All runs, seed by seed, so that a study that is stopped has whole tables behind it."""
        return [
            Cell(
                f"{method} {strategy}, seed {seed}",
                self._config(method, strategy, seed),
                self.output / f"{method}-{strategy}-{seed}",
            )
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
