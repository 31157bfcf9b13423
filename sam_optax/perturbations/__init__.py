"""Perturbations: transformations from the clean gradient to the offset `ε` of the second pass.

A perturbation is an ordinary `optax.GradientTransformation`, and any transformation may be used. It is called once per
update, also on skipped steps, so that its state depends on every clean gradient.
"""

from sam_optax.perturbations.adaptive import adaptive_ascent, ported_adaptive_ascent
from sam_optax.perturbations.gradient_direction import (
    friendly_ascent,
    loss_increase_ascent,
    normalized_ascent,
    smoothed_ascent,
    unified_ascent,
)
from sam_optax.perturbations.repeated import k_step_ascent, repeated_ascent

__all__ = [
    "adaptive_ascent",
    "friendly_ascent",
    "k_step_ascent",
    "loss_increase_ascent",
    "normalized_ascent",
    "ported_adaptive_ascent",
    "repeated_ascent",
    "smoothed_ascent",
    "unified_ascent",
]
