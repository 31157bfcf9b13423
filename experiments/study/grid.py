"""The two kinds of study: a grid of methods, strategies and seeds, and a comparison of methods under one strategy.

The paper's grid has nine cells: three methods by three strategies.
"""

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from experiments.config import BaseConfig, Config, checks
from experiments.config.sections import Descent, check_options
from experiments.study.dry_run import evaluations_per_update
from experiments.study.run_spec import RunSpec
from experiments.study.selection import MATCHES, budget, matched
from experiments.study.strategies import (
    ADAPTIVE,
    FALLING_RADIUS,
    NAMES,
    PAPERS,
    TUNED,
    adaptive_plan,
    at_length,
    plan_of_strategy,
    rate_of,
)
from experiments.training.methods import METHODS, MINIMA, OPTIONS
from sam_optax import BatchPlan


@dataclass(frozen=True)
class Grid(BaseConfig):
    """Run every method with every strategy and seed. The defaults are the paper's grid.

    Attributes:
      output: The folder of the study. Runs that are complete there are not run again.
      seeds: The seeds. Each method and strategy is run once per seed.
      methods: The rows of the grid: sgd, sam, gsam or any other method.
      strategies: The columns of the grid. constant is the constant plan at a constant learning rate; cosine, linear
        and warm_restarts are the constant plan under that learning-rate schedule; increasing is the increasing plan.
        The controls of the increasing plan are constant_first, constant_last and constant_mean, at its first, last and
        mean batch size, and reversed. late_switch has the increasing plan's first batch size for four fifths of the
        epochs, then that plan's last. cosine_radius and linear_radius are cosine and linear with a radius and an alpha
        that fall in proportion to the learning rate; methods without a radius have no such cell. adaptive grows from
        the first batch size to the last when the gradient noise requires it; it needs a micro-batch, which all cells
        share. constant_tuned is the constant plan at the method's own learning rate, from tuned_rates.
      match: What all cells have in common: epochs (as in the paper), updates (as many as the increasing plan makes),
        or gradients (SGD makes twice the updates). Several values make several studies in one, and the runs that they
        share are run once.
      epochs: The number of epochs of the constant and of the increasing plan, whose stages keep their proportions. By
        default the plans are not changed.
      constant_plan: The batch plan of the strategies constant, cosine, linear, warm_restarts, cosine_radius and
        linear_radius.
      increasing_plan: The batch plan of the strategy increasing.
      tuned_rates: The learning rate of the strategy constant_tuned for each method, for instance sgd 0.4 sam 0.2.
      include: Patterns of the cells that belong to the study, in which * matches anything: METHOD-STRATEGY, or
        METHOD-STRATEGY-equal_updates for a cell whose plan is matched. All cells by default. The runs of a seed are
        executed in the order of the patterns.
      adaptive_rule: The rule of the strategy adaptive, which is applied at the end of each epoch: noise_scale, a
        multiple of it such as noise_scale:0.5, or norm_test:0.5.
    """

    output: Path
    seeds: tuple[int, ...] = (0, 1, 2)
    methods: tuple[str, ...] = ("sgd", "sam", "gsam")
    strategies: tuple[str, ...] = PAPERS
    match: tuple[str, ...] = ("epochs",)
    epochs: int | None = None
    constant_plan: str = "25x128"
    increasing_plan: str = "5x16,5x32,5x64,5x128,5x256"
    adaptive_rule: str = "noise_scale"
    tuned_rates: tuple[tuple[str, float], ...] = ()
    include: tuple[str, ...] = ("*",)

    def __post_init__(self) -> None:
        _ = self.plans
        checks.check_seeds(self.seeds)
        for name, known in (("methods", METHODS), ("strategies", NAMES), ("match", MATCHES)):
            for value in getattr(self, name):
                checks.check_choice(name, value, known)
            checks.check_distinct(name, getattr(self, name))
        check_options(self, self.methods)
        _check_supported(self)
        checks.check_runs("seeds", self.seeds, len(self.methods) * len(self.strategies) * len(self.match))
        self._check_tuned_rates()
        self._check_radii()
        if ADAPTIVE in self.strategies and self.descent.micro_batch is None:
            raise ValueError(
                "micro_batch is None, and adaptive is one of the strategies: give the size of the parts of a batch "
                "between which its noise is measured. All cells share it."
            )
        self._check_include()

    def _check_tuned_rates(self) -> None:
        methods = [method for method, _ in self.tuned_rates]
        for method, rate in self.tuned_rates:
            checks.check_choice("tuned_rates", method, METHODS)
            checks.check_number("tuned_rates", rate)
        if methods:
            checks.check_distinct("tuned_rates", methods)
        elif TUNED in self.strategies:
            raise ValueError(f"tuned_rates is (), and {TUNED} is one of the strategies: give a rate, such as sgd 0.4.")

    def _check_include(self) -> None:
        """Refuses a pattern that no cell of any study has, and patterns that together choose no cell of this one."""
        names = []
        for method, strategy in product(METHODS, NAMES):
            cell = f"{method}-{strategy}"
            names += [cell, f"{cell}-equal_updates", f"{cell}-equal_gradients"]
        for pattern in self.include:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ValueError(f"include has {pattern!r}: no cell has such a name. Names are such as sgd-constant.")
        if not self._run_specs(self.seeds[:1], None):  # the seed changes nothing that is checked
            raise ValueError(f"include is {self.include}: the study has no cell with such a name.")

    def _check_radii(self) -> None:
        falling = [strategy for strategy in self.strategies if strategy in FALLING_RADIUS]
        if falling and not any(METHODS[method].uses for method in self.methods):
            raise ValueError(
                f"strategies has {falling[0]!r}, and {' or '.join(self.methods)} has no radius: omit it, or add sam."
            )

    @property
    def plans(self) -> tuple[BatchPlan, BatchPlan]:
        """The constant and the increasing plan, at the study's number of epochs."""
        constant, increasing = (
            at_length(name, getattr(self, name), self.epochs) for name in ("constant_plan", "increasing_plan")
        )
        return constant, increasing

    def run_specs(self, stored: int | None = None) -> list[RunSpec]:
        """Returns all runs, ordered by seed, so that a study that is stopped early has complete tables for some seeds.

        Within a seed, the runs are in the order of the patterns of `include`.

        Args:
          stored: the number of training examples of the data set; None: its published number.
        """
        return self._run_specs(self.seeds, stored)

    def _run_specs(self, seeds: tuple[int, ...], stored: int | None) -> list[RunSpec]:
        stored = self.problem.stored_examples if stored is None else stored
        matches = [match for match in MATCHES if match in self.match]  # a shared run has the name of the first match
        once: dict[Config, RunSpec] = {}
        for seed, match, strategy, method in product(seeds, matches, self.strategies, self.methods):
            if not self.has_cell(method, strategy):
                continue
            spec = self._run_spec(match, method, strategy, seed, stored)
            if self._pattern(spec) is not None:
                once.setdefault(spec.config, spec)
        return sorted(once.values(), key=lambda spec: (self.seeds.index(spec.config.seed), self._pattern(spec)))

    def has_cell(self, method: str, strategy: str) -> bool:
        """Returns whether the method has what the strategy changes: a tuned learning rate, or a radius."""
        if strategy == TUNED:
            return method in dict(self.tuned_rates)
        return strategy not in FALLING_RADIUS or bool(METHODS[method].uses)

    def _pattern(self, spec: RunSpec) -> int | None:
        """Returns the position of the first pattern that matches the cell, None if none does."""
        name = spec.folder.name.removesuffix(f"-{spec.config.seed}")
        return next((i for i, pattern in enumerate(self.include) if fnmatchcase(name, pattern)), None)

    def _run_spec(self, match: str, method: str, strategy: str, seed: int, stored: int) -> RunSpec:
        constant, increasing = self.plans
        plan, updates, by = plan_of_strategy(strategy, constant, increasing), None, "epochs"
        parts = self.descent.m or self.descent.micro_batch
        if parts and strategy == "constant_mean":
            plan = plan.rounded_to(parts)  # the size of a part must divide the batch size

        def config() -> Config:
            text = adaptive_plan(increasing, self.adaptive_rule, updates) if strategy == ADAPTIVE else str(plan)
            rate = rate_of(strategy, plan.epochs - self.descent.warmup_epochs)
            made = _config_of(self, method, text, rate, seed)
            return made.with_settings(**self._own_settings(method, strategy))

        if match != "epochs":
            evaluations = evaluations_per_update(config(), stored)
            epoch_size = self.recipe.epoch_size(self.problem.num_examples(stored))
            updates, by = budget(match, evaluations, increasing, epoch_size)
            if strategy != ADAPTIVE:
                plan, by = matched(match, plan, evaluations, increasing, epoch_size)
        words = [method, strategy, *([] if by == "epochs" else [f"equal_{by}"])]
        return RunSpec(f"{' '.join(words)}, seed {seed}", config(), self.output / "-".join([*words, str(seed)]))

    def _own_settings(self, method: str, strategy: str) -> dict[str, float]:
        """The settings in which the cells of a strategy differ from the study, besides plan and schedule."""
        if strategy == TUNED:
            return {"learning_rate": dict(self.tuned_rates)[method]}
        return {MINIMA[name]: 0.0 for name in METHODS[method].uses} if strategy in FALLING_RADIUS else {}


