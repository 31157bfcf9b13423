"""A study: methods by strategies, the paper's nine cells or more, some seeds."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from experiments import data
from experiments.config import Config, Setup, check_choice, check_plan, check_seeds
from experiments.studying import strategies
from experiments.studying.cell import Cell
from experiments.studying.matching import MATCHES, matched
from experiments.studying.outlook import evaluations_an_update
from experiments.training.methods import METHODS
from sam_optax import BatchPlan


@dataclass(frozen=True)
class Grid(Setup):
    """Run methods by strategies; left as it is, the paper's grid.

    Attributes:
      output: The folder of the study. Runs that are in it already are not run again.
      seeds: One run a cell and seed.
      methods: The rows: sgd, sam, gsam or any other method.
      strategies: The columns: constant, increasing, or the constant plan under a cosine, linear or warm_restarts rate;
        controls of the increasing plan are constant_first, constant_last and constant_mean, at its first, last and mean
        batch size, and reversed.
      match: What all cells have in common: epochs (the paper's), updates (those of the increasing plan), or gradients
        (SGD takes twice the updates); several are several studies in one, where what they share is run once.
      constant_plan: The batch plan of the strategies constant, cosine, linear and warm_restarts.
      increasing_plan: The batch plan of the strategy increasing.
    """

    output: Path
    seeds: tuple[int, ...] = (0, 1, 2)
    methods: tuple[str, ...] = ("sgd", "sam", "gsam")
    strategies: tuple[str, ...] = strategies.PAPERS
    match: tuple[str, ...] = ("epochs",)
    constant_plan: str = "25x128"
    increasing_plan: str = "5x16,5x32,5x64,5x128,5x256"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("constant_plan", "increasing_plan"):
            check_plan(name, getattr(self, name))
        check_seeds(self.seeds)
        for name, known in (("methods", METHODS), ("strategies", strategies.NAMES), ("match", MATCHES)):
            chosen = getattr(self, name)
            for value in chosen:
                check_choice(name, value, known)
            if not chosen or len(set(chosen)) < len(chosen):
                raise ValueError(f"{name} is {chosen}: give at least one, each once.")
        _ = self.cells()

    def cells(self, stored: int | None = None) -> list[Cell]:
        """All runs, seed by seed, so that a study that is stopped has whole tables behind it.

        Args:
          stored: how many training examples the data set has; left out, as many as it is known to have.
        """
        stored = data.SIZES[self.dataset].train if stored is None else stored
        cells = [
            self._cell(match, method, strategy, seed, stored)
            for seed in self.seeds
            for match in MATCHES  # in the order in which what they share is named
            if match in self.match
            for strategy in self.strategies
            for method in self.methods
        ]
        once: dict[Config, Cell] = {}
        for cell in cells:
            once.setdefault(cell.config, cell)
        return list(once.values())

    def _cell(self, match: str, method: str, strategy: str, seed: int, stored: int) -> Cell:
        constant, increasing = map(BatchPlan.parse, (self.constant_plan, self.increasing_plan))
        plan = strategies.plan_of(strategy, constant, increasing)
        if self.m and strategy == "constant_mean":
            plan = plan.rounded_to(self.m)  # which has to divide it
        by = "epochs"
        if match != "epochs":
            evaluations = evaluations_an_update(self._config(method, strategy, plan, seed), stored)
            size = self.epoch_size(self.num_examples(stored))
            plan, by = matched(match, plan, evaluations, increasing, size)
        words = [method, strategy, *([] if by == "epochs" else [f"equal_{by}"])]
        config = self._config(method, strategy, plan, seed)
        return Cell(f"{' '.join(words)}, seed {seed}", config, self.output / "-".join([*words, str(seed)]))

    def _config(self, method: str, strategy: str, plan: BatchPlan, seed: int) -> Config:
        rate = strategies.rate_of(strategy, plan.epochs - self.warmup_epochs)
        shared = {field.name: getattr(self, field.name) for field in dataclasses.fields(Setup)}
        return Config(method=method, batch_plan=str(plan), lr_schedule=rate, seed=seed, **shared)
