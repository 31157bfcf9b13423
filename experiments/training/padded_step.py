"""One compiled step for all batch sizes of a plan.

A batch is padded to the largest size of the plan. The step loops over its micro-batches, and the number of those that
it uses is an argument. A growing batch therefore compiles one step. On a CPU, the gradient of a convolution is many
times slower in such a loop.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

import sam_optax
from experiments.training.loss_and_update import Call, Decision, LossAndUpdate, StepOutput, model_loss
from experiments.training.optimizer import Optimizer
from experiments.training.step import Prepare


class PaddedBatch(NamedTuple):
    """A batch that is padded to the largest batch size of a plan.

    Attributes:
      rows: the arrays of the batch, `(largest, ...)`; the padding repeats the last example.
      micro_batches: the number of micro-batches that are used, an integer scalar.
    """

    rows: dict[str, Any]
    micro_batches: Any


@dataclass(frozen=True)
class Padding:
    """How batches are padded.

    Attributes:
      largest: the largest batch size of the plan.
      micro_batch: the number of examples of a micro-batch; it divides every batch size.
    """

    largest: int
    micro_batch: int

    @property
    def parts(self) -> int:
        """The number of micro-batches of a padded batch."""
        return self.largest // self.micro_batch

    def send(self, batch: dict[str, np.ndarray]) -> PaddedBatch:
        """Pads a batch of host arrays, and puts it on the device."""
        size = len(batch["position"])
        kept = np.minimum(np.arange(self.largest), size - 1)
        rows = {name: x[kept] for name, x in batch.items()}
        return jax.device_put(PaddedBatch(rows, np.int32(size // self.micro_batch)))


def prepared(prepare: Prepare) -> Callable[[PaddedBatch, Any], tuple[Any, ...]]:
    """Returns `prepare` for padded batches; it returns the number of micro-batches last."""
    return lambda batch, constants: (*prepare(batch.rows, constants), batch.micro_batches)


def padded(model: nnx.Module, tx: Optimizer, parts: int) -> LossAndUpdate:
    """Returns the update of a padded batch, with one perturbation for all its examples.

    Args:
      model: defines the architecture; its variables are not read. It has no BatchNorm and draws no random numbers.
      tx: the optimizer, made by `optimizer.create`.
      parts: the number of micro-batches of a padded batch.
    """
    loss_fn = model_loss(model)

    def descend(params: Any, opt_state: Any, call: Call, perturb: Decision) -> StepOutput:
        *inputs, used = call
        value_and_grad = sam_optax.value_and_grad(
            loss_fn, has_aux=True, micro_batches=used, max_micro_batches=parts, batch_argnums=(1, 2, 3)
        )
        (loss, (error, model_state)), grads, grad_fn = value_and_grad(params, *inputs)
        updates, opt_state = tx.update(grads, opt_state, params, grad_fn=grad_fn, value=loss, perturb=perturb)
        return StepOutput(loss, error, grads, updates, model_state, opt_state)

    return descend
