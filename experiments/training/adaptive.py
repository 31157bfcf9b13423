"""A batch plan that is decided during training: its settings, its length, and the decision after an epoch."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from experiments.training.progress import Progress
from sam_optax import AdaptiveBatchPlan, AdaptiveState, BatchPlan, noise_scale_rule, norm_test
from sam_optax.batch_growth import Rule

_RULES: dict[str, Callable[[float], Rule]] = {"noise_scale": noise_scale_rule, "norm_test": norm_test}
_FORM = re.compile(
    r"adaptive:(?P<budget>0*[1-9][0-9]*)(?P<unit>u?)x"
    r"(?P<course>(?P<first>[0-9]+)\.\.(?P<largest>[0-9]+):"
    r"(?P<rule>noise_scale|norm_test(?=:))(?::(?P<number>[0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?))?)"
)
_REMEDY = (
    "give adaptive:25x16..256:noise_scale, that is 25 epochs, a batch of 16 at first and of 256 at most, or "
    "adaptive:1208ux16..256:noise_scale, which ends with the epoch of the 1208th update; the rule is noise_scale, "
    "noise_scale:0.5 (a multiple of it) or norm_test:0.5."
)


class AdaptivePlan(NamedTuple):
    """A batch plan that is decided at the end of each epoch, and when the run ends.

    Attributes:
      controller: decides.
      budget: how many epochs the run has, or updates.
      is_in_updates: whether the budget is one of updates: then the run ends at the end of the first epoch at which so
        many are made.
      course: the first size, the largest one and the rule, as they are spelt: `16..256:noise_scale`.
    """

    controller: AdaptiveBatchPlan
    budget: int
    is_in_updates: bool
    course: str

    @classmethod
    def parse(cls, text: str) -> "AdaptivePlan":
        """The plan that `text` spells as `adaptive:EPOCHSxFIRST..LARGEST:RULE`, or with `UPDATESu` for the epochs.

        Raises:
          ValueError: If it has another form, or a number that cannot be.
        """
        found = _FORM.fullmatch(text)
        if found is None:
            raise ValueError(_REMEDY)
        rule = _RULES[found["rule"]](float(found["number"] or 1))
        controller = AdaptiveBatchPlan(int(found["first"]), int(found["largest"]), rule)
        return cls(controller, int(found["budget"]), found["unit"] == "u", found["course"])

    @property
    def sizes(self) -> tuple[int, ...]:
        """The batch sizes that the run may have, growing."""
        return self.controller.sizes

    def state_at(self, progress: Progress) -> AdaptiveState:
        """The controller's state of a run at this position.

        Raises:
          ValueError: If the position is that of another plan.
        """
        return self.controller.start() if progress.growth is None else self.controller.restore(progress.growth)

    def plan(self, state: AdaptiveState, num_examples: int) -> BatchPlan:
        """The epochs so far, and behind them the size in force to the end of the run.

        Args:
          state: of the controller, after so many epochs.
          num_examples: of an epoch.

        Raises:
          ValueError: If a batch of the plan is larger than an epoch.
        """
        done = sum(stage.epochs for stage in state.stages)
        if not self.is_in_updates:
            return self.controller.plan(state, self.budget)
        made = self.controller.plan(state).total_steps(num_examples) if done else 0
        each = _updates_an_epoch(state.batch_size, num_examples)
        return self.controller.plan(state, done + max(0, math.ceil((self.budget - made) / each)))

    def is_over(self, epochs: int, updates: int) -> bool:
        """Whether the run ends after so many whole epochs, which made so many updates."""
        return (updates if self.is_in_updates else epochs) >= self.budget

    def at_first(self, num_examples: int) -> BatchPlan:
        """The plan at the start: what comes if the batch never grows, which makes the most updates an epoch."""
        return self.plan(self.controller.start(), num_examples)

    def most_updates(self, num_examples: int) -> int:
        """What the updates of the run do not exceed.

        Raises:
          ValueError: If the largest batch is larger than an epoch.
        """
        _updates_an_epoch(self.sizes[-1], num_examples)  # which refuses that
        if self.is_in_updates:  # an epoch may begin where one update is left
            return self.budget - 1 + _updates_an_epoch(self.sizes[0], num_examples)
        return self.at_first(num_examples).total_steps(num_examples)


def _updates_an_epoch(batch_size: int, num_examples: int) -> int:
    if batch_size > num_examples:
        raise ValueError(f"batch size {batch_size} is larger than the data, {num_examples} examples: make it smaller.")
    return num_examples // batch_size


Decide = Callable[[BatchPlan, Progress], tuple[BatchPlan, Progress]]
"""`decide(plan, progress)` → the plan from here on, and the position that remembers what was decided; asked behind the
last step of each epoch, before it is closed."""


@dataclass(frozen=True)
class Growing:
    """A plan that the noise of each epoch decides on.

    Attributes:
      adaptive: the plan.
      num_examples: examples of an epoch.
      follow: takes a plan whose batch has grown, and the number of updates made: later batches are of that plan.
      agreed: makes the decision of one process that of all, since each decides by float sums of its own.
    """

    adaptive: AdaptivePlan
    num_examples: int
    follow: Callable[[BatchPlan, int], None]
    agreed: Callable[[AdaptiveState], AdaptiveState] = lambda state: state

    def __call__(self, plan: BatchPlan, progress: Progress) -> tuple[BatchPlan, Progress]:
        """Decide at the end of an epoch."""
        before = self.adaptive.state_at(progress)
        after = self.agreed(self.adaptive.controller.after_epoch(before, progress.noise.deciding))
        plan = self.adaptive.plan(after, self.num_examples)
        if after.batch_size != before.batch_size and progress.epoch + 1 < plan.epochs:
            self.follow(plan, progress.step)
        return plan, progress._replace(growth=after._asdict())
