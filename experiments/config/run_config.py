"""The config of a run. A run is a pure function of its config."""

import functools
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optax

from experiments.config.checks import check_choice, check_conflicts
from experiments.config.sections import BaseConfig, check_options
from experiments.training import json_files, learning_rate, loss_and_update, methods
from experiments.training.adaptive import AdaptivePlan
from experiments.training.atomic_write import write_whole
from experiments.training.methods import METHODS, MINIMA, Constants, Hyperparameters
from sam_optax import BatchPlan, Policy, always

_FROM_THE_START = ("dataset", "model", "method", "batch_plan", "learning_rate", "seed")


_parsed = functools.cache(BatchPlan.parse)  # a report asks each of its configs for the plan hundreds of times


@dataclass(frozen=True, kw_only=True)
class Config(BaseConfig):
    """Train one network.

    Attributes:
      method: sgd (the base optimizer alone), sam, gsam, gsam_clean, asam, ported_asam, friendly_sam, vasso, look_sam,
        wsam, wsam_decoupled, unified_sam, unnormalized_sam, stable_sam, le_sam, k_step_sam, xsam, sam_sps, bsam,
        functional_sam or msam.
      when: The steps that make a second pass: always, every:5, after:100 (steps), last:0.3 (of the epochs),
        bernoulli:0.5 (with a probability) or ae_sam (if the gradient is long). By default every:5 for look_sam and
        always for the others.
      batch_plan: Epochs x batch size for each stage, for instance 40x16,40x32,40x64; 200x128 is constant. Stages in
        updates or examples are written updates:100x16,50x64 or examples:250kx64,1Mx128. An adaptive plan, such as
        adaptive:25x16..256:noise_scale, sets the batch size at the end of each epoch by the gradient noise, measured
        between micro-batches. This one has 25 epochs, starts at a batch size of 16 and never exceeds 256. With 1208u
        instead of 25 it ends with the epoch of update 1208. Other rules are noise_scale:0.5, a multiple of the noise
        scale, and norm_test:0.5.
      lr_schedule: The learning rate over the epochs: constant; cosine, linear or polynomial:2 (the power), each down to
        1% of the initial rate; inverse_sqrt, the rate divided by √(1 + epoch); steps:0.2:60,120 (the factor, and the
        epochs at which it multiplies the rate); or warm_restarts:10 or warm_restarts:10x2, cosines of 10 epochs, each
        twice as long as the one before.
      seed: Determines the split, the initial parameters, the order of the data and the augmentation.
    """

    method: str = "gsam"
    when: str | None = None
    batch_plan: str = "5x16,5x32,5x64,5x128,5x256"
    lr_schedule: str = "constant"
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("method", self.method, METHODS)
        if self.resolved() is self:  # otherwise the resolved config was checked when it was made
            self._check()

    def resolved(self) -> "Config":
        """Returns the config with the method's default for each setting that is None."""
        method = METHODS[self.method]
        momentum = 0.0 if self.descent.optimizer == "adamw" else method.momentum
        own = {"rho": method.rho, "alpha": method.alpha, "momentum": momentum, **method.constants._asdict()}
        missing = {
            name: value for name, value in own.items() if value is not None and getattr(self.descent, name) is None
        }
        if not missing and self.when is not None:
            return self
        return replace(self, descent=replace(self.descent, **missing), when=self.when or method.when)

    @classmethod
    def from_settings(cls, **settings: Any) -> "Config":
        """Makes a resolved config from settings by their names on the command line."""
        return super().from_settings(**settings).resolved()

    def _check(self) -> None:
        try:
            _ = self.adaptive, self.plan  # the plan has to fit the examples
        except ValueError as error:
            raise ValueError(f"batch_plan is {self.batch_plan!r}: {error}") from error
        self._check_adaptive_plan()
        learning_rate.parse(
            self.lr_schedule, self.descent.learning_rate, self.length(self.epoch_size), self.descent.warmup_epochs
        )
        self._check_method()
        self._check_shards()
        self._check_micro_batch()
        self._check_compile_once()
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}: give an integer of at least 0 and below 2³², which keys can hold.")

    def _check_adaptive_plan(self) -> None:
        if self.adaptive is None:
            return
        first, micro_batch = self.adaptive.sizes[0], self.descent.micro_batch
        conflicts = {
            ", whose first batch of 1 has no parts between which noise can be measured: give 2 or more.": first == 1,
            f", and micro_batch {micro_batch}: its noise is measured between the parts of a batch, so give "
            f"micro_batch a value below {first} that divides it.": micro_batch is None or micro_batch >= first,
            f", and lr_schedule {self.lr_schedule!r}: a schedule over epochs needs their number. Give the plan in "
            "epochs, or a constant rate.": self.adaptive.is_in_updates and self.lr_schedule != "constant",
            f", and when {self.when!r}: this policy needs a fixed plan. Give another one.": "last" in str(self.when),
        }
        check_conflicts(f"batch_plan is {self.batch_plan!r}", conflicts)

    def _check_method(self) -> None:
        method, descent, rho = METHODS[self.method], self.descent, self.descent.rho or 0.0
        given = f"when is {self.when!r}"
        try:
            self.policy(max(self.epoch_size, *(stage.batch_size for stage in self.plan.stages)))
        except ValueError as error:
            raise ValueError(f"{given}: {error}") from error
        omit = f", and {self.method} makes no second pass: omit it."
        check_conflicts(given, {omit: not method.makes_second_pass and self.when != "always"})
        check_options(self, (self.method,))
        for name in method.unread:
            value, unused = getattr(descent, name), f", and {self.method} does not use it: omit it."
            check_conflicts(f"{name} is {value}", {unused: value not in (0.0, getattr(method, name))})
        self._check_whole_optimizer()
        for name, least in MINIMA.items():
            low, high = getattr(descent, least), getattr(descent, name) or 0.0
            give = f", and {name} is {high}: give {least} a value of at most {name}."
            fixed = ", and the learning rate is constant: omit it, or give another lr_schedule."
            conflicts = {give: (low or 0.0) > high, fixed: low is not None and not self.rate_changes}
            check_conflicts(f"{least} is {low}", conflicts)
        numbers = Hyperparameters(rho, descent.alpha, 0.1, always(), self.constants)
        method.create(optax.sgd(0.1), numbers)  # refuses numbers that the method cannot have
        if self.method == "msam" and descent.optimizer == "sgd" and not descent.momentum:
            raise ValueError("momentum is 0.0, and msam perturbs along the momentum: give a positive one, such as 0.9.")
        if self.method == "msam" and descent.ema:
            raise ValueError(f"ema is {descent.ema}, and msam trains shifted parameters: omit one of the two.")

    def _check_whole_optimizer(self) -> None:
        """Refuses what a method without a base optimizer, or with passes of its own, cannot have."""
        method, descent, shards = METHODS[self.method], self.descent, loss_and_update.BAYESIAN_SHARDS
        if method.complete is None:
            return
        for name in method.ignores:
            value = getattr(descent, name)
            check_conflicts(f"{name} is {value}", {f", and {self.method} has none: omit it.": bool(value)})
        whole = f", and {self.method} is an optimizer of its own: omit it."
        check_conflicts(f"optimizer is {descent.optimizer!r}", {whole: descent.optimizer != "sgd"})
        every = f", and {self.method} makes both passes at every step: omit it."
        check_conflicts(f"when is {self.when!r}", {every: self.when != "always"})
        if method.bayesian:
            omit = f", and {self.method} divides a batch itself: omit it."
            check_conflicts(f"micro_batch is {descent.micro_batch}", {omit: descent.micro_batch is not None})
            draw = f", and {self.method} divides a batch into parts, in which no random numbers can be drawn: omit it."
            check_conflicts(f"drop_path is {self.network.drop_path}", {draw: self.network.drop_path > 0})
            divide = f", and {self.method} divides each batch into {shards} shards: give multiples of {shards}."
            undivided = any(stage.batch_size % shards for stage in self.plan.stages)
            check_conflicts(f"batch_plan is {self.batch_plan!r}", {divide: undivided})

    def _check_shards(self) -> None:
        m, perturbation, method = self.descent.m, self.descent.perturbation, METHODS[self.method]
        if not self.descent.in_shards:
            return
        conflicts = {
            f", and {self.method} cannot be computed shard by shard: omit it.": not method.is_estimator,
            **self._conflicts_of_parts(m),
            f", and perturbation is {perturbation!r}: omit one of the two.": m is not None and perturbation != "global",
        }
        check_conflicts(f"perturbation is {perturbation!r}" if m is None else f"m is {m}", conflicts)

    def _check_micro_batch(self) -> None:
        micro_batch, steps = self.descent.micro_batch, self.descent.ascent_steps
        inside = self.when == methods.GRADIENT_DECIDES
        if micro_batch is None:
            return
        conflicts = {
            ", and m gives each part of a batch its own perturbation: omit one of the two.": self.descent.in_shards,
            f", and {self.when} decides inside the step, which accumulation splits: omit one of the two.": inside,
            f", and ascent_steps {steps}: omit micro_batch, or give ascent_steps 1.": self.second_pass_gradients > 1,
            **self._conflicts_of_parts(micro_batch),
        }
        check_conflicts(f"micro_batch is {micro_batch}", conflicts)

    def _check_compile_once(self) -> None:
        if not self.descent.compile_once:
            return
        part, smallest = self.descent.micro_batch, min(stage.batch_size for stage in self.plan.stages)
        functional, mixing = METHODS[self.method].functional, self.recipe.mixing
        conflicts = {
            ", and micro_batch is None: give the size of the parts of a batch.": part is None,
            f", and micro_batch {part} is larger than the batch size {smallest}: make it smaller.": smallest
            < (part or 0),
            ", and the batch plan is adaptive: omit one of the two.": self.adaptive is not None,
            f", and mixing {mixing} mixes the images of a whole batch: omit one of the two.": mixing > 0,
            f", and {self.method} cannot be computed in such a loop: omit it.": functional,
        }
        check_conflicts("compile_once is True", conflicts)

    def _conflicts_of_parts(self, size: int | None) -> dict[str, bool]:
        """The reasons against dividing batches into parts of this size; None stands for one part per device."""
        drop_path, sizes = self.network.drop_path, [stage.batch_size for stage in self.plan.stages]
        undivided = [each for each in sizes if size is not None and each > size and each % size]
        return {
            f", and the network draws random numbers (drop_path {drop_path}): omit one of the two.": drop_path > 0,
            f", which does not divide the batch size {(undivided or sizes)[0]}: give one that does.": bool(undivided),
        }

    @property
    def plan(self) -> BatchPlan:
        """The batch plan. For an adaptive plan: the one whose batch never grows, which has the most updates."""
        if self.adaptive is None:
            return _parsed(self.batch_plan)
        return self.adaptive.at_first(self.epoch_size)

    @property
    def epoch_size(self) -> int:
        """The number of examples in an epoch; a data set with a name is assumed to have its published size."""
        return self.recipe.epoch_size(self.problem.num_examples(self.problem.stored_examples))

    def length(self, epoch_size: int) -> float:
        """The length of the run in epochs of `epoch_size` examples; a fraction if the last epoch is incomplete."""
        plan = self.plan
        return plan.length if plan.unit == "epochs" else plan.epoch_at(plan.total_steps(epoch_size), epoch_size)

    @property
    def adaptive(self) -> AdaptivePlan | None:
        """The adaptive batch plan; None if the plan is fixed."""
        return AdaptivePlan.parse(self.batch_plan) if self.batch_plan.startswith("adaptive") else None

    def policy(self, num_examples: int) -> Policy:
        """The policy that decides which steps make a second pass, for epochs of `num_examples` examples."""
        return methods.parse_policy(str(self.when), self.plan, num_examples, self.seed)

    @property
    def rate_changes(self) -> bool:
        """Whether the learning rate changes during the run."""
        return self.lr_schedule != "constant" or self.descent.warmup_epochs > 0

    @property
    def constants(self) -> Constants:
        """The numbers of the method that are constant during the run."""
        return Constants(*(getattr(self.descent, name) for name in Constants._fields))

    @property
    def second_pass_gradients(self) -> int:
        """The number of gradients of a second pass; 0 if the method makes none."""
        return (self.descent.ascent_steps or 1) if METHODS[self.method].makes_second_pass else 0

    @property
    def effective(self) -> "Config":
        """The config with settings that the method ignores set to 0. Configs with equal `effective` give equal runs."""
        return self.with_settings(**dict.fromkeys(METHODS[self.method].unread, 0.0))

    def save(self, path: Path) -> None:
        """Writes the config into a new file.

        Raises:
          FileExistsError: If the file exists.
        """
        if path.exists():
            raise FileExistsError(f"{path} already exists.")
        write_whole(path, json.dumps(self.settings, indent=2))

    @classmethod
    def load(cls, path: Path) -> "Config":
        """Reads the config that `save` wrote.

        Raises:
          DamagedError: If it is damaged, or was made by another version.
        """
        return json_files.read(path, cls.of, "start again in another folder.")

    @classmethod
    def of(cls, values: Any) -> "Config":
        """Makes a config from `settings` that were read from JSON.

        Earlier versions accepted any `rho` and `alpha` for a method that does not read them; these become the defaults.
        They also accepted minima of a radius at a constant learning rate, which had no effect.

        Raises:
          ValueError: If a value is missing, unknown or wrong.
        """
        if wrong := json_files.fault(values, cls, _FROM_THE_START):
            raise ValueError(wrong)
        method = METHODS.get(values["method"])
        unread = {} if method is None else {name: getattr(method, name) for name in method.unread if values.get(name)}
        is_constant = values.get("lr_schedule", "constant") == "constant" and not values.get("warmup_epochs")
        minima = dict.fromkeys(name for name in MINIMA.values() if is_constant and name in values)
        return cls.from_settings(**values | unread | minima)