_MOMENTUM = 0.9  # of SGD, the base optimizer of all methods
_DESCENT = Descent(learning_rate=0.05)


@dataclass(frozen=True, kw_only=True)
class Comparison(BaseConfig):
    """Train with every method, each at the radius of its paper, and report error, gradient evaluations and time.

    sam_sps and bsam, which have no base optimizer, have the learning rate of their paper, too.

    Attributes:
      output: The folder of the study. Runs that are complete there are not run again.
      methods: The methods to compare; sgd must be the first.
      seeds: The seeds. Each method is run once per seed.
      batch_plan: The batch plan, a list of epochs x batch size, for example 5x16,5x32.
      lr_schedule: The learning-rate schedule over the epochs, such as constant, cosine or linear.
    """

    output: Path
    methods: tuple[str, ...] = tuple(METHODS)
    seeds: tuple[int, ...] = (0, 1, 2)
    batch_plan: str = "25x64"
    lr_schedule: str = "cosine"
    descent: Annotated[Descent, arg(name="")] = _DESCENT

    def __post_init__(self) -> None:
        for name in ("rho", "alpha"):
            if (value := getattr(self.descent, name)) is not None:
                raise ValueError(f"{name} is {value}: omit it, since each method has its own value here.")
        checks.check_plan("batch_plan", self.batch_plan)
        checks.check_seeds(self.seeds)
        for name in self.methods:
            checks.check_choice("methods", name, METHODS)
        if self.methods[:1] != ("sgd",) or len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods is {self.methods}: give each once, and sgd, to which times are relative, first.")
        check_options(self, self.methods)
        _check_supported(self)
        _ = self.run_specs

    @property
    def run_specs(self) -> list[RunSpec]:
        """All runs, ordered by seed."""
        return [
            RunSpec(f"{method}, seed {seed}", self.config(method, seed), self.output / f"{method}-{seed}")
            for seed, method in product(self.seeds, self.methods)
        ]

    def config(self, method: str, seed: int) -> Config:
        """Returns the config of a run; a complete optimizer has the learning rate of its paper."""
        is_unset = self.descent.momentum is None and self.descent.optimizer == "sgd"
        study = self.with_settings(momentum=_MOMENTUM) if is_unset else self
        config = _config_of(study, method, self.batch_plan, self.lr_schedule, seed)
        rate = METHODS[method].rate
        return config if rate is None else config.with_settings(learning_rate=rate)


