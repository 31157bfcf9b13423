"""How a batch is divided: into parts that a device computes one after the other, and over devices."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from sam_optax import devices, hyperparameters, trees
from sam_optax.batch_arguments import BatchArguments, Call


@dataclass(frozen=True)
class Division:
    """How a batch is divided over parts and devices.

    Attributes:
      parts: the number of equal parts that the batch of a device is cut into; it computes them one after the other.
      batch: the arguments that are cut into parts.
      axis_name: the device axis, or axes, to average over; None means one device.
      count: the number of parts that are used, which may be traced; None means all.
    """

    parts: int
    batch: BatchArguments
    axis_name: Any = None
    count: Any = None

    @classmethod
    def create(
        cls, micro_batches: Any, max_micro_batches: Any, batch_argnums: Any, batch_argnames: Any, axis_name: Any
    ) -> "Division":
        """The division that the options of `value_and_grad` describe.

        Raises:
          ValueError: If an option is not of its kind.
        """
        batch = BatchArguments.create(batch_argnums, batch_argnames)
        if max_micro_batches is None:
            _check_not_an_array(micro_batches)
            hyperparameters.check_count("micro_batches", micro_batches, "the parts that the batch is cut into")
            return cls(int(micro_batches), batch, axis_name)
        hyperparameters.check_count("max_micro_batches", max_micro_batches, "the parts that the batch is padded to")
        _check_used_parts(micro_batches, max_micro_batches)
        return cls(int(max_micro_batches), batch, axis_name, jnp.asarray(micro_batches))

    @property
    def is_cut(self) -> bool:
        """Whether the batch is computed in parts."""
        return self.parts > 1 or self.count is not None

    def check_noise(self, measure_noise: bool, batch_weight: Any) -> None:
        """Raises `ValueError` if noise is to be measured of one part, or of parts of unequal weight or number."""
        if measure_noise and self.count is not None:
            raise ValueError(
                "measure_noise is True, and max_micro_batches is given: the noise needs a number of parts that is not "
                "traced. Give micro_batches without max_micro_batches."
            )
        if measure_noise and self.parts == 1 and self.axis_name is None:
            raise ValueError("measure_noise is True, and the batch has one part: give micro_batches of 2 or more.")
        refuse_weighted_noise(measure_noise, batch_weight)

    def examples(self, call: Call) -> int:
        """The number of examples in the batch of all devices."""
        return self.batch.size(call) * devices.count(self.axis_name)


def _check_not_an_array(micro_batches: Any) -> None:
    if isinstance(micro_batches, jax.Array):
        raise ValueError(
            f"micro_batches is {micro_batches!r}, an array: give max_micro_batches, too, the number of parts that the "
            "batch is padded to; or give an integer."
        )


def _check_used_parts(micro_batches: Any, most: int) -> None:
    """Raises `ValueError` unless `micro_batches` is an integer from 1 to `most`, or a traced integer scalar."""
    is_integer = jnp.issubdtype(jnp.result_type(micro_batches), jnp.integer) and jnp.shape(micro_batches) == ()
    if not is_integer or not (trees.is_traced(micro_batches) or 1 <= micro_batches <= most):
        raise ValueError(f"micro_batches is {micro_batches!r}: give an integer from 1 to max_micro_batches, {most}.")


def refuse_weighted_noise(measure_noise: bool, batch_weight: Any) -> None:
    """Raises `ValueError` if noise is to be measured of parts of unequal weight."""
    if measure_noise and batch_weight is not None:
        raise ValueError(
            "measure_noise is True, and batch_weight is given: the noise is that of parts of equal size, so give one "
            "or the other."
        )
