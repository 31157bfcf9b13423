"""A batch plan that is decided while the run trains: as the command line says it, and how long it lasts."""

import math
import re
from collections.abc import Callable
from typing import NamedTuple

from sam_optax import AdaptiveBatchPlan, AdaptiveState, BatchPlan, noise_scale_rule, norm_test
from sam_optax.batch_growth import Rule

_RULES: dict[str, Callable[[str | None], Rule]] = {
    "noise_scale": lambda multiple: noise_scale_rule(float(multiple or 1)),
    "norm_test": lambda theta: norm_test(float(theta or "")),
}
_FORM = re.compile(r"adaptive:([0-9]+)(u?)x([0-9]+)\.\.([0-9]+):([a-z_]+)(?::([0-9.e+-]+))?")
_REMEDY = (
    "give adaptive:25x16..256:noise_scale, that is 25 epochs, a batch of 16 at first and of 256 at most, or "
    "adaptive:1208ux16..256:noise_scale, which ends with the epoch of the 1208th update; the rule is noise_scale, "
    "noise_scale:0.5 (a multiple of it) or norm_test:0.5."
)


def is_adaptive(text: str) -> bool:
    """Whether the text of a batch plan is that of an adaptive one."""
    return text.startswith("adaptive")


class AdaptivePlan(NamedTuple):
    """A batch plan that is decided at the end of each epoch, and when the run ends.

    Attributes:
      controller: decides.
      budget: how many epochs the run has, or updates.
      is_in_updates: whether the budget is one of updates: then the run ends at the end of the first epoch at which so
        many are made.
    """

    controller: AdaptiveBatchPlan
    budget: int
    is_in_updates: bool

    @classmethod
    def parse(cls, text: str) -> "AdaptivePlan":
        """The plan that `text` spells as `adaptive:EPOCHSxFIRST..LARGEST:RULE`, or with `UPDATESu` for the epochs.

        Raises:
          ValueError: If it has another form, or a number that cannot be.
        """
        found = _FORM.fullmatch(text)
        if found is None or found[5] not in _RULES or int(found[1]) < 1:
            raise ValueError(_REMEDY)
        try:
            rule = _RULES[found[5]](found[6])
        except ValueError as error:
            raise ValueError(f"{found[5]}:{found[6]}: {error} {_REMEDY}" if found[6] else _REMEDY) from error
        return cls(AdaptiveBatchPlan(int(found[3]), int(found[4]), rule), int(found[1]), found[2] == "u")

    @property
    def sizes(self) -> tuple[int, ...]:
        """The batch sizes that the run may have, growing."""
        return self.controller.sizes

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
        each = BatchPlan.constant(state.batch_size, 1).total_steps(num_examples)
        return self.controller.plan(state, done + max(0, math.ceil((self.budget - made) / each)))

    def at_first(self, num_examples: int) -> BatchPlan:
        """The plan at the start: what comes if the batch never grows, which makes the most updates an epoch."""
        return self.plan(self.controller.start(), num_examples)

    def most_updates(self, num_examples: int) -> int:
        """What the updates of the run do not exceed.

        Raises:
          ValueError: If the largest batch is larger than an epoch.
        """
        BatchPlan.constant(self.sizes[-1], 1).total_steps(num_examples)  # which refuses that
        if self.is_in_updates:  # an epoch may begin where one update is left
            return self.budget - 1 + num_examples // self.sizes[0]
        return self.at_first(num_examples).total_steps(num_examples)
