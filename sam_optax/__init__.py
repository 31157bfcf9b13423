"""Sharpness-aware minimisation for JAX: an estimator of the gradient, in front of any Optax optimizer."""

from sam_optax.batch_plan import BatchPlan, Stage
from sam_optax.combiners import Combiner, gap_guided, gap_guided_clean, perturbed_gradient
from sam_optax.gradients import value_and_grad
from sam_optax.masks import biases, by_path
from sam_optax.methods.asam import asam
from sam_optax.methods.gsam import gsam
from sam_optax.methods.sam import sam
from sam_optax.perturbations import adaptive_ascent, normalized_ascent
from sam_optax.policies import Policy, always, every
from sam_optax.schedules import proportional_schedule
from sam_optax.step_diagnostics import Diagnostics, diagnostics
from sam_optax.transformation import SharpnessAwareState, sharpness_aware

__version__ = "0.1.0"

__all__ = [
    "BatchPlan",
    "Combiner",
    "Diagnostics",
    "Policy",
    "SharpnessAwareState",
    "Stage",
    "adaptive_ascent",
    "always",
    "asam",
    "biases",
    "by_path",
    "diagnostics",
    "every",
    "gap_guided",
    "gap_guided_clean",
    "gsam",
    "normalized_ascent",
    "perturbed_gradient",
    "proportional_schedule",
    "sam",
    "sharpness_aware",
    "value_and_grad",
]
