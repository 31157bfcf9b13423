"""When to pay for a second pass."""

from sam_optax.policies.bernoulli import bernoulli
from sam_optax.policies.gradient_norm import AEState, ae_sam
from sam_optax.policies.policy import Policy
from sam_optax.policies.steps import after, always, every, last

__all__ = ["AEState", "Policy", "ae_sam", "after", "always", "bernoulli", "every", "last"]
