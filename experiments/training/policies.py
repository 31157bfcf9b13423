"""Policies: when to make a second pass, as the command line says it."""

from collections.abc import Callable
from typing import TypeVar

import jax
import optax

import sam_optax
from sam_optax import BatchPlan, Policy

Kind = TypeVar("Kind", int, float)

_REMEDY = "give one of always, every:5, after:100, last:0.3, bernoulli:0.5, ae_sam, with numbers of your own."

GRADIENT_DECIDES = "ae_sam"


def parse(text: str, plan: BatchPlan, num_examples: int, seed: int) -> Policy:
    """The policy that `text` names.

    Args:
      text: `always`; `every:K`, each K-th step; `after:STEP`, from a step on; `last:FRACTION`, in the last fraction of
        the epochs; `bernoulli:P`, with a probability; `ae_sam`, where the gradient is long, by a bar that falls through
        the plan from one deviation above the mean to one below.
      plan: the batch plan of the run.
      num_examples: the number of training examples.
      seed: of the lots that `bernoulli` draws.

    Returns:
      The policy.

    Raises:
      ValueError: If `text` has another form, or a number that cannot be.
    """
    name, _, number = text.partition(":")
    makers: dict[str, Callable[[], Policy]] = {
        "always": sam_optax.always,
        "every": lambda: sam_optax.every(_number(int, number)),
        "after": lambda: sam_optax.after(_number(int, number)),
        "last": lambda: sam_optax.last(_number(float, number), plan, num_examples),
        "bernoulli": lambda: sam_optax.bernoulli(_number(float, number), jax.random.key(seed)),
        GRADIENT_DECIDES: lambda: falling_bar(plan.total_steps(num_examples)),
    }
    if name not in makers or bool(number) != (name not in ("always", GRADIENT_DECIDES)):
        raise ValueError(_REMEDY)
    return makers[name]()


def _number(kind: type[Kind], text: str) -> Kind:
    try:
        return kind(text)
    except ValueError as error:
        raise ValueError(_REMEDY) from error


def falling_bar(total_steps: int) -> Policy:
    """AE-SAM's policy as in its paper, with `c` from 1 to −1 through the steps."""
    return sam_optax.ae_sam(optax.linear_schedule(1.0, -1.0, total_steps))
