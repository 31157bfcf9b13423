"""What to return: pure functions of the clean gradient `g` and the perturbed gradient `g_s`."""

from sam_optax.combiners.combiner import Combiner
from sam_optax.combiners.gap import gap_guided, gap_guided_clean
from sam_optax.combiners.perturbed import perturbed_gradient
from sam_optax.combiners.reused import reuse
from sam_optax.combiners.stabilized import stabilized
from sam_optax.combiners.surplus import surplus
from sam_optax.combiners.weighted import weighted

__all__ = [
    "Combiner",
    "gap_guided",
    "gap_guided_clean",
    "perturbed_gradient",
    "reuse",
    "stabilized",
    "surplus",
    "weighted",
]
