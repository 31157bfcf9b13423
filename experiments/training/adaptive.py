"""Batch plans that are decided during training: their settings, their length, and the decision after each epoch."""

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
    r"(?P<spec>(?P<first>[0-9]+)\.\.(?P<largest>[0-9]+):"
    r"(?P<rule>noise_scale|norm_test(?=:))(?::(?P<number>[0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?))?)"
)
_REMEDY = (
    "give adaptive:25x16..256:noise_scale, that is 25 epochs, a batch of 16 at first and of 256 at most, or "
    "adaptive:1208ux16..256:noise_scale, which ends with the epoch of the 1208th update; the rule is noise_scale, "
    "noise_scale:0.5 (a multiple of it) or norm_test:0.5."
)


class AdaptivePlan(NamedTuple):
    """A batch plan whose next batch size is decided at the end of each epoch, and the length of the run.

    Attributes:
      controller: the controller that decides.
      budget: the length of the run, in epochs or in updates.
      is_in_updates: whether the budget counts updates. The run then ends after the first epoch that reaches this
        number of updates.
      spec: the first size, the largest size and the rule, as the command line spells them: `16..256:noise_scale`.
    """

    controller: AdaptiveBatchPlan
    budget: int
    is_in_updates: bool
    spec: str

    @classmethod
    def parse(cls, text: str) -> "AdaptivePlan":
        """Parses `adaptive:EPOCHSxFIRST..LARGEST:RULE`, or the same with `UPDATESu` in place of the epochs.

        Raises:
          ValueError: If `text` has another form, or a number is out of range.
        """
        found = _FORM.fullmatch(text)
        if found is None:
            raise ValueError(_REMEDY)
        rule = _RULES[found["rule"]](float(found["number"] or 1))
        controller = AdaptiveBatchPlan(int(found["first"]), int(found["largest"]), rule)
        return cls(controller, int(found["budget"]), found["unit"] == "u", found["spec"])

    @property
    def sizes(self) -> tuple[int, ...]:
        """The batch sizes that the run may use, in increasing order."""
        return self.controller.sizes

    def state_at(self, progress: Progress) -> AdaptiveState:
        """Returns the controller's state for a run at this position.

        Raises:
          ValueError: If the position belongs to another plan.
        """
        return self.controller.start() if progress.growth is None else self.controller.restore(progress.growth)

    def plan(self, state: AdaptiveState, num_examples: int) -> BatchPlan:
        """Returns the plan of the epochs so far, followed by the current batch size until the end of the run.

        Args:
          state: the state of the controller after these epochs.
          num_examples: the number of examples in an epoch.

        Raises:
          ValueError: If a batch of the plan is larger than an epoch.
        """
        done = sum(stage.epochs for stage in state.stages)
        if not self.is_in_updates:
            return self.controller.plan(state, self.budget)
        updates = self.controller.plan(state).total_steps(num_examples) if done else 0
        each = _updates_an_epoch(state.batch_size, num_examples)
        return self.controller.plan(state, done + max(0, math.ceil((self.budget - updates) / each)))

    def is_over(self, epochs: int, updates: int) -> bool:
        """Returns whether the run ends after this number of whole epochs, in which `updates` updates were made."""
        return (updates if self.is_in_updates else epochs) >= self.budget

    def at_first(self, num_examples: int) -> BatchPlan:
        """Returns the plan of a run whose batch never grows, which makes the most updates per epoch."""
        return self.plan(self.controller.start(), num_examples)

    def most_updates(self, num_examples: int) -> int:
        """Returns an upper bound of the number of updates of the run.

        Raises:
          ValueError: If the largest batch is larger than an epoch.
        """
        _updates_an_epoch(self.sizes[-1], num_examples)  # raises the error
        if self.is_in_updates:  # the last epoch may begin when a single update remains
            return self.budget - 1 + _updates_an_epoch(self.sizes[0], num_examples)
        return self.at_first(num_examples).total_steps(num_examples)


def _updates_an_epoch(batch_size: int, num_examples: int) -> int:
    if batch_size > num_examples:
        raise ValueError(f"batch size {batch_size} is larger than the data, {num_examples} examples: make it smaller.")
    return num_examples // batch_size


Decide = Callable[[BatchPlan, Progress], tuple[BatchPlan, Progress]]
"""`decide(plan, progress)` → the plan from here on, and the position with the decision stored in it. It is called after
the last step of each epoch, before the epoch is closed."""


@dataclass(frozen=True)
class Growing:
    """Decides on the batch plan after each epoch, from the gradient noise of that epoch.

    Attributes:
      adaptive: the adaptive plan.
      num_examples: the number of examples in an epoch.
      follow: is called with a plan whose batch has grown and the number of updates made; later batches follow that
        plan.
      agreed: broadcasts the decision of one process to all, because float sums may differ between processes.
    """

    adaptive: AdaptivePlan
    num_examples: int
    follow: Callable[[BatchPlan, int], None]
    agreed: Callable[[AdaptiveState], AdaptiveState] = lambda state: state

    def __call__(self, plan: BatchPlan, progress: Progress) -> tuple[BatchPlan, Progress]:
        """Decides at the end of an epoch."""
        before = self.adaptive.state_at(progress)
        after = self.agreed(self.adaptive.controller.after_epoch(before, progress.noise.deciding))
        plan = self.adaptive.plan(after, self.num_examples)
        if after.batch_size != before.batch_size and progress.epoch + 1 < plan.epochs:
            self.follow(plan, progress.step)
        return plan, progress._replace(growth=after._asdict())