def _check_supported(study: BaseConfig) -> None:
    """Refuses more examples than the data set has, and settings that only `experiments.train` supports."""
    study.problem.check_train_examples()
    if study.descent.compile_once:
        raise ValueError("compile_once is True, and studies do not support it: omit it, or use experiments.train.")
    if study.descent.perturbation != "global":
        given = f"perturbation is {study.descent.perturbation!r}, and the runs of a study have one device each"
        raise ValueError(f"{given}: omit it, or use experiments.train.")


def _config_of(study: BaseConfig, method: str, batch_plan: str, lr_schedule: str, seed: int) -> Config:
    """Returns the config of a run: the settings that the runs of the study share, without those its method ignores."""
    unread = [*METHODS[method].unread, *(name for name in OPTIONS if name not in METHODS[method].options)]
    ignored = {name: getattr(Descent(), name) for name in METHODS[method].ignores}
    if lr_schedule == "constant" and not study.descent.warmup_epochs:
        ignored |= dict.fromkeys(MINIMA.values())  # a radius that follows a constant rate is constant
    return Config(
        problem=study.problem,
        network=study.network,
        recipe=study.recipe,
        descent=replace(study.descent, **dict.fromkeys(unread) | ignored),
        method=method,
        batch_plan=batch_plan,
        lr_schedule=lr_schedule,
        seed=seed,
    ).resolved()
