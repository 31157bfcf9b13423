"""Sharpness-aware minimisation for JAX: gradient estimators that precede any Optax optimizer in a chain."""

from sam_optax import sharpness
from sam_optax.batch_growth import (
    AdaptiveBatchPlan,
    AdaptiveState,
    Rule,
    decay_for_batch,
    decay_for_growth,
    growth_for_decay,
    noise_scale_rule,
    norm_test,
    rate_for_growth,
)
from sam_optax.batch_plan import BatchPlan, Stage
from sam_optax.combiners import (
    Combiner,
    gap_guided,
    gap_guided_clean,
    perturbed_gradient,
    reuse,
    stabilized,
    surplus,
    weighted,
)
from sam_optax.device_mean import average_over
from sam_optax.functional import functional_value_and_grad
from sam_optax.gradients import value_and_grad
from sam_optax.m_sam import sharpness_aware_grad
from sam_optax.masks import biases, by_path
from sam_optax.method_states import BSAMState, MSAMState, SharpnessAwareState
from sam_optax.methods.bayesian_sam import bsam, bsam_sample, bsam_value_and_grad
from sam_optax.methods.combined_gradients import gsam, look_sam, stable_sam, wsam, wsam_decoupled
from sam_optax.methods.explicit_sam import xsam, xsam_alpha
from sam_optax.methods.momentum_sam import msam, msam_eval_params
from sam_optax.methods.polyak_sam import sam_sps
from sam_optax.methods.sam_family import asam, friendly_sam, le_sam, ported_asam, sam, unified_sam, vasso
from sam_optax.named_methods import create, names
from sam_optax.noise_scale import Noise, NoiseAverage, NoiseTerms, noise_terms
from sam_optax.noise_tracking import TrackNoiseState, measured_noise, track_noise
from sam_optax.nonfinite import SkipNonfiniteState, skip_nonfinite
from sam_optax.offset_combiners import OffsetCombiner, PolyakState, explicit_direction, polyak_step
from sam_optax.perturbations import (
    adaptive_ascent,
    friendly_ascent,
    k_step_ascent,
    loss_increase_ascent,
    normalized_ascent,
    ported_adaptive_ascent,
    repeated_ascent,
    smoothed_ascent,
    unified_ascent,
)
from sam_optax.phases import PendingStep, TwoPhases, two_phases
from sam_optax.policies import Policy, ae_sam, after, always, bernoulli, every, last
from sam_optax.schedules import proportional_schedule
from sam_optax.second_pass import GradFn, SecondPass
from sam_optax.step_diagnostics import Diagnostics, diagnostics, without_diagnostics
from sam_optax.transformation import sharpness_aware

__version__ = "0.1.0"

__all__ = [
    "AdaptiveBatchPlan",
    "AdaptiveState",
    "BSAMState",
    "BatchPlan",
    "Combiner",
    "Diagnostics",
    "GradFn",
    "MSAMState",
    "Noise",
    "NoiseAverage",
    "NoiseTerms",
    "OffsetCombiner",
    "PendingStep",
    "Policy",
    "PolyakState",
    "Rule",
    "SecondPass",
    "SharpnessAwareState",
    "SkipNonfiniteState",
    "Stage",
    "TrackNoiseState",
    "TwoPhases",
    "adaptive_ascent",
    "ae_sam",
    "after",
    "always",
    "asam",
    "average_over",
    "bernoulli",
    "biases",
    "bsam",
    "bsam_sample",
    "bsam_value_and_grad",
    "by_path",
    "create",
    "decay_for_batch",
    "decay_for_growth",
    "diagnostics",
    "every",
    "explicit_direction",
    "friendly_ascent",
    "friendly_sam",
    "functional_value_and_grad",
    "gap_guided",
    "gap_guided_clean",
    "growth_for_decay",
    "gsam",
    "k_step_ascent",
    "last",
    "le_sam",
    "look_sam",
    "loss_increase_ascent",
    "measured_noise",
    "msam",
    "msam_eval_params",
    "names",
    "noise_scale_rule",
    "noise_terms",
    "norm_test",
    "normalized_ascent",
    "perturbed_gradient",
    "polyak_step",
    "ported_adaptive_ascent",
    "ported_asam",
    "proportional_schedule",
    "rate_for_growth",
    "repeated_ascent",
    "reuse",
    "sam",
    "sam_sps",
    "sharpness",
    "sharpness_aware",
    "sharpness_aware_grad",
    "skip_nonfinite",
    "smoothed_ascent",
    "stabilized",
    "stable_sam",
    "surplus",
    "track_noise",
    "two_phases",
    "unified_ascent",
    "unified_sam",
    "value_and_grad",
    "vasso",
    "weighted",
    "without_diagnostics",
    "wsam",
    "wsam_decoupled",
    "xsam",
    "xsam_alpha",
]
