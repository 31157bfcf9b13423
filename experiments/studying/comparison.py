"""A comparison of the methods: all of them on the same data, by the same plan."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from experiments.config import Config, Setup, check_choice, check_plan, check_seeds
from experiments.studying.cell import Cell
from experiments.training.methods import METHODS

_MOMENTUM = 0.9  # of sgd, which all methods share


@dataclass(frozen=True, kw_only=True)
class Comparison(Setup):
    """Train with every method, each at the radius of its paper; tell error, gradient evaluations and time.

    Attributes:
      output: The folder of the study. Runs that are in it already are not run again.
      methods: Which of them.
      seeds: One run a method and seed.
      batch_plan: Epochs x batch size, stage by stage.
      lr_schedule: constant, cosine or linear over the epochs.
    """

    output: Path
    methods: tuple[str, ...] = tuple(METHODS)
    seeds: tuple[int, ...] = (0, 1, 2)
    batch_plan: str = "25x64"
    lr_schedule: str = "cosine"
    learning_rate: float = 0.05

    def __post_init__(self) -> None:
        if self.momentum is None and self.optimizer == "sgd":
            object.__setattr__(self, "momentum", _MOMENTUM)
        super().__post_init__()
        for name in ("rho", "alpha"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} is {getattr(self, name)}: leave it out, each method has its own here.")
        check_plan("batch_plan", self.batch_plan)
        check_seeds(self.seeds)
        for name in self.methods:
            check_choice("methods", name, METHODS)
        if self.methods[:1] != ("sgd",) or len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods is {self.methods}: give each once, and sgd first, which time is measured in.")
        _ = self.cells

    @property
    def cells(self) -> list[Cell]:
        """All runs, seed by seed."""
        return [
            Cell(f"{method}, seed {seed}", self.config(method, seed), self.output / f"{method}-{seed}")
            for seed in self.seeds
            for method in self.methods
        ]

    def config(self, method: str, seed: int) -> Config:
        """The config of a run."""
        shared = {field.name: getattr(self, field.name) for field in dataclasses.fields(Setup)}
        return Config(method=method, seed=seed, batch_plan=self.batch_plan, lr_schedule=self.lr_schedule, **shared)
