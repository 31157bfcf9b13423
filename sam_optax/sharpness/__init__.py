"""Measures of a minimum's sharpness: worst-case and average-case loss around it, curvature, and loss landscapes."""

from sam_optax.sharpness.curves import Curve, curve
from sam_optax.sharpness.eigenvalues import Eigenpairs, eigenpairs, top_eigenvalue
from sam_optax.sharpness.landscapes import Landscape, landscape, random_directions, toward
from sam_optax.sharpness.loss_rise import AverageCase, SurrogateGap, average_case, surrogate_gap
from sam_optax.sharpness.losses import normalize_logits
from sam_optax.sharpness.matrices import Matrix, gauss_newton, hessian
from sam_optax.sharpness.spectrum import SpectralDensity, Trace, spectral_density, trace
from sam_optax.sharpness.worst_cases import WorstCase, m_sharpness, worst_case

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
