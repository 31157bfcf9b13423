"""Batch sizes that grow instead of a falling learning rate, with a rising one, or when the gradient noise requires."""

from sam_optax.batch_growth.averages import decay_for_batch
from sam_optax.batch_growth.controller import AdaptiveBatchPlan, AdaptiveState, Rule, noise_scale_rule, norm_test
from sam_optax.batch_growth.rates import decay_for_growth, growth_for_decay, rate_for_growth

__all__ = [
    "AdaptiveBatchPlan",
    "AdaptiveState",
    "Rule",
    "decay_for_batch",
    "decay_for_growth",
    "growth_for_decay",
    "noise_scale_rule",
    "norm_test",
    "rate_for_growth",
]
