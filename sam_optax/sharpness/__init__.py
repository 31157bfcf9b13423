"""How sharp a minimum is: worst and average loss around it, over radii, curvature, and the landscape itself."""

from sam_optax.sharpness.average_case import AverageCase, average_case
from sam_optax.sharpness.curve import Curve, curve
from sam_optax.sharpness.directions import random_directions, toward
from sam_optax.sharpness.eigenvalues import Eigenpairs, eigenpairs, top_eigenvalue
from sam_optax.sharpness.landscape import Landscape, landscape
from sam_optax.sharpness.logits import normalize_logits
from sam_optax.sharpness.m_sharpness import m_sharpness
from sam_optax.sharpness.matrices import Matrix, gauss_newton, hessian
from sam_optax.sharpness.spectral_density import SpectralDensity, spectral_density
from sam_optax.sharpness.surrogate_gap import SurrogateGap, surrogate_gap
from sam_optax.sharpness.trace import Trace, trace
from sam_optax.sharpness.worst_case import WorstCase, worst_case

__all__ = [
    "AverageCase",
    "Curve",
    "Eigenpairs",
    "Landscape",
    "Matrix",
    "SpectralDensity",
    "SurrogateGap",
    "Trace",
    "WorstCase",
    "average_case",
    "curve",
    "eigenpairs",
    "gauss_newton",
    "hessian",
    "landscape",
    "m_sharpness",
    "normalize_logits",
    "random_directions",
    "spectral_density",
    "surrogate_gap",
    "top_eigenvalue",
    "toward",
    "trace",
    "worst_case",
]
