"""What the loop asks at the end of an epoch: which plan the run has from there on."""

from collections.abc import Callable

from experiments.training.adaptive_plan import AdaptivePlan
from experiments.training.progress import Progress
from sam_optax import AdaptiveState, BatchPlan

Decide = Callable[[BatchPlan, Progress], tuple[BatchPlan, Progress]]
"""`decide(plan, progress)` → the plan from here on, and the position that remembers what was decided; asked behind the
last step of each epoch, before it is closed."""


def as_planned(plan: BatchPlan, progress: Progress) -> tuple[BatchPlan, Progress]:
    """A plan that is known beforehand stays what it is."""
    return plan, progress


class Growing:
    """A plan that the noise of each epoch decides on."""

    def __init__(
        self,
        adaptive: AdaptivePlan,
        num_examples: int,
        follow: Callable[[BatchPlan, int], None],
        agreed: Callable[[AdaptiveState], AdaptiveState] = lambda state: state,
    ) -> None:
        """From the adaptive plan to the decisions.

        Args:
          adaptive: the plan.
          num_examples: examples an epoch.
          follow: takes a plan whose batch has grown, and the number of updates made: batches are of it from then on.
          agreed: makes the decision of one process that of all, since each decides by float sums of its own.
        """
        self._adaptive, self._num_examples, self._follow, self._agreed = adaptive, num_examples, follow, agreed

    def __call__(self, plan: BatchPlan, progress: Progress) -> tuple[BatchPlan, Progress]:
        """Decide at the end of an epoch."""
        before = _state(self._adaptive, progress)
        after = self._agreed(self._adaptive.controller.after_epoch(before, progress.noise.deciding))
        plan = self._adaptive.plan(after, self._num_examples)
        if after.batch_size != before.batch_size and progress.epoch + 1 < plan.epochs:
            self._follow(plan, progress.step)
        return plan, progress._replace(growth=after._asdict())


def plan_at(adaptive: AdaptivePlan, progress: Progress, num_examples: int) -> BatchPlan:
    """The plan of a run that stands there, so far and with the size in force to the end.

    Raises:
      ValueError: If the position is that of another plan.
    """
    return adaptive.plan(_state(adaptive, progress), num_examples)


def _state(adaptive: AdaptivePlan, progress: Progress) -> AdaptiveState:
    controller = adaptive.controller
    return controller.start() if progress.growth is None else controller.restore(progress.growth)
