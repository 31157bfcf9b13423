"""Batch sizes that grow in place of a falling learning rate, with a rising one, or when the gradients ask for it."""

from sam_optax.batch_growth.controller import AdaptiveBatchPlan, AdaptiveState
from sam_optax.batch_growth.decay import decay_for_growth, growth_for_decay
from sam_optax.batch_growth.rates import rate_for_growth
from sam_optax.batch_growth.rules import Rule, noise_scale_rule, norm_test

__all__ = [
    "AdaptiveBatchPlan",
    "AdaptiveState",
    "Rule",
    "decay_for_growth",
    "growth_for_decay",
    "noise_scale_rule",
    "norm_test",
    "rate_for_growth",
]
